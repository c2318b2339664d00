"""Charts of several runs: values in, figures out. What they show is also in words and in tables."""

from __future__ import annotations

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
    """A run in the plane of two metrics. low, high: ends of its intervals. front: no other run beats it."""

    number: int
    name: str
    x: float
    y: float
    x_interval: tuple[float, float]
    y_interval: tuple[float, float]
    front: bool


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
    names = [f"{place + 1} {plain(name)}"[:14] for place, (name, _) in enumerate(runs)]
    base = alt.Chart(data([one | {"name": names[one["run"]]} for one in rows])).encode(
        y=alt.Y("name:N", sort=names, title=None, axis=alt.Axis(domain=False, ticks=False)),
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
    ).properties(width=WIDTH_PX - 60, height={"step": 22})
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
            "name": _tag(point, points),
            "front": point.front,
            "says": f"{point.number}, {point.name}: {y_label.name} {number(point.y, y_label.digits)},"
            f" {x_label.name} {number(point.x, x_label.digits)}, {says[point.front]}",
        }
        for point in points
    ]
    colour = alt.condition("datum.front", alt.value(FRONT), alt.value(OTHER))
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
            base.mark_rule(opacity=0.45).encode(x="x_low:Q", x2="x_high:Q", y="y:Q", color=colour),
            base.mark_rule(opacity=0.45).encode(y="y_low:Q", y2="y_high:Q", x="x:Q", color=colour),
            base.mark_point(filled=True, size=110, opacity=1).encode(
                x=x_axis,
                y=y_axis,
                color=colour,
                shape=alt.condition("datum.front", alt.value("circle"), alt.value("square")),
                description="says:N",
            ),
            base.mark_text(
                align="left", dx=8, dy=-9, fontSize=12, fontWeight="bold", color="var(--ink)"
            ).encode(x=x_axis, y=y_axis, text="name:N"),
        ).properties(width=width, height=height)
        summary = f"{y_label.name} against {x_label.name}: " + "; ".join(str(one["says"]) for one in rows)
        drawings.append(draw(chart, says=summary, kind=kind))
    caption = "Filled circles joined by a line: the front, no other run is better in both. Squares: beaten. "
    return element(
        "figure", *drawings, element("figcaption", caption, "Lines through a point: 95 % intervals.")
    )


def _tag(point: Point, points: Sequence[Point]) -> str:
    """The name where there is room for names, else the number of the table."""
    has_room = len(points) <= 6 and max(len(one.name) for one in points) <= 18
    return f"{point.number} {plain(point.name)}" if has_room else str(point.number)
