"""The table of a sweep as files: Parquet and CSV with every number, Markdown for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from cogbatch.dataset.atomic import write_atomically, write_text
from cogbatch.dataset.object_path import Place
from cogbatch.eval.markdown import escaped, grid
from cogbatch.eval.metrics import Average
from cogbatch.eval.pareto import rising
from cogbatch.eval.sweep_table import PointResult, SweepTable
from cogbatch.metric_names import COST

NEUTRAL = frozenset({"num_candidates", "num_tokens"})  # neither more nor less is better
Scalar = bool | int | float | str | None


def write_table(table: SweepTable, folder: Place) -> None:
    """table.parquet, table.csv and table.md in the sweep's directory, each whole or not at all."""
    columns = pa.table(columns_of(table))
    write_atomically(folder / "table.parquet", lambda file: pq.write_table(columns, file))
    write_atomically(folder / "table.csv", lambda file: pyarrow.csv.write_csv(columns, file))
    write_text(folder / "table.md", markdown(table))


def records(table: SweepTable) -> list[dict[str, Scalar]]:
    """One flat row for each point, all with the same keys."""
    settings = {
        key: _plain([point.run.settings.get(key) for point in table.points]) for key in table.settings
    }
    return [
        {
            "name": point.name,
            "path": point.run.path,
            **{key: values[number] for key, values in settings.items()},
            "items": point.items,
            "errors": point.errors,
            **_numbers(table, point),
            "engine_seconds": point.engine_seconds,
            "on_front": point.on_front,
            "no_pass_at_k": point.no_pass_at_k,
            "failure": point.run.failure,
        }
        for number, point in enumerate(table.points)
    ]


def columns_of(table: SweepTable) -> dict[str, list[Scalar]]:
    """The same by column."""
    rows = records(table)
    return {key: [row[key] for row in rows] for key in rows[0]}


def _numbers(table: SweepTable, point: PointResult) -> dict[str, Scalar]:
    """Mean, ends of the 95 % interval, and items of every metric."""
    found: dict[str, Scalar] = {}
    for metric in table.metrics:
        one = point.averages.get(metric, Average(metric, 0, None, None, None))
        found |= {metric: one.mean, f"{metric}_low": one.low, f"{metric}_high": one.high}
        found[f"{metric}_items"] = one.num_items
    return found


def _plain(values: Sequence[Any]) -> list[Scalar]:
    """Values of one type for one column; as JSON where they are of several, or no plain ones."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} or (len(kinds) == 1 and kinds <= {bool, str}):
        return [float(value) if float in kinds and value is not None else value for value in values]
    return [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]


def to_json(table: SweepTable) -> dict[str, Any]:
    """A plain dict: the axes and every record."""
    return {
        "name": table.name,
        "judge": table.judge,
        "quality": table.quality,
        "diversity": table.diversity,
        "points": records(table),
    }


def lines(table: SweepTable) -> list[str]:
    """The axes and the cost of every point, for a terminal."""
    main = _main(table)
    rows = [["", "point", *main]]
    for point in table.points:
        figures = [figure(point.averages.get(metric)) for metric in main]
        rows.append(["*" if point.on_front else "", point.name, *figures])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    shown = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    failed = [f"{name} failed: {reason}" for name, reason in table.failures.items()]
    on_front = sum(point.on_front for point in table.points)
    counted = f"{table.name}: {len(table.points)} points, {on_front} on the front (*)"
    return [counted, *shown, *failed]


def markdown(table: SweepTable) -> str:
    """A page: the points by what matters most, then every metric, then what the numbers are."""
    main = _main(table)
    others = [metric for metric in table.metrics if metric not in main]
    settings = [(key.rpartition(".")[2], key) for key in table.settings]
    short = [name for name, _ in settings]
    titles = [name if short.count(name) == 1 else key for name, key in settings]
    first = [
        [
            f"{escaped(point.name)}{' ★' if point.on_front else ''}",
            *(escaped(_setting(point.run.settings.get(key))) for key in table.settings),
            *(cell(table, point, metric) for metric in main),
            f"{point.errors} of {point.items}" if not point.run.failure else "failed",
        ]
        for point in table.points
    ]
    lines = [
        f"# {escaped(table.name)}",
        "",
        f"★ on the front of {table.quality} against {table.diversity}: no other point is at least as good in"
        " both and better in one. **Bold**: the best of its column. ±: half of the 95 % interval (bootstrap"
        " over items).",
        "",
        grid(["point", *map(escaped, titles), *main, "errors"], first),
    ]
    if others:
        rows = [[escaped(point.name), *(cell(table, point, m) for m in others)] for point in table.points]
        lines += ["## Every other metric", "", grid(["point", *others], rows)]
    return "\n".join([*lines, *_notes(table)]) + "\n"


def _main(table: SweepTable) -> list[str]:
    """The axes and the cost, each once."""
    return [m for m in dict.fromkeys((table.quality, table.diversity, COST)) if m in table.metrics]


def cell(table: SweepTable, point: PointResult, metric: str) -> str:
    """Mean and half interval, bold where no other point is better."""
    text = figure(point.averages.get(metric))
    return f"**{text}**" if point.name in best(table, metric) else text


def figure(average: Average | None) -> str:
    """0.912 ± 0.011; a dash where there is none."""
    if average is None or average.mean is None:
        return "–"
    if average.low is None or average.high is None:
        return f"{average.mean:.3f}"
    return f"{average.mean:.3f} ± {(average.high - average.low) / 2:.3f}"


def best(table: SweepTable, metric: str) -> set[str]:
    """The names of the points with the best mean; none where nothing is better than anything."""
    values = {point.name: rising(metric, point.mean(metric)) for point in table.points}
    known = [value for value in values.values() if value is not None]
    if metric in NEUTRAL or len(set(known)) < 2:
        return set()
    return {name for name, value in values.items() if value == max(known)}


def _notes(table: SweepTable) -> Iterator[str]:
    judge = f"Judged by `{table.judge}`. " if table.judge else ""
    yield (
        f"{judge}`{COST}`: engine seconds of an item: its prefill, its part of every decoding step by rows,"
        " and the choice of its candidates; pools and beams count, waiting, loading and files do not."
        " table.csv and table.parquet have every number with both ends of its interval."
    )
    for point in table.points:
        if point.run.failure:
            yield f"\n{escaped(point.name)} failed: {escaped(point.run.failure)}"
        elif point.no_pass_at_k:
            yield f"\n{escaped(point.name)} has no pass@k: {escaped(point.no_pass_at_k)}"


def _setting(value: Any) -> str:
    if value is None:
        return "–"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
