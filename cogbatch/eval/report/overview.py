"""One run in numbers: counts, the promises checked, settings, averages, distributions, errors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from cogbatch.eval.digest import ErrorGroup, ErrorMessage
from cogbatch.eval.metrics import Average
from cogbatch.eval.report.blocks import NOTHING, fold, pairs, quiet, row, section, table, text
from cogbatch.eval.report.charts import histogram, pass_curve, speed
from cogbatch.eval.report.labels import interval, label, number, without_middle_k
from cogbatch.eval.report.markup import Html, element, join
from cogbatch.eval.report.reported import Reported, place_of_item, settings_of
from cogbatch.eval.runs import Run


def summary(one: Reported) -> Html:
    """Counts, promises and settings."""
    digest = one.digest
    figures = [
        ("rows in", digest.rows_in),
        ("rows out", digest.rows_out),
        ("ok", digest.rows_out - digest.num_errors),
        ("errors", digest.num_errors),
        ("candidates", digest.candidates),
        ("tokens", digest.tokens),
    ]
    return join(
        pairs(((name, f"{value:,}") for name, value in figures), "figures"),
        element("ul", *_checks(one), attributes={"class": "checks"}),
        fold("Settings", pairs(settings_of(one.run).items(), "settings")),
    )


def is_sound(one: Reported) -> bool:
    """Whether all promises of the run hold."""
    digest = one.digest
    fingerprints = digest.model_fingerprints == (str(one.run.job["model_fingerprint"]),)
    return digest.is_exactly_once and fingerprints and not digest.foreign_rows


def _checks(one: Reported) -> Iterator[Html]:
    """The promises of a run, each as held or broken."""
    job, digest = one.run.job, one.digest
    if digest.is_exactly_once:
        yield _check(True, f"every input row is there exactly once, {digest.rows_in:,} in all")
    elif digest.rows_out < digest.rows_in and not digest.misplaced:
        yield _check(False, f"rows missing: {digest.rows_in - digest.rows_out:,}; run the job again")
    else:
        yield _check(False, f"rows that are not where the job's grid has them: {digest.misplaced:,}")
    found, wanted = digest.model_fingerprints, str(job["model_fingerprint"])
    if found == (wanted,):
        yield _check(True, "one model in all rows, that of the job: ", element("code", wanted))
    else:
        marks = [join(element("code", mark), " ") for mark in found]
        said = f"model fingerprints in the rows: {len(found)}, expected only "
        yield _check(False, said, element("code", wanted), "; found ", *marks)
    if digest.foreign_rows:
        yield _check(False, f"rows of another job: {digest.foreign_rows:,}")
    else:
        yield _check(True, "all rows are of this job: ", element("code", str(job["job_fingerprint"])))


def _check(holds: bool, *said: str) -> Html:
    sign = element("span", "✓ " if holds else "✗ ", attributes={"aria-hidden": "true"})
    mark = element("strong", sign, "Holds: " if holds else "Does not hold: ")
    return element("li", mark, *said, attributes={"class": "good" if holds else "bad"})


def distributions(one: Reported) -> Html:
    """How lengths, log-probabilities, diversity and scores are spread, and how fast the run was."""
    values = one.digest.values
    shown = [("num_tokens", "candidate"), ("logprob_per_token", "candidate"), ("vendi_score", "item")]
    shown.append(("score", "candidate"))
    figures = [histogram(metric, values[metric], of) for metric, of in shown if metric in values]
    curve = [average for average in one.digest.averages if average.metric.startswith("pass@")]
    if any(average.mean is not None for average in curve):
        figures.append(pass_curve(curve))
    figures.append(throughput(one))
    return section(
        "distributions", "Distributions and speed", element("div", *figures, attributes={"class": "charts"})
    )


def throughput(one: Reported) -> Html:
    """Rows over time, or why that is not known."""
    line = one.timeline
    if line is not None:
        return speed(line)
    said = "Not known: fewer than two parts say when they were written, or all say the same."
    return element("figure", element("h3", "Throughput"), element("p", said, attributes={"class": "note"}))


def errors(one: Reported, *, level: int = 3) -> Html:
    """Errors by stage and type, the commonest first, each with messages and an example."""
    groups = (_error_group(one.run, group, level) for group in one.digest.errors)
    return join(*groups)


def _error_group(run: Run, group: ErrorGroup, level: int) -> Html:
    """A list and not a table: messages are long, and a phone is narrow."""
    title = f"{group.stage}/{group.type} × {group.count:,}"
    messages = (
        element("li", f"{one.count:,} × ", text(one.message), _first(run, one)) for one in group.messages
    )
    shown = sum(one.count for one in group.messages)
    more = quiet(f"and {group.count - shown:,} with other messages") if shown < group.count else NOTHING
    return join(element(f"h{level}", title), element("ul", *messages), more)


def _first(run: Run, said: ErrorMessage) -> Html:
    """The first row that has the message, with its own words where rows differ in them."""
    item = said.first
    own = item.error.message if item.error and not said.is_one else ""
    place = f", {place_of_item(run, item)}"
    return element("small", "first: ", text(item.id), place, join(": ", text(own)) if own else NOTHING)


def metrics(one: Reported) -> Html:
    """The averages as a table."""
    said = "Per item, averaged over items without error; intervals by bootstrap over items."
    judged = NOTHING if one.judge is None else quiet("Judged by ", text(one.judge.name), ".")
    why = one.digest.no_pass_at_k
    return section(
        "metrics",
        "Metrics",
        quiet(said),
        judged,
        quiet(f"No pass@k: {why}.") if why else NOTHING,
        element("div", *_metric_tables(one.digest.averages), attributes={"class": "beside"}),
    )


def _metric_tables(found: Sequence[Average]) -> Iterator[Html]:
    """Two, which stand beside each other where there is room. Of pass@k only the first and the last k."""
    shown = without_middle_k(average.metric for average in found)
    kept = [average for average in found if average.metric in shown]
    half = (len(kept) + 1) // 2
    columns = ("metric", "mean, 95 % interval", "items")
    for title, some in (("Metrics, first half", kept[:half]), ("Metrics, second half", kept[half:])):
        yield table(title, columns, _metric_rows(some), kind="metrics")


def _metric_rows(found: Iterable[Average]) -> Iterator[Html]:
    for average in found:
        said = label(average.metric)
        yield row(
            join(said.name, element("small", said.meaning)),
            join(
                number(average.mean, said.digits),
                element("small", interval(average.low, average.high, said.digits)),
            ),
            f"{average.num_items:,}",
        )
