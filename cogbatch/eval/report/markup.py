"""HTML that cannot be injected into: every string is escaped unless it was made here. No templates."""

from __future__ import annotations

import html
from collections.abc import Mapping

# Elements that have no content and no end tag.
VOID = frozenset({"meta", "img", "br", "wbr", "input"})
# HTML has no way to write these; models and file names do have them.
CONTROLS = {code: "\ufffd" for code in (*range(0x20), 0x7F, *range(0x80, 0xA0)) if chr(code) not in "\t\n"}


class Html(str):
    """A string that is HTML already. Only this module makes one out of data; a plain str is text."""

    __slots__ = ()


def element(name: str, *children: str, attributes: Mapping[str, str] | None = None) -> Html:
    """<name attributes>children</name>; children that are not Html, and all values, are escaped.

    Args:
        name, and the keys of attributes: ours, never from data.
    """
    pairs = "".join(f' {key}="{escape(value)}"' for key, value in (attributes or {}).items())
    if name in VOID:
        return Html(f"<{name}{pairs}>")
    return Html(f"<{name}{pairs}>{join(*children)}</{name}>")


def join(*children: str) -> Html:
    """The children one after the other, those that are not Html escaped."""
    return Html("".join(child if isinstance(child, Html) else escape(child) for child in children))


def escape(text: str) -> Html:
    """Text as HTML, for content and quoted attributes; control characters become U+FFFD."""
    return Html(html.escape(text.translate(CONTROLS), quote=True))
