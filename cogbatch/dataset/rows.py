"""Row: one input item as read, with everything that may be wrong with it as a value. No files are opened."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cogbatch.redact import one_line
from cogbatch.types import RequestError, Stage

ID_SEPARATOR = "|"  # between the values of several id columns


@dataclass(frozen=True)
class Row:
    """One input item.

    Args:
        input_file: path relative to the input's folder ("." for an image folder). input_row: its row;
            blank lines of a JSONL or CSV file are not rows. The two are the row's identity.
        id: from the id columns, or made from the identity.
        image: encoded bytes, http(s) URL, or absolute local path; None for a text-only request.
        image_ref: the image value as it was in the data, without the secrets of a URL; None for bytes.
        prompt: without template. carried: column -> value, for the output's schema.
        error: why the row cannot become a request; it becomes an error row, never an exception.
    """

    input_file: str
    input_row: int
    id: str
    image: str | bytes | None = None
    image_ref: str | None = None
    prompt: str = ""
    carried: Mapping[str, object] = field(default_factory=dict)
    error: RequestError | None = None


def make_id(values: Sequence[object], *, input_file: str, input_row: int) -> str:
    """The values joined by "|"; "<file>#<row>" when there are none or one of them is null.

    A "|" within one of several values becomes "\\|", so that ("a|b", "c") and ("a", "b|c") stay two ids.
    """
    if not values or any(value is None for value in values):
        return clean(f"{input_file}#{input_row}")
    if len(values) == 1:
        return as_text(values[0])
    return ID_SEPARATOR.join(_escaped(as_text(value)) for value in values)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace(ID_SEPARATOR, f"\\{ID_SEPARATOR}")


def as_text(value: object) -> str:
    """A value as UTF-8 text; bytes that are no text as base64."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    return clean(str(value))


def clean(text: str) -> str:
    """The text without lone surrogates, which JSON can hold and Arrow cannot."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def printable(text: str) -> str:
    """The text for messages: line ends, control characters and lone surrogates as escapes."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def row_error(stage: Stage, err: BaseException) -> RequestError:
    """A row's error as its three fields; the message on one line and without secrets."""
    message = printable(one_line(err)) or type(err).__name__
    return RequestError(stage=stage, type=type(err).__name__, message=message)
