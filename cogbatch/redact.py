"""Text without the secrets that URLs carry. The one place that says what a secret is; standard library only.

What is removed: userinfo (user:password@) and the values of query and fragment parameters that grant access.
The rest of the URL stays, so that one can still see what is meant.
"""

from __future__ import annotations

import re

REMOVED = "***"

# Repeats are bounded: texts are the user's data, and an unbounded one takes minutes on a hostile line.
# After "://", of which pathlib leaves ":/". Up to the last "@" before the host ends. The second form has an
# unescaped "/" or "?" in its password, which keys of AWS do have; digits and "/" after the colon are a port.
_USERINFO = re.compile(
    r"(?<=[A-Za-z0-9][A-Za-z0-9+.-]:/)(/?)"
    r"(?:[^/?#\s\"'<>]{0,1000}@|[^/?#\s\"'<>:@\[]{0,200}:(?!\d+(?:[/?#]|$))[^\s\"'<>@]{0,1000}@)"
)
_STEMS = "signature|token|secret|passw(?:or)?d|passphrase|credential|api[-_.]?key|access[-_.]?key|jwt"
_WORDS = "sig|key|auth|authorization|pwd|pass|sas|session|sessionid|hdnea|hdnts"
# A name that holds one of the stems, or ends in one of the words: X-Amz-Signature, access_token, sig, my-key.
_NAME = r"[^=&;#?\s\"'<>]"
_PARAMETER = re.compile(
    rf"(?i)(?<=[?&;#])((?:{_NAME}{{0,60}}(?:{_STEMS}){_NAME}{{0,60}}|(?:{_NAME}{{0,60}}[-_.])?(?:{_WORDS}))=)"
    r"[^&;#\s\"'<>]*"
)


def without_secrets(text: str) -> str:
    """The text, its URLs without userinfo and without the values of parameters that grant access."""
    if "@" in text and ":/" in text:
        text = _USERINFO.sub(rf"\1{REMOVED}@", text)
    return _PARAMETER.sub(rf"\1{REMOVED}", text) if "=" in text else text


def lacks_secrets(text: str) -> bool:
    """Whether without_secrets has taken something out of this text, so that it is no address any more."""
    return f":/{REMOVED}@" in text or f"://{REMOVED}@" in text or f"={REMOVED}" in text


def shown(source: str) -> str:
    """A path or URL as error messages have it: quoted, without secrets, and cut where it is long."""
    source = without_secrets(source)
    return repr(source if len(source) <= 200 else source[:197] + "...")
