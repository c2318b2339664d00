"""What a secret is, and that no text of ours shows one."""

from __future__ import annotations

import pickle
import time

import pytest

from cogbatch.errors import DatasetError
from cogbatch.redact import lacks_secrets, shown, without_secrets


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://ann:s3cret@h/x.jpg", "https://***@h/x.jpg"),
        ("https://token@h/x.jpg", "https://***@h/x.jpg"),
        ("https:/ann:s3cret@h/x.jpg", "https:/***@h/x.jpg"),
        ("https://ann:p@ss@h/x", "https://***@h/x"),
        ("s3://AKIA:a/b+c=@bucket/k", "s3://***@bucket/k"),
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
        *["mail ann@h.example about http://h/", "key=3", "http://h/?keyword=a&passage=1", "a/b=c.jpg", ""],
    ],
)
def test_all_other_text_stays(text: str) -> None:
    assert without_secrets(text) == text
    assert not lacks_secrets(text)


def test_hostile_text_takes_no_longer_than_its_length_asks_for() -> None:
    """Each takes minutes with a pattern that backtracks over the whole text; here well under a second."""
    texts = ["a" * 200_000 + "=@://", "://a:b" * 30_000 + "@", "?a" * 50_000 + "="]
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
