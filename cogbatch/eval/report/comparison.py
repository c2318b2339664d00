"""Several runs side by side: what their settings differ in, their figures, and quality against diversity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cogbatch.eval.metrics import Average
from cogbatch.eval.pareto import Plane
from cogbatch.eval.report.blocks import NOTHING, breakable, fold, note, quiet, section, table, text
from cogbatch.eval.report.charts import is_yes_or_no
from cogbatch.eval.report.labels import NONE, interval, label, number, percent, without_middle_k
from cogbatch.eval.report.markup import Html, element, join
from cogbatch.eval.report.plots import Point, boxes, plane
from cogbatch.eval.report.reported import Reported, differing_settings
from cogbatch.metric_names import why_unknown

# The figures that most decisions need come first; all others follow in the order of the digest.
FIRST = (
    "correct",
    "score",
    "distinct_correct",
    "vendi_score",
    "unique_rate",
    "logprob_per_token",
    "num_tokens",
)
SPREADS = (
    ("num_tokens", "candidate"),
    ("logprob_per_token", "candidate"),
    ("vendi_score", "item"),
    ("score", "candidate"),
)
MAX_BESIDE = 12  # beaten runs that are listed beside the plot unasked
MAX_NAMED = 20  # unfinished runs that are named; the table marks them all


def check_names(*, judged: bool, **wanted: str | None) -> None:
    """Raises ValueError: no run can have the metric that an option, named by its keyword, asks for.

    judged: whether candidates are judged. Needs no figures, so that a slip is told before rows are read.
    """
    for option, metric in wanted.items():
        how = "give --checker or --references"
        if metric is not None and (why := why_unknown(metric, judged=judged, how=how)):
            raise ValueError(f"--{option} {metric}: {why}")


def check_metrics(runs: Sequence[Mapping[str, Average]], **wanted: str | None) -> None:
    """Raises ValueError: no run has the metric that an option, named by its keyword, asks for."""
    every = dict.fromkeys(metric for averages in runs for metric in averages)
    for option, metric in wanted.items():
        if metric is not None and metric not in every:
            raise ValueError(f"--{option} {metric}: no run here has it, there are {', '.join(every)}")


def comparison(runs: Sequence[Reported], shown: Plane) -> Html:
    """The whole section."""
    inputs = {(one.run.job["dataset_fingerprint"], one.run.num_rows) for one in runs}
    models = {one.run.job["model_fingerprint"] for one in runs}
    return section(
        "comparison",
        "Quality and diversity",
        note("The runs read different inputs: their figures are of different items.")
        if len(inputs) > 1
        else NOTHING,
        quiet("The runs used different models.") if len(models) > 1 else NOTHING,
        _unfinished(runs),
        _without_axis(runs, shown),
        _plot(runs, shown),
        element("h3", "Figures"),
        quiet(
            "Per item, averaged over items without error; below each mean its 95 % interval, by bootstrap"
            " over items. On the front: no other run is better in both "
            f"{label(shown.quality).name} and {label(shown.diversity).name}."
        ),
        _table(runs, shown),
    )


def _unfinished(runs: Sequence[Reported]) -> Html:
    """That figures, and so the front, may change: rows of some runs are missing."""
    found = [join(text(one.name), f" {one.unfinished}") for one in runs if one.unfinished]
    if not found:
        return NOTHING
    named = found[:MAX_NAMED] + ([Html(f"and {len(found) - MAX_NAMED:,} more")] if found[MAX_NAMED:] else [])
    return note(
        element("strong", "Unfinished: "),
        join(*(join(", " if place else "", one) for place, one in enumerate(named))),
        "; figures of these are of the rows that are there, which need not be the same rows, and the front"
        " may change: run the sweep, or these jobs, again.",
    )


def _without_axis(runs: Sequence[Reported], shown: Plane) -> Html:
    """That no run can be on the front, where a sweep asks for a metric that none of its points has."""
    absent = [
        metric
        for metric in (shown.quality, shown.diversity)
        if all(metric not in one.averages or one.averages[metric].mean is None for one in runs)
    ]
    return note(f"No run has {' or '.join(absent)}, so none is on the front.") if absent else NOTHING


def spreads(runs: Sequence[Reported]) -> Html:
    """The distributions of all runs, one chart a metric."""
    found = [
        boxes(metric, [(one.name, one.digest.values.get(metric, ())) for one in runs], of)
        for metric, of in SPREADS
        if any(metric in one.digest.values for one in runs)
        and not all(is_yes_or_no(one.digest.values.get(metric, ())) for one in runs)
    ]
    if not found:
        return NOTHING
    return section("distributions", "Distributions", element("div", *found, attributes={"class": "charts"}))


def _plot(runs: Sequence[Reported], shown: Plane) -> Html:
    points = []
    for number_of, (one, front) in enumerate(zip(runs, shown.front, strict=True), start=1):
        x, y = one.averages.get(shown.diversity), one.averages.get(shown.quality)
        if x is None or y is None or x.mean is None or y.mean is None:
            continue
        points.append(Point(number_of, one.name, x.mean, y.mean, _ends(x), _ends(y), front, one.unfinished))
    if not points:
        return NOTHING
    drawn = plane(shown.diversity, shown.quality, points)
    return element("div", drawn, _front(runs, shown, points), attributes={"class": "plot"})


def _front(runs: Sequence[Reported], shown: Plane, points: Sequence[Point]) -> Html:
    """The runs that no other beats, best quality first, each with what sets it apart."""
    settings = differing_settings([one.run for one in runs])
    y, x = label(shown.quality), label(shown.diversity)
    lines = []
    ranked = sorted((point for point in points if point.front), key=lambda point: point.y, reverse=True)
    for point in ranked:
        said = f"{y.name} {number(point.y, y.digits)}, {x.name} {number(point.x, x.digits)}"
        own = " · ".join(
            f"{key.partition('.')[2]} {values[point.number - 1]}" for key, values in settings.items()
        )
        lines.append(
            element(
                "li",
                element("b", f"{point.number} ", text(point.name)),
                element("small", said),
                element("small", text(own)),
                element("small", f"unfinished: {point.unfinished}", attributes={"class": "bad"})
                if point.unfinished
                else NOTHING,
            )
        )
    return element(
        "div",
        element("h3", "On the front"),
        element("ul", *lines),
        _beaten([point for point in points if not point.front]),
        attributes={"class": "front-list"},
    )


def _beaten(points: Sequence[Point]) -> Html:
    """The names of the other numbers in the plot."""
    if not points:
        return NOTHING
    lines = (element("li", element("b", f"{point.number} "), text(point.name)) for point in points)
    found = element("ul", *lines, attributes={"class": "others"})
    if len(points) > MAX_BESIDE:
        return fold(f"Beaten by another: {len(points):,}", found)
    return join(element("h3", "Beaten by another"), found)


def _ends(average: Average) -> tuple[float, float]:
    mean = average.mean or 0.0
    return (
        mean if average.low is None else average.low,
        mean if average.high is None else average.high,
    )


def _table(runs: Sequence[Reported], shown: Plane) -> Html:
    settings = differing_settings([one.run for one in runs])
    every = without_middle_k(dict.fromkeys(metric for one in runs for metric in one.averages))
    metrics = [*(metric for metric in (shown.quality, shown.diversity, *FIRST) if metric in every)]
    metrics = list(dict.fromkeys([*metrics, *every]))
    columns = [
        "run",
        "front",
        "rows",
        *(breakable(key.partition(".")[2]) for key in settings),
        *(label(metric).name for metric in metrics),
        "errors",
        "rows/s",
    ]
    rows = []
    for place, (one, front) in enumerate(zip(runs, shown.front, strict=True)):
        digest, line = one.digest, one.timeline
        rate = NONE if line is None else f"{line.mean_rows_per_s:.3g}"
        cells = [
            element("th", _name(f"{place + 1} ", one.name), attributes={"scope": "row"}),
            element("td", "on it" if front else NONE, attributes={"class": "good" if front else "quiet"}),
            _cell(element("strong", one.unfinished, attributes={"class": "bad"}))
            if one.unfinished
            else _cell(f"{digest.rows_out:,}"),
            *(element("td", text(values[place])) for values in settings.values()),
            *(_figure(one.averages.get(metric), metric) for metric in metrics),
            _cell(percent(digest.num_errors / max(digest.rows_out, 1))),
            _cell(rate),
        ]
        rows.append(element("tr", *cells, attributes={"class": "front"} if front else None))
    return table("Figures of all runs", columns, rows, kind="comparison")


def _name(number_of: str, name: str) -> Html:
    """In a box of its own, which can be given a width, as a cell cannot."""
    return element("div", number_of, element("bdi", breakable(name)), attributes={"class": "name"})


def _figure(average: Average | None, metric: str) -> Html:
    if average is None or average.mean is None:
        return _cell(NONE)
    digits = label(metric).digits
    ends = interval(average.low, average.high, digits)
    return _cell(number(average.mean, digits), element("small", ends))


def _cell(*said: str) -> Html:
    return element("td", *said, attributes={"class": "number"})
