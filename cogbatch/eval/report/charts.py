"""Charts of one run: values in, figures out. What they show is also in words and in tables below them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import altair as alt
import numpy as np
from numpy.typing import NDArray

from cogbatch.eval.metrics import Average
from cogbatch.eval.report.blocks import figure, row, table
from cogbatch.eval.report.drawing import FRONT, HEIGHT_PX, WIDTH_PX, data, draw
from cogbatch.eval.report.labels import axis_title, counted, interval, label, number, percent, span
from cogbatch.eval.report.markup import Html
from cogbatch.eval.timeline import Timeline

MAX_BINS = 30
FEW = 8  # bins that all get a number below
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def histogram(metric: str, values: Sequence[float], of: str) -> Html:
    """How the values of one run are spread. of: what each value belongs to, for example candidate."""
    said, found = label(metric), np.asarray(values, dtype=np.float64)
    edges = _edges(found)
    counts, _ = np.histogram(found, bins=edges)
    digits = said.digits
    rows = [
        {"from": start, "to": end, "count": int(n), "says": f"{_range(start, end, digits)}: {int(n):,}"}
        for (start, end), n in zip(pairwise(edges.tolist()), counts, strict=True)
    ]
    ticks = alt.Axis(grid=False, tickCount=6)
    if len(rows) <= FEW and edges[0] % 1 == 0.5:
        ticks = alt.Axis(grid=False, values=(edges[:-1] + 0.5).tolist(), format="d")
    # Not more ticks than the count is high: halves would be rounded to labels that repeat.
    whole = alt.Axis(tickCount=min(4, int(counts.max())), format=",d", domain=False, ticks=False)
    chart = (
        alt.Chart(data(rows))
        .mark_bar(color=FRONT, binSpacing=1)
        .encode(
            x=alt.X("from:Q", bin="binned", title=axis_title(metric), axis=ticks),
            x2="to:Q",
            y=alt.Y("count:Q", title=f"{of}s", axis=whole),
            description="says:N",
        )
        .properties(width=WIDTH_PX, height=HEIGHT_PX)
    )
    low, first, median, third, high = np.quantile(found, QUANTILES).tolist()
    caption = (
        f"median {number(median, digits)}, half of them {number(first, digits)} to {number(third, digits)},"
        f" nine of ten {number(low, digits)} to {number(high, digits)}"
    )
    cells = (row(_range(one["from"], one["to"], digits), f"{one['count']:,}") for one in rows)
    if is_yes_or_no(values):
        caption = f"1 for {percent(float(found.mean()))} of the {of}s, else 0"
    values_table = table(f"{said.name}, values", (said.name, f"{of}s"), cells, kind="small")
    return figure(said.title, draw(chart, says=f"Histogram of {said.name}: {caption}"), caption, values_table)


def is_yes_or_no(values: Sequence[float]) -> bool:
    """Whether all values are 0 or 1: then the mean says all."""
    return set(np.unique(np.asarray(values)).tolist()) <= {0.0, 1.0}


def speed(line: Timeline) -> Html:
    """Rows per second over the working time, with the pauses that were cut out."""
    unit_s, unit = (
        (3600.0, "h") if line.working_s > 7200 else (60.0, "min") if line.working_s > 120 else (1.0, "s")
    )
    edges = [edge / unit_s for edge in line.edges_s]
    rows = [
        {
            "from": start,
            "to": end,
            "speed": rate,
            "says": f"{start:.3g} to {end:.3g} {unit}: {rate:.3g} rows/s, {counted(count, 'row')}",
        }
        for (start, end), rate, count in zip(pairwise(edges), line.rows_per_s, line.rows, strict=True)
    ]
    chart: Any = (
        alt.Chart(data(rows))
        .mark_bar(color=FRONT, binSpacing=1)
        .encode(
            x=alt.X(
                "from:Q", bin="binned", title=f"working time, {unit}", axis=alt.Axis(grid=False, tickCount=6)
            ),
            x2="to:Q",
            y=alt.Y("speed:Q", title="rows/s", axis=alt.Axis(tickCount=4, domain=False, ticks=False)),
            description="says:N",
        )
    )
    if line.pauses:
        cuts = [
            {"at": pause.at_s / unit_s, "says": f"no part for {span(pause.length_s)}"}
            for pause in line.pauses
        ]
        rules = alt.Chart(data(cuts)).mark_rule(color="var(--bad)", strokeDash=[4, 3], strokeWidth=1.5)
        chart = alt.layer(chart, rules.encode(x="at:Q", description="says:N"))
    caption = f"{line.mean_rows_per_s:.3g} rows/s over {span(line.working_s)}"
    if line.pauses:
        left_out = span(sum(pause.length_s for pause in line.pauses))
        caption += (
            f"; dashed: no part was written for {left_out} in all (loading, stopped, waiting), left out"
        )
    if line.unknown_rows:
        are = "is in a part that does" if line.unknown_rows == 1 else "are in parts that do"
        caption += f"; {counted(line.unknown_rows, 'row')} {are} not say when written"
    cells = (row(f"{one['from']:.3g} to {one['to']:.3g} {unit}", f"{one['speed']:.3g}") for one in rows)
    values = table("Throughput, values", ("working time", "rows/s"), cells, kind="small")
    drawn = draw(chart.properties(width=WIDTH_PX, height=HEIGHT_PX), says=f"Throughput over time: {caption}")
    return figure("Throughput", drawn, f"{caption}. By the times at which parts were written.", values)


def pass_curve(averages: Sequence[Average]) -> Html:
    """pass@k for every k, with its intervals. averages: those named pass@k, k ascending."""
    rows: list[dict[str, Any]] = [
        {
            "k": int(one.metric.removeprefix("pass@")),
            "mean": one.mean,
            "low": one.mean if one.low is None else one.low,
            "high": one.mean if one.high is None else one.high,
            "interval": interval(one.low, one.high, 3),
            "says": f"{one.metric}: {number(one.mean, 3)}, {interval(one.low, one.high, 3)}",
        }
        for one in averages
        if one.mean is not None
    ]
    whole = alt.Axis(grid=False, tickMinStep=1, tickCount=min(len(rows), 8), format="d")
    x_axis = alt.X("k:Q", title="k", axis=whole, scale=alt.Scale(nice=False, zero=False, padding=8))
    y_scale = alt.Scale(zero=False, nice=True, domainMax=1)
    y_axis = alt.Axis(tickCount=4, domain=False, ticks=False)
    base = alt.Chart(data(rows)).encode(x=x_axis)
    chart = alt.layer(
        base.mark_area(color=FRONT, opacity=0.2).encode(
            y=alt.Y("low:Q", title="pass@k", scale=y_scale, axis=y_axis), y2="high:Q"
        ),
        base.mark_line(color=FRONT).encode(y="mean:Q"),
        base.mark_point(color=FRONT, filled=True, opacity=1, size=40).encode(
            y="mean:Q", description="says:N"
        ),
    ).properties(width=WIDTH_PX, height=HEIGHT_PX)
    first, last = rows[0], rows[-1]
    caption = (
        f"odds that of k draws at least one is correct: {number(first['mean'], 3)} for k = {first['k']},"
        f" {number(last['mean'], 3)} for k = {last['k']}"
    )
    cells = (row(f"pass@{one['k']}", number(one["mean"], 3), one["interval"]) for one in rows)
    values = table("pass@k, values", ("metric", "mean", "95 % interval"), cells, kind="small")
    return figure("pass@k", draw(chart, says=f"pass@k by k: {caption}"), caption, values)


def _edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of bins that are whole numbers apart where the values are whole numbers."""
    low, high = float(values.min()), float(values.max())
    if (values == np.round(values)).all():
        step = max(1, int(np.ceil((high - low + 1) / MAX_BINS)))
        return np.arange(low, high + step + 1, step) - 0.5
    if high - low < 1e-6 * max(abs(high), 1e-6):
        return np.array([low - 0.5, high + 0.5])
    return np.linspace(low, high, MAX_BINS + 1)


def _range(start: float, end: float, digits: int) -> str:
    if end - start >= 1 and start % 1 == 0.5:  # bins of whole numbers
        first, last = int(start + 0.5), int(end - 0.5)
        return str(first) if first == last else f"{first} to {last}"
    return f"{number(start, digits)} to {number(end, digits)}"
