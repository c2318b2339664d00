"""What a secret is, and that no text of ours shows one."""

from __future__ import annotations

import pickle
import re
import time
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogbatch.errors import DatasetError
from cogbatch.redact import lacks_secrets, sayable, shown, without_secrets


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://ann:s3cret@h/x.jpg", "https://***@h/x.jpg"),
        ("https://token@h/x.jpg", "https://***@h/x.jpg"),
        ("http:\\\\ann:s3cret@h/x.jpg", "http:\\\\***@h/x.jpg"),
        ("https:/ann:s3cret@h/x.jpg", "https:/***@h/x.jpg"),
        ("https://ann:p@ss@h/x", "https://***@h/x"),
        ("s3://AKIA:a/b+c=@bucket/k", "s3://***@bucket/k"),
        (f"https://{'jwt.' * 500}@h/x", "https://***@h/x"),
        ("url='http://h/?token='a&b'&w=3'", "url='http://h/?token=***&w=3'"),
        ('["http://h/a?token=","http://h/b?w=1"]', '["http://h/a?token=***","http://h/b?w=1"]'),
        ("see 'ftp://a:b@c/d' and (https://u@h/)", "see 'ftp://***@c/d' and (https://***@h/)"),
        ("http://h/a?X-Amz-Signature=ab&w=3", "http://h/a?X-Amz-Signature=***&w=3"),
        (
            "http://h/a?X-Amz-Credential=x%2Fy&X-Amz-Security-Token=z",
            "http://h/a?X-Amz-Credential=***&X-Amz-Security-Token=***",
        ),
        ("http://h/a?se=2027&sp=r&sig=ab%3D", "http://h/a?se=2027&sp=r&sig=***"),
        ("http://h/?key=1;token=2#access_token=9", "http://h/?key=***;token=***#access_token=***"),
        (
            "http://h/?AWSAccessKeyId=A&Expires=1&Signature=b",
            "http://h/?AWSAccessKeyId=***&Expires=1&Signature=***",
        ),
        ("http://h/?PASSWORD=1&api-key=2&apikey=3", "http://h/?PASSWORD=***&api-key=***&apikey=***"),
        ("simplecache::s3://k:s@b/x", "simplecache::s3://***@b/x"),
        ("http://h/a;jsessionid=AB01.node?img=5", "http://h/a;jsessionid=***?img=5"),
        ("http://h/a;PHPSESSID=1/b", "http://h/a;PHPSESSID=***/b"),
        ("http://h/back?code=4/0Ab&state=7", "http://h/back?code=***&state=7"),
        # CloudFront, Google (both versions), Akamai, Alibaba, Tencent, Discord, Dropbox, Drive.
        (
            "https://d1.cloudfront.net/a?Policy=eyJ_&Signature=b-~&Key-Pair-Id=K2",
            "https://d1.cloudfront.net/a?Policy=***&Signature=***&Key-Pair-Id=***",
        ),
        (
            "http://h/?X-Goog-Algorithm=G&X-Goog-Credential=a%40b&X-Goog-Signature=0f&GoogleAccessId=a@b",
            "http://h/?X-Goog-Algorithm=G&X-Goog-Credential=***&X-Goog-Signature=***&GoogleAccessId=***",
        ),
        ("http://h/?hdnts=exp=1~acl=/*~hmac=0f&a=1", "http://h/?hdnts=***&a=1"),
        ("http://h/?verify=1&hmac=0f", "http://h/?verify=1&hmac=***"),
        (
            "http://h/?OSSAccessKeyId=A&q-ak=B&q-signature=c",
            "http://h/?OSSAccessKeyId=***&q-ak=***&q-signature=***",
        ),
        ("http://h/?ex=1&hm=0f&rlkey=a&resourcekey=b", "http://h/?ex=1&hm=***&rlkey=***&resourcekey=***"),
        (
            "http://p/?url=https%3A%2F%2Fann%3As3cret%40h%2Fx%3Ftoken%3Dt%26w%3D3&w=4",
            "http://p/?url=https%3A%2F%2F***%40h%2Fx%3Ftoken%3D***%26w%3D3&w=4",
        ),
        ("http://p/?u=https%3a//k%3aa/b%2f@h/x%3fsig%3dt", "http://p/?u=https%3a//***@h/x%3fsig%3d***"),
        ("http://p/s3%253A%252F%252Fk%253Aa%252Fb%2540h%252Fx", "http://p/s3%253A%252F%252F***%2540h%252Fx"),
    ],
)
def test_userinfo_and_parameters_that_grant_access_are_removed(text: str, expected: str) -> None:
    assert without_secrets(text) == expected
    assert without_secrets(expected) == expected
    assert lacks_secrets(expected)


@pytest.mark.parametrize(
    "text",
    [
        *["http://h:8080/icon@2x.png", "http://[::1]:80/i@2x.png", "http://h/x@y?design=3&monkey=2"],
        *['{"url":"http://h","by":"a@b.example"}', "<a href='http://h'title='a@b'>", '["http://h:80","a@b"]'],
        *["mail ann@h.example about http://h/", "key=3", "http://h/?keyword=a&passage=1", "a/b=c.jpg", ""],
        *[
            "http://h/?zip_code=1&policy_id=2&design=3",
            "http://p/?u=http%3A%2F%2Fh%3A80%2Fi%402x.png%3Fa%3D1",
        ],
        *["50%3D and 20%26", "a%40b", "100 %"],
    ],
)
def test_all_other_text_stays(text: str) -> None:
    assert without_secrets(text) == text
    assert not lacks_secrets(text)


# Where a secret may stand in a URL; {} is the secret, percent-encoded as a URL has it.
PLACES = [
    *["https://{}@host/x", "https://ann:{}@host/x", "s3://{}:{}@host/x", "http://ann:a/{}@host/x"],
    *["http://host/x;jsessionid={}", "http://host/x#access_token={}"],
    *[
        f"http://host/x?a=1&{name}={{}}"
        for name in (
            *("X-Amz-Signature", "X-Amz-Credential", "X-Amz-Security-Token", "Signature", "AWSAccessKeyId"),
            *("X-Goog-Signature", "X-Goog-Credential", "GoogleAccessId", "sig", "Policy", "Key-Pair-Id"),
            *("code", "hmac", "token", "password", "api_key", "client_secret", "refresh_token", "hdnea"),
            *("x-oss-signature", "security-token", "sid", "PHPSESSID", "user[password]", "key", "my.pwd"),
        )
    ],
]
# Short: encoded four times, a character of four bytes takes 44, and userinfo of over 1,000 is not looked for.
SECRETS = st.builds("{}s3cret{}".format, st.text(max_size=5), st.text(max_size=5))


@given(st.sampled_from(PLACES), SECRETS, st.integers(0, 4), st.sampled_from(["", "/", ":/"]))
def test_a_secret_in_any_known_place_never_survives_however_often_it_is_encoded(
    place: str, secret: str, depth: int, safe: str
) -> None:
    """A URL in a URL, in a sentence; what follows the inner URL stays."""
    url = place.replace("{}", quote(secret, safe="", errors="replace"))
    for _ in range(depth):
        url = f"http://proxy/?url={quote(url, safe=safe)}&after=1"
    text = without_secrets(f"cannot fetch {url} at a=b")
    assert "s3cret" not in text
    assert text.startswith("cannot fetch http" if "s3:" not in text or depth else "cannot fetch s3://")
    assert text.endswith("&after=1" * (depth > 0) + " at a=b")
    assert "host" in text
    assert without_secrets(text) == text
    assert lacks_secrets(text)


@given(st.sampled_from(PLACES), st.text(" '\"<>\t\n\u2003ab", max_size=5))
def test_in_a_whole_address_spaces_and_quotes_do_not_end_the_secret(place: str, odd: str) -> None:
    address = place.replace("{}", f"{odd}s3cret{odd}")
    text = without_secrets(address, whole=True)
    assert "s3cret" not in text
    assert "s3cret" not in shown(address)
    assert "host" in text
    assert without_secrets(text, whole=True) == text
    plain = f"my {odd} photos/{odd}.jpg"
    assert without_secrets(plain, whole=True) == plain


@given(st.text(st.characters(exclude_characters="?&;#/")), st.text("tokensig =@:%.,25034DF-_*", max_size=80))
def test_text_without_urls_is_unchanged(any_text: str, like_a_parameter: str) -> None:
    for text in (any_text, like_a_parameter, f"{any_text}token={like_a_parameter}"):
        if not re.search(r"%(25)*(2F|26|3B|23|3F)", text, re.IGNORECASE):
            assert without_secrets(text) == text


@given(st.dictionaries(st.sampled_from(["w", "page", "size", "keyword"]), st.text()), st.integers(0, 3))
def test_a_url_without_a_secret_is_unchanged_however_often_it_is_encoded(
    query: dict[str, str], depth: int
) -> None:
    url = f"http://host:8080/icon@2x.png?{urlencode(query, errors='replace')}"
    for _ in range(depth):
        url = f"http://proxy:80/?url={quote(url, safe='')}"
    assert without_secrets(url) == url


@pytest.mark.parametrize(
    "name",
    [
        *["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "OPENAI_API_KEY"],
        *[
            "AZURE_STORAGE_CONNECTION_STRING",
            "AZURE_STORAGE_SAS_TOKEN",
            "PGPASSWORD",
            "MYSQL_PWD",
            "my_passwd",
        ],
    ],
)
def test_what_is_said_holds_no_value_of_a_variable_that_is_named_like_a_secret(name: str) -> None:
    environment = {name: "a/b+c d12", "OTHER_SECRET": "a/b+c", "ANOTHER_TOKEN": "a/b+c d12 and more"}
    said = sayable("x a/b+c d12 y a%2Fb%2Bc%20d12 z a/b+c d12 and more", environment=environment)
    assert said == "x *** y *** z ***"
    assert sayable("a/b%2Bc%20d12 a%2Fb%2Bc+d12", environment=environment) == "*** ***"


@pytest.mark.parametrize(
    "environment",
    [
        {
            "HOME": "/home/ann",
            "PWD": "/somewhere",
            "TOKENIZERS_PARALLELISM": "parallel",
            "MONKEY_ISLAND": "parallel",
        },
        {"MAX_TOKEN": "512", "USE_AUTH_TOKEN": "false", "API_KEY": ""},  # short: they stand for themselves
        {"GOOGLE_APPLICATION_CREDENTIALS": __file__, "AWS_WEB_IDENTITY_TOKEN_FILE": "/somewhere/token"},
    ],
)
def test_other_variables_and_what_is_no_secret_may_be_said(environment: dict[str, str]) -> None:
    text = f"512 of false in /home/ann and /somewhere/token, parallel, by {__file__}"
    assert sayable(text, environment=environment) == text


def test_an_error_of_ours_quotes_no_variable_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_s3cretOfTheHub")
    assert str(DatasetError("401 for hf_s3cretOfTheHub")) == "401 for ***"


def test_hostile_text_takes_no_longer_than_its_length_asks_for() -> None:
    """Each takes minutes with a pattern that backtracks over the whole text; here well under a second."""
    texts = ["a" * 200_000 + "=@://", "://a:b" * 30_000 + "@", "?a" * 50_000 + "="]
    texts += [
        "%3A%2F%2Fa" * 5_000,
        "ab%3A//c%3Ad" * 5_000,
        "ab://%40" * 5_000,
        "%3Ftoken" * 9_000,
        "%25" * 50_000 + "3D",
    ]
    began = time.monotonic()
    for text in [*texts, "?" + "token-" * 30_000 + "="]:
        without_secrets(text)
    assert time.monotonic() - began < 30


def test_no_error_of_ours_shows_a_secret_also_after_a_journey() -> None:
    err = DatasetError("input 's3://k:s3cret@b/x': https://h/?token=s3cret is gone")
    for message in (str(err), repr(err), str(pickle.loads(pickle.dumps(err)))):
        assert "s3cret" not in message
        assert "s3://***@b/x" in message


def test_what_is_shown_is_cut_after_its_secrets_are_removed() -> None:
    url = "https://" + "u" * 150 + ":" + "s3cret" * 20 + "@host/" + "x" * 300
    assert shown(url).startswith("'https://***@host/xxx")
    assert len(shown(url)) == 202
