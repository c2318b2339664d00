"""Text without secrets. The one place that says what a secret is; standard library only.

From URLs: userinfo (user:password@) and the values of query and fragment parameters that grant access, also
where the URL is percent-encoded, once or more, as the parameter of another. The rest of the URL stays, so one
can still see what is meant. What is said to people (errors, logs, progress) also loses the values of
environment variables that are named like a secret; data is not compared with them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote, quote_plus

REMOVED = "***"

# Repeats that pass over a "/" are bounded: texts are the user's data, and an unbounded one takes minutes on a
# hostile line. The others end where the next may begin.
# After "://", of which pathlib leaves ":/". Up to the last "@" before the host ends. The second form has an
# unescaped "/" or "?" in its password, which keys of AWS do have; digits and "/" after the colon are a port.
# The last is that of a URL in a URL of which "@" was encoded and "://" was not; no host has a "%".
_USERINFO = re.compile(
    r"(?<=[A-Za-z0-9][A-Za-z0-9+.-]:[/\\])([/\\]?)"
    r"(?:[^/?#\s\"'<>]*@|[^/?#\s\"'<>:@\[]{0,200}:(?!\d+(?:[/?#\s\"'<>]|$))[^\s\"'<>@]{0,1000}(?:@|%(?:25){0,8}40)"
    r"|[^/?#&\s\"'<>]*%(?:25){0,8}40)"
)
# The same in a percent-encoded URL: "%3A%2F%2F", or "%253A..." where that was encoded again. Group 2 is the
# "25" of the second and later encodings, so that an "%2F" of another depth is a character like any other.
_ENCODED_USERINFO = re.compile(
    r"(?i)(?<=[a-z0-9][a-z0-9+.-])(%((?:25){0,8})3A(?://?|(?:%\g2F){1,2}))"
    r"(?:(?:(?!%\g(?:2F|3F|23))[^/?#&\s\"'<>])*(@|%\g40)"
    r"|(?:(?!%\g(?:2F|3F|23|3A|40|5B))[^/?#&\s\"'<>:@\[]){0,200}%\g3A(?!\d+(?:%\g(?:2F|3F|23)|[/?#&]|$))"
    r"(?:(?!%\g40)[^&\s\"'<>@]){0,1000}(@|%\g40))".replace(r"\g", r"(?:\2)")
)
# A name holds a stem (X-Amz-Signature, access_token), ends in a word (sig, my-key), or is one of the others.
_STEMS = (
    "signature|token|secret|passw(?:or)?d|passphrase|credential|api[-_.]?key|access[-_.]?(?:key|id)|jwt|hmac"
    "|bearer|sess(?:ion)?[-_.]?id|auth(?:orization)?[-_.]?code|key[-_.]?pair[-_.]?id"
)
_WORDS = "sig|key|auth|authorization|pwd|pass|sas|session|hdnea|hdnts|hdntl"
_EXACT = "code|policy|sign|sid|hm|rlkey|resourcekey|q-ak|ticket|assertion|samlresponse|cookie|otp"
_NAME = r"(?:[^=&;#?\s\"'<>%]|%(?!(?:25){0,8}(?:3D|26|3B|23|3F)))"
_VALUE = r"[^&;#\s\"'<>]"
# The first form is that of a path: a query may follow. In the second, "&" is encoded as often as "=" is.
_PARAMETER = re.compile(
    r"(?i)(;[a-z]{0,20}sess(?:ion)?id=)[^/?&;#\s\"'<>]*"
    rf"|((?:[?&;#]|%(?:25){{0,8}}(?:3F|26|3B|23))"
    rf"(?:{_NAME}{{0,60}}(?:{_STEMS}){_NAME}{{0,60}}|(?:{_NAME}{{0,60}}[-_.])?(?:{_WORDS})|(?:{_EXACT}))"
    rf"(?:=|%(?P<depth>(?:25){{0,8}})3D))"
    rf"(?(depth)(?:(?!%(?:(?P=depth))(?:26|3B|23)){_VALUE})*|(?:'[^'\s,]*'|\"[^\"\s,]*\")?{_VALUE}*)"
)
# What ends a URL in a sentence, for the time being as characters that Unicode leaves to programs.
_ENDS = [*filter(str.isspace, map(chr, range(0x3001))), *"\"'<>"]
_HIDDEN = {ord(char): 0x10FF00 + number for number, char in enumerate(_ENDS)}
_SEEN = {hidden: char for char, hidden in _HIDDEN.items()}
# HF_TOKEN, AWS_ACCESS_KEY_ID, AZURE_STORAGE_CONNECTION_STRING, PGPASSWORD; not PWD, not ..._FILE or ..._PATH.
_VARIABLE = re.compile(
    r"(?i).*(?:token|secret|passw(?:or)?d|passphrase|credentials?|signature|jwt|connection_?string"
    r"|_(?:pwd|pass|sas|auth)|key(?:_?id)?)"
)
_MIN_VALUE = 8  # characters: "false" and "1" stand for themselves


def without_secrets(text: str, *, whole: bool = False) -> str:
    """The text, its URLs without userinfo and without the values of parameters that grant access.

    Args:
        whole: the text is one path or URL, so that a space or a quote is a character of it as any other.
    """
    if whole:
        return without_secrets(text.translate(_HIDDEN)).translate(_SEEN)
    has_at = "@" in text or "40" in text
    if has_at and (":/" in text or ":\\" in text):
        text = _USERINFO.sub(lambda found: f"{found[1]}{REMOVED}@", text)
    if has_at and "%" in text:
        text = _ENCODED_USERINFO.sub(lambda found: f"{found[1]}{REMOVED}{found[3] or found[4]}", text)
    if "=" in text or "%" in text:
        text = _PARAMETER.sub(lambda found: f"{found[1] or found[2]}{REMOVED}", text)
    return text


def sayable(text: str, *, environment: Mapping[str, str] | None = None) -> str:
    """without_secrets, and without the values of environment variables that are named like a secret.

    Args:
        environment: None is that of this process.
    """
    text = without_secrets(text)
    for value in _values(os.environ if environment is None else environment):
        text = text.replace(value, REMOVED)
    return text


def one_line(err: BaseException) -> str:
    """What an exception says, as it may be said: on one line."""
    return sayable(" ".join(str(err).split()))


def lacks_secrets(text: str) -> bool:
    """Whether something was taken out of this text, so that it is no address any more."""
    return REMOVED in text and (":/" in text or ":\\" in text)


def shown(source: str) -> str:
    """A path or URL as error messages have it: quoted, without secrets, and cut where it is long."""
    source = without_secrets(source, whole=True)
    return repr(source if len(source) <= 200 else source[:197] + "...")


def _values(environment: Mapping[str, str]) -> Iterator[str]:
    """Secret values as they are and as URLs have them, the longest first. A path of a file is no secret."""
    values = {value for name, value in environment.items() if _VARIABLE.fullmatch(name)}
    secrets = {value for value in values if len(value) >= _MIN_VALUE and not os.path.exists(value)}  # noqa: PTH110 - Path raises on long ones
    encoded = (form for value in secrets for form in (quote(value, safe=""), quote(value), quote_plus(value)))
    yield from sorted({*secrets, *encoded}, key=len, reverse=True)
