"""Vega-Lite charts as SVG inside a page: drawn once, without a script, in the page's own colours.

The renderer's SVG is not trusted: it is parsed, and only shapes, texts and what places them are written anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from xml.etree import ElementTree

import altair as alt
import vl_convert

from cogbatch.eval.report.markup import Html, element

SVG = "{http://www.w3.org/2000/svg}"
VEGALITE = "6.1"  # of altair 6
ELEMENTS = frozenset({"svg", "g", "path", "line", "rect", "circle", "text", "tspan"})
ATTRIBUTES = frozenset(
    {
        *(
            "viewBox",
            "transform",
            "d",
            "x",
            "y",
            "x1",
            "x2",
            "y1",
            "y2",
            "dx",
            "dy",
            "cx",
            "cy",
            "r",
            "rx",
            "ry",
        ),
        *("width", "height", "fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity"),
        *("stroke-dasharray", "stroke-miterlimit", "stroke-linecap", "stroke-linejoin", "opacity"),
        *("text-anchor", "font-size", "font-weight", "font-style"),
    }
)
COLOUR = re.compile(r"none|transparent|currentColor|#[0-9a-fA-F]{3,8}|var\(--[a-z0-9-]+\)")
UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
MAX_NAME = 40  # characters of a text from data in a drawing
WIDTH_PX, HEIGHT_PX = 270, 130  # of a chart without its axes: fits a phone of 360 pixels, unscaled
FRONT, OTHER = "var(--accent)", "var(--quiet)"
# One look for all charts; colours are the page's, light or dark.
CONFIG: Mapping[str, object] = {
    "background": "transparent",
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--quiet)",
        "titleColor": "var(--quiet)",
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "titlePadding": 6,
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "tickSize": 4,
        "labelPadding": 4,
    },
    "text": {"color": "var(--ink)", "fontSize": 11},
}


def draw(chart: alt.Chart | alt.LayerChart | alt.FacetChart, *, says: str, kind: str = "") -> Html:
    """The chart as an <svg> that is one picture to a screen reader.

    Args:
        says: what is to be seen, for those who do not see it. kind: class of the element.
    """
    source = vl_convert.vegalite_to_svg(chart.to_dict() | {"config": CONFIG}, vl_version=VEGALITE)
    root = ElementTree.fromstring(source)
    named = {"role": "img", "aria-label": says, "class": f"chart {kind}".rstrip()}
    return _rebuilt(root, named)


def plain(name: str) -> str:
    """A text from data as a drawing can hold it: on one line, short, without control characters."""
    line = " ".join(clean(name).split())
    return line if len(line) <= MAX_NAME else line[: MAX_NAME - 1] + "…"


def clean(text: str) -> str:
    """A text from data without what XML cannot hold: control characters, lone surrogates, and the like."""
    return UNFIT.sub("\ufffd", text)


def data(rows: Iterable[Mapping[str, Any]]) -> alt.InlineData:
    """Rows as JSON has them; texts without what XML cannot hold."""
    return alt.InlineData(
        values=[
            {key: clean(value) if isinstance(value, str) else value for key, value in one.items()}
            for one in rows
        ]
    )


def _rebuilt(node: ElementTree.Element, extra: Mapping[str, str]) -> Html:
    name = node.tag.removeprefix(SVG)
    children = [_rebuilt(child, {}) for child in node if child.tag.removeprefix(SVG) in ELEMENTS]
    children = [child for child in children if child]
    if not children and not (node.text or "").strip() and name in ("g", "text"):
        return Html("")
    if name == "path" and not node.get("d"):
        return Html("")
    kept = {key: value for key, value in node.items() if key in ATTRIBUTES and _is_safe(key, value)}
    if name != "g" and node.get("role") == "graphics-symbol" and node.get("aria-label"):
        kept |= {"class": "mark", "aria-label": node.get("aria-label", "")}
    said = node.text or "" if name in ("text", "tspan") else ""
    return element(name, said, *children, attributes={**kept, **extra})


def _is_safe(key: str, value: str) -> bool:
    return key not in ("fill", "stroke") or COLOUR.fullmatch(value) is not None
