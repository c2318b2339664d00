"""What all parts of the report are made of: sections, tables, pairs, texts. Holds no data."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cogbatch.eval.report.markup import Html, element, join

NOTHING = Html("")


def section(name: str, title: str, *children: str, wide: bool = False) -> Html:
    """A part of the page under a heading. name: of the anchor."""
    attributes = {"id": name, "aria-labelledby": f"{name}-title"} | ({"class": "wide"} if wide else {})
    return element(
        "section", element("h2", title, attributes={"id": f"{name}-title"}), *children, attributes=attributes
    )


def table(title: str, columns: Iterable[str], rows: Iterable[Html], *, kind: str = "") -> Html:
    """In a box of its own that scrolls, also by keyboard: a page must not scroll sideways on a phone."""
    head = element("tr", *(element("th", name, attributes={"scope": "col"}) for name in columns))
    whole = element(
        "table",
        element("thead", head),
        element("tbody", *rows),
        attributes={"class": kind} if kind else None,
    )
    box = {"class": "scroll", "role": "region", "aria-label": title, "tabindex": "0"}
    return element("div", whole, attributes=box)


def row(name: str, *cells: str, kind: str = "number") -> Html:
    """A row of a table: its head and cells."""
    return element(
        "tr",
        element("th", name, attributes={"scope": "row"}),
        *(element("td", cell, attributes={"class": kind}) for cell in cells),
    )


def pairs(found: Iterable[tuple[str, str]], kind: str) -> Html:
    """Names and values."""
    children = (element("div", element("dt", key), element("dd", value)) for key, value in found)
    return element("dl", *children, attributes={"class": kind})


def quiet(*said: str) -> Html:
    """A paragraph beside the point."""
    return element("p", *said, attributes={"class": "quiet"})


def text(said: str) -> Html:
    """Text from data: in its own direction, so that it cannot reorder what is around it."""
    return element("bdi", said, attributes={"class": "text"})


def breakable(name: str) -> Html:
    """A name that lines may break in after _ and -, so that none breaks within a word."""
    return join(
        *(join(piece, element("wbr")) if piece in "_-" else piece for piece in re.split("([_-])", name))
    )


def fold(title: str, *children: str) -> Html:
    """Children that are shown when asked for."""
    return element("details", element("summary", title), *children)


def note(*said: str) -> Html:
    """A remark that must be seen."""
    return element("p", join(*said), attributes={"class": "remark"})


def figure(title: str, drawn: Html, caption: str, values: Html) -> Html:
    """A chart with what it says, and its values for those who cannot see it, or want them."""
    return element(
        "figure",
        element("h3", title),
        drawn,
        element("figcaption", caption),
        fold("Values", values),
    )
