"""The report as one HTML page: values in, text out. Reads no data; needs no network, and no script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib import resources

from cogbatch.eval.pareto import Plane
from cogbatch.eval.pictures import Album
from cogbatch.eval.report.blocks import NOTHING, note, quiet, section, text
from cogbatch.eval.report.comparison import comparison, spreads
from cogbatch.eval.report.gallery import gallery, shown_runs
from cogbatch.eval.report.labels import NONE, counted
from cogbatch.eval.report.markup import Html, element, join
from cogbatch.eval.report.overview import distributions, errors, is_sound, metrics, summary, throughput
from cogbatch.eval.report.reported import Reported

MAX_BYTES = 19_500_000  # of all sections; with style and script the page stays under 20 MB
MAX_FIGURES = 50  # runs up to which each has its throughput drawn, which is half of what a run takes


def render(
    runs: Sequence[Reported], album: Album, *, title: str, plane: Plane, remarks: Sequence[str] = ()
) -> str:
    """The whole page.

    Args:
        runs: at least one. album: pictures of the first run's sample, in its order.
        title: of a page about several runs; one run has its name.
        plane: the metrics that several runs are compared by. remarks: what is not on the page, and why.
    """
    title = runs[0].name if len(runs) == 1 else title
    sections = [found for found in _numbers(runs, plane) if found]
    room = MAX_BYTES - sum(len(found.encode(errors="replace")) for found in sections)
    shown, said = shown_runs(runs, plane.front)
    sections.append(gallery(shown, runs[0].digest, album, max_bytes=room, remark=said))
    links = (
        element("a", name, attributes={"href": f"#{anchor}"}) for anchor, name in _anchors(runs) if anchor
    )
    body = join(
        element("a", "Skip to the content", attributes={"href": "#content", "class": "skip"}),
        element(
            "header",
            element("h1", text(title)),
            element("p", text(_subtitle(runs)), attributes={"class": "quiet"}),
            element("nav", *links, attributes={"aria-label": "Sections"}),
        ),
        element("main", *map(note, remarks), *sections, attributes={"id": "content"}),
        element("div", attributes={"id": "tip", "role": "status", "hidden": ""}),
        element("script", SCRIPT),
    )
    head = join(
        element("meta", attributes={"charset": "utf-8"}),
        element("meta", attributes={"http-equiv": "Content-Security-Policy", "content": POLICY}),
        element("meta", attributes={"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        element("meta", attributes={"name": "color-scheme", "content": "light dark"}),
        element("title", f"{title}: cogbatch report"),
        element("style", CSS),
    )
    page = element("html", element("head", head), element("body", body), attributes={"lang": "en"})
    return f"<!DOCTYPE html>\n{page}\n"


def _anchors(runs: Sequence[Reported]) -> Iterator[tuple[str, str]]:
    yield ("summary", "Summary") if len(runs) == 1 else ("comparison", "Quality and diversity")
    yield "distributions", "Distributions"
    yield ("metrics", "Metrics") if len(runs) == 1 else ("runs", "Runs")
    if len(runs) == 1 and runs[0].digest.errors:
        yield "errors", "Errors"
    if runs[0].digest.sample:
        yield "items", "Items"


def _numbers(runs: Sequence[Reported], plane: Plane) -> Iterator[Html]:
    """All sections but the gallery, which gets the room that these leave."""
    if len(runs) == 1:
        (one,) = runs
        yield section("summary", "Summary", summary(one))
        yield distributions(one)
        yield metrics(one)
        yield section("errors", "Errors", errors(one)) if one.digest.errors else NOTHING
        return
    yield comparison(runs, plane)
    yield spreads(runs)
    is_drawn = len(runs) <= MAX_FIGURES
    said = f"Throughput is drawn for up to {MAX_FIGURES} runs; of all, rows/s are in the table of figures."
    yield section(
        "runs",
        "Runs",
        NOTHING if is_drawn else quiet(said),
        *(_run(one, is_drawn=is_drawn) for one in runs),
    )


def _run(one: Reported, *, is_drawn: bool) -> Html:
    """A run among others, folded: its promises are in the line that is always shown.

    is_drawn: with its throughput over time.
    """
    digest = one.digest
    sound = is_sound(one)
    rows = f"{digest.rows_out:,} of {counted(digest.rows_in, 'row')}"
    said = f"{rows}, {counted(digest.num_errors, 'error')}, promises "
    mark = element(
        "b", "✓ hold" if sound else "✗ do not hold", attributes={"class": "good" if sound else "bad"}
    )
    head = element("summary", element("h3", text(one.name)), " ", element("span", said, mark))
    found = [summary(one)]
    if is_drawn:
        found.append(element("div", throughput(one), attributes={"class": "charts"}))
    if digest.errors:
        found += [element("h4", "Errors"), errors(one, level=5)]
    return element("details", head, *found, attributes={"class": "run"})


def _subtitle(runs: Sequence[Reported]) -> str:
    models = dict.fromkeys(str(one.run.job["spec"].get("model", {}).get("checkpoint", NONE)) for one in runs)
    names = list(models)
    said = names[0] if len(names) == 1 else f"{len(names)} models"
    if len(runs) > 1:
        return f"{len(runs)} runs · model {said}"
    return f"model {said} · started {_moment(runs[0].run.job.get('started'))}"


def _moment(said: object) -> str:
    """A time of job.json as people write it, in UTC."""
    try:
        return f"{datetime.fromisoformat(str(said)).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return NONE


def _asset(name: str) -> Html:
    """A file of this package: ours, so that it is markup as it stands."""
    return Html(resources.files(__package__).joinpath(name).read_text("utf-8"))


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


CSS, SCRIPT = _asset("style.css"), _asset("script.js")
# Nothing is loaded, and nothing runs but the one script of ours, whatever a candidate's text manages to be.
POLICY = (
    f"default-src 'none'; img-src data:; style-src {_hash(CSS)}; script-src {_hash(SCRIPT)};"
    " base-uri 'none'; form-action 'none'"
)
