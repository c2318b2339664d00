"""Several runs side by side: what their settings differ in, their figures, and quality against diversity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cogbatch.eval.metrics import Average
from cogbatch.eval.pareto import Plane
from cogbatch.eval.report.blocks import NOTHING, note, quiet, section, table, text
from cogbatch.eval.report.charts import is_yes_or_no
from cogbatch.eval.report.labels import NONE, interval, label, number, percent, without_middle_k
from cogbatch.eval.report.markup import Html, element
from cogbatch.eval.report.plots import Point, boxes, plane
from cogbatch.eval.report.reported import Reported, differing_settings

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


def check_metrics(runs: Sequence[Mapping[str, Average]], **wanted: str | None) -> None:
    """Raises ValueError: no run has the metric that an option, named by its keyword, asks for."""
    every = dict.fromkeys(metric for averages in runs for metric in averages)
    for option, metric in wanted.items():
        if metric is not None and metric not in every:
            raise ValueError(f"--{option} {metric}: no such metric, there are {', '.join(every)}")


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
        points.append(Point(number_of, one.name, x.mean, y.mean, _ends(x), _ends(y), front))
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
            )
        )
    return element(
        "div", element("h3", "On the front"), element("ul", *lines), attributes={"class": "front-list"}
    )


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
        *(key.partition(".")[2] for key in settings),
        *(label(metric).name for metric in metrics),
        "rows",
        "errors",
        "rows/s",
    ]
    rows = []
    for place, (one, front) in enumerate(zip(runs, shown.front, strict=True)):
        digest, line = one.digest, one.timeline
        rate = NONE if line is None else f"{line.mean_rows_per_s:.3g}"
        cells = [
            element("th", f"{place + 1} ", text(one.name), attributes={"scope": "row"}),
            element("td", "on it" if front else NONE, attributes={"class": "good" if front else "quiet"}),
            *(element("td", text(values[place])) for values in settings.values()),
            *(_figure(one.averages.get(metric), metric) for metric in metrics),
            _cell(f"{digest.rows_out:,}"),
            _cell(percent(digest.num_errors / max(digest.rows_out, 1))),
            _cell(rate),
        ]
        rows.append(element("tr", *cells, attributes={"class": "front"} if front else None))
    return table("Figures of all runs", columns, rows, kind="comparison")


def _figure(average: Average | None, metric: str) -> Html:
    if average is None or average.mean is None:
        return _cell(NONE)
    digits = label(metric).digits
    ends = interval(average.low, average.high, digits)
    return _cell(number(average.mean, digits), element("small", ends))


def _cell(*said: str) -> Html:
    return element("td", *said, attributes={"class": "number"})
