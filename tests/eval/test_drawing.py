"""Drawings hold nothing of the data but texts, whatever it says, and no colour that is not the page's."""

from __future__ import annotations

import re

import altair as alt
import pytest
from parsed_page import Seen

from cogbatch.eval.metrics import Average
from cogbatch.eval.report.charts import histogram, pass_curve, speed
from cogbatch.eval.report.drawing import clean, draw, plain
from cogbatch.eval.report.plots import Point, _free_side, boxes, plane
from cogbatch.eval.timeline import Pause, Timeline

HOSTILE = '</svg><script>alert(1)</script>" onload="alert(2)" \x00\x1b\ud800'
SHAPES = {"svg", "g", "path", "line", "rect", "circle", "text"}
AROUND = {
    "figure",
    "figcaption",
    "h3",
    "details",
    "summary",
    "div",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
}


def points(*names: str) -> list[Point]:
    return [
        Point(number, name, number, 1 / number, (number, number), (0.1, 0.9), front=number == 1)
        for number, name in enumerate(names, start=1)
    ]


def test_names_of_runs_are_texts_in_a_drawing() -> None:
    drawn = join_all(HOSTILE)
    seen = Seen(drawn)
    assert {name for name, _ in seen.tags} <= SHAPES | AROUND
    attributes = {key for _, values in seen.tags for key in values}
    assert not [key for key in attributes if key.startswith("on") or key in ("href", "style", "xlink:href")]
    labels = [values["aria-label"] or "" for _, values in seen.tags if "aria-label" in values]
    assert any("</svg><script>alert(1)</script>" in said for said in labels)
    assert not set("\x00\x1b") & set(drawn)


def join_all(name: str) -> str:
    """Every chart that shows the name of a run."""
    return boxes("num_tokens", [(name, [1, 2, 3]), ("b", [])], "candidate") + plane(
        "vendi_score", "correct", points(name, "b")
    )


def test_all_colours_are_of_the_page() -> None:
    drawn = join_all("a") + histogram("num_tokens", [1, 2, 2, 9], "candidate")
    colours = set(re.findall(r'(?:fill|stroke)="([^"]*)"', drawn))
    assert len(colours) > 2
    assert all(colour == "none" or re.fullmatch(r"var\(--[a-z]+\)", colour) for colour in colours), colours


def test_a_drawing_says_what_is_to_be_seen_as_one_picture() -> None:
    chart = alt.Chart(alt.InlineData(values=[{"a": 1, "says": "one"}])).mark_bar()
    drawn = draw(chart.encode(x="a:Q", description="says:N"), says='a "bar" & more')
    (name, values), *rest = Seen(drawn).tags
    assert (name, values["role"], values["aria-label"]) == ("svg", "img", 'a "bar" & more')
    assert [kept["aria-label"] for _, kept in rest if kept.get("class") == "mark"] == ["one"]


def test_names_are_short_and_on_one_line() -> None:
    assert plain("a\nb\tc") == "a b c"
    assert plain("x" * 99) == "x" * 39 + "…"
    assert clean("a\x00\ud800\x85b") == "a\ufffd\ufffd\ufffdb"


def values_of(figure: str) -> list[str]:
    """The cells of the table below a chart, row by row."""
    return re.findall(r">([^<>]+)</t[hd]>", figure)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 2, 4], ["1", "1", "2", "2", "3", "0", "4", "1"]),
        ([5, 5], ["5", "2"]),
        ([0, 1, 1], ["0", "1", "1", "2"]),
    ],
)
def test_whole_numbers_have_bins_of_whole_numbers(values: list[float], expected: list[str]) -> None:
    assert values_of(histogram("num_tokens", values, "candidate"))[2:] == expected


@pytest.mark.parametrize("values", [[3], [3, 3], [1, 2, 2, 4, 4, 4], list(range(9)) * 40])
def test_ticks_of_counts_are_whole_and_differ(values: list[float]) -> None:
    drawn = histogram("num_tokens", values, "candidate")
    ticks = [float(said) for said in re.findall(r'text-anchor="end"[^>]*>([\d,.]+)</text>', drawn)]
    assert ticks[0] == 0
    assert ticks == sorted(set(ticks))


def test_names_of_runs_are_whole_above_their_boxes() -> None:
    name = "strategy-arithmetic_temperature-0.8"
    assert f"1 {name}</text>" in boxes("num_tokens", [(name, [1, 2, 3])], "candidate")


def test_numbers_of_close_points_stand_on_sides_that_are_free() -> None:
    left, right = (Point(place, "a", x, x, (x, x), (x, x), front=True) for place, x in ((1, 0.50), (2, 0.51)))
    far = Point(3, "far", 9, 9, (9, 9), (9, 9), front=True)
    assert _free_side(left, [left, right, far]) == (-1, -1)
    assert _free_side(right, [left, right, far]) == (1, 1)
    assert _free_side(far, [far]) == (1, 1)


def test_every_value_is_in_a_bin() -> None:
    for values in ([0.5, 0.5], [-1.25, 3.5, 2.0], list(range(1000)), [1e-9, 2e-9], [-0.1] * 3):
        cells = values_of(histogram("logprob_per_token", values, "candidate"))[2:]
        assert sum(int(cell.replace(",", "")) for cell in cells[1::2]) == len(values)


def test_speed_says_what_was_left_out() -> None:
    line = Timeline((0, 50, 100), (100, 50), (Pause(30, 7200),), unknown_rows=8)
    drawn = speed(line)
    assert "1.5 rows/s over 100 s" in drawn
    assert "no part was written for 2 h in all" in drawn
    assert "8 rows are in parts that do not say" in drawn
    assert values_of(drawn)[2:] == ["0 to 50 s", "2", "50 to 100 s", "1"]
    assert drawn.count('aria-label="no part for 2 h"') == 1


def test_pass_at_every_k_is_in_the_table() -> None:
    found = pass_curve([Average("pass@1", 9, 0.5, 0.4, 0.6), Average("pass@2", 9, 0.75, None, None)])
    assert values_of(found)[3:] == ["pass@1", "0.500", "0.400 to 0.600", "pass@2", "0.750", "–"]


def test_points_have_numbers_and_their_names_in_tips() -> None:
    few = plane("vendi_score", "correct", points("alpha", "beta"))
    assert few.count(">1</text>") >= 2  # on desks and on phones
    assert "alpha</text>" not in few
    assert few.count("1, alpha: correct 1.000, Vendi score 1.00, on the front") == 4  # whole and point, twice
