"""Charts of several runs: values in, figures out. What they show is also in words and in tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt
import numpy as np

from cogbatch.eval.report.blocks import figure, row, table
from cogbatch.eval.report.charts import QUANTILES
from cogbatch.eval.report.drawing import FRONT, OTHER, WIDTH_PX, data, draw, plain
from cogbatch.eval.report.labels import axis_title, interval, label, number
from cogbatch.eval.report.markup import Html, element


@dataclass(frozen=True)
class Point:
    """A run in the plane of two metrics. low, high: ends of its intervals. front: no other run beats it.

    unfinished: how many rows of how many are there, where some are missing.
    """

    number: int
    name: str
    x: float
    y: float
    x_interval: tuple[float, float]
    y_interval: tuple[float, float]
    front: bool
    unfinished: str = ""


def boxes(metric: str, runs: Sequence[tuple[str, Sequence[float]]], of: str) -> Html:
    """How the values of several runs are spread, one line for each: middle half, nine of ten, median."""
    said = label(metric)
    rows = []
    for place, (name, values) in enumerate(runs):
        if len(values):
            found = np.asarray(values, dtype=np.float64)
            low, first, median, third, high = np.quantile(found, QUANTILES).tolist()
            says = f"{name}: median {number(median, said.digits)}, half {interval(first, third, said.digits)}"
            rows.append(
                {"run": place, "low": low, "first": first, "median": median, "third": third, "high": high}
                | {"says": says}
            )
    names = [f"{place + 1} {plain(name)}" for place, (name, _) in enumerate(runs)]
    # Names stand above their boxes: beside them there is no room for a whole one.
    base = alt.Chart(data([one | {"name": names[one["run"]]} for one in rows])).encode(
        y=alt.Y("run:O", title=None, axis=None)
    )
    x_axis = alt.Axis(tickCount=5, domain=False, ticks=False)
    scale = alt.Scale(zero=False, nice=True)
    chart = alt.layer(
        base.mark_rule(color=OTHER).encode(
            x=alt.X("low:Q", title=axis_title(metric), axis=x_axis, scale=scale), x2="high:Q"
        ),
        base.mark_bar(color=FRONT, height=10, opacity=0.55).encode(
            x="first:Q", x2="third:Q", description="says:N"
        ),
        base.mark_tick(color="var(--ink)", thickness=2, height=14).encode(x="median:Q", description="says:N"),
        base.mark_text(align="left", baseline="bottom", dy=-9, color="var(--quiet)").encode(
            x=alt.value(0), text="name:N"
        ),
    ).properties(width=WIDTH_PX, height={"step": 38})
    columns = ("run", "median", "middle half", "nine of ten")
    cells = (
        row(
            runs[one["run"]][0],
            number(one["median"], said.digits),
            interval(one["first"], one["third"], said.digits),
            interval(one["low"], one["high"], said.digits),
        )
        for one in rows
    )
    caption = f"of each {of}: bar for the middle half, line for nine of ten, tick for the median"
    drawn = draw(chart, says=f"{said.name} by run: " + "; ".join(str(one["says"]) for one in rows))
    return figure(said.title, drawn, caption, table(f"{said.name}, values", columns, cells, kind="small"))


def plane(x: str, y: str, points: Sequence[Point]) -> Html:
    """Runs by two metrics, with intervals, and the line of those that no other beats."""
    says = {True: "on the front", False: "beaten by another"}
    x_label, y_label = label(x), label(y)
    rows = [
        {
            "x": point.x,
            "y": point.y,
            **dict(zip(("x_low", "x_high"), point.x_interval, strict=True)),
            **dict(zip(("y_low", "y_high"), point.y_interval, strict=True)),
            "number": str(point.number),
            "front": point.front,
            "colour": FRONT if point.front else OTHER,
            "fill": "var(--card)" if point.unfinished else FRONT if point.front else OTHER,
            **dict(zip(("right", "up"), _free_side(point, points), strict=True)),
            "says": f"{point.number}, {point.name}: {y_label.name} {number(point.y, y_label.digits)},"
            f" {x_label.name} {number(point.x, x_label.digits)}, {says[point.front]}"
            + (f", unfinished: {point.unfinished}" if point.unfinished else ""),
        }
        for point in points
    ]
    colour = alt.Stroke("colour:N", scale=None)
    scale = alt.Scale(zero=False, nice=True, padding=18)
    base = alt.Chart(data(rows))
    # One drawing for desks and one for phones: texts must not shrink.
    drawings = []
    for kind, width, height in (("wide", 560, 340), ("narrow", 250, 260)):
        x_axis = alt.X("x:Q", title=axis_title(x), scale=scale, axis=alt.Axis(tickCount=6))
        y_axis = alt.Y("y:Q", title=axis_title(y), scale=scale, axis=alt.Axis(tickCount=6))
        chart = alt.layer(
            alt.Chart(data(sorted((one for one in rows if one["front"]), key=lambda one: one["x"])))
            .mark_line(color=FRONT, opacity=0.5, strokeDash=[5, 4])
            .encode(x=x_axis, y=y_axis),
            base.mark_rule(opacity=0.45).encode(x="x_low:Q", x2="x_high:Q", y="y:Q", stroke=colour),
            base.mark_rule(opacity=0.45).encode(y="y_low:Q", y2="y_high:Q", x="x:Q", stroke=colour),
            base.mark_point(size=110, opacity=1, strokeWidth=2).encode(
                x=x_axis,
                y=y_axis,
                stroke=colour,
                fill=alt.Fill("fill:N", scale=None),
                shape=alt.condition("datum.front", alt.value("circle"), alt.value("square")),
                description="says:N",
            ),
            base.mark_text(
                dx={"expr": "11 * datum.right"},
                dy={"expr": "-11 * datum.up"},
                baseline="middle",
                fontSize=12,
                fontWeight="bold",
                color="var(--ink)",
            ).encode(x=x_axis, y=y_axis, text="number:N"),
        ).properties(width=width, height=height)
        summary = f"{y_label.name} against {x_label.name}: " + "; ".join(str(one["says"]) for one in rows)
        drawings.append(draw(chart, says=summary, kind=kind))
    caption = "Circles joined by a line: the front, no other run is better in both. Squares: beaten. "
    if any(point.unfinished for point in points):
        caption += "Hollow: unfinished. "
    return element(
        "figure", *drawings, element("figcaption", caption, "Lines through a point: 95 % intervals.")
    )


def _free_side(point: Point, points: Sequence[Point]) -> tuple[int, int]:
    """Where the number of a point stands, (1, 1) for right and above: away from the nearest other point."""
    across, up = [one.x for one in points], [one.y for one in points]
    width, height = (max(ends) - min(ends) or 1.0 for ends in (across, up))
    ways = [((one.x - point.x) / width, (one.y - point.y) / height) for one in points if one is not point]
    if not ways:
        return 1, 1
    right, above = min(ways, key=lambda way: math.hypot(*way))
    return -1 if right > 0 else 1, -1 if above > 0 else 1
