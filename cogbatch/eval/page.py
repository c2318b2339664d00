"""The report as one HTML page: values in, text out. Reads no file; needs no script and no network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cogbatch.eval.digest import Digest, ErrorGroup
from cogbatch.eval.markup import Html, element, join
from cogbatch.eval.metrics import Average, logprob_per_token, repeats
from cogbatch.eval.pictures import Album, Picture
from cogbatch.eval.runs import Item
from cogbatch.eval.style import CSS
from cogbatch.types import Candidate

# Nothing is loaded and nothing runs, whatever a candidate's text manages to be.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
NONE = "–"
LABELS = {
    "num_candidates": ("candidates", "delivered per item", 2),
    "unique_rate": ("unique rate", "different texts per candidate, after normalisation", 3),
    "distinct_1": ("distinct-1", "different words per word, over an item's candidates", 3),
    "distinct_2": ("distinct-2", "the same of pairs of words", 3),
    "distinct_3": ("distinct-3", "the same of runs of three words", 3),
    "self_bleu": ("self-BLEU", "0 to 100: each candidate against the others, low is diverse", 1),
    "rouge_l_distance": ("1 − ROUGE-L", "mean over pairs: 0 all the same, 1 no word in common", 3),
    "vendi_score": ("Vendi score", "how many different candidates in effect, by their n-grams", 2),
    "logprob_per_token": ("log-probability per token", "nats, under the model before warpers", 3),
    "num_tokens": ("length", "tokens, end token included", 1),
}


def render(job: Mapping[str, Any], digest: Digest, album: Album) -> str:
    """The whole page. album: the pictures of digest.sample, in its order."""
    name = str(job["spec"].get("name", "job"))
    body = join(
        element("header", element("h1", name, attributes={"dir": "auto"}), _subtitle(job)),
        element("main", _summary(job, digest), _errors(digest), _metrics(digest), _gallery(digest, album)),
    )
    head = join(
        element("meta", attributes={"charset": "utf-8"}),
        element("meta", attributes={"http-equiv": "Content-Security-Policy", "content": POLICY}),
        element("meta", attributes={"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        element("meta", attributes={"name": "color-scheme", "content": "light dark"}),
        element("title", f"{name}: cogbatch report"),
        element("style", CSS),
    )
    page = element("html", element("head", head), element("body", body), attributes={"lang": "en"})
    return f"<!DOCTYPE html>\n{page}\n"


def _subtitle(job: Mapping[str, Any]) -> Html:
    model = job["spec"].get("model", {})
    said = [f"model {model.get('checkpoint', NONE)}", f"started {job.get('started', NONE)}"]
    return element("p", " · ".join(said), attributes={"class": "quiet"})


def _summary(job: Mapping[str, Any], digest: Digest) -> Html:
    figures = [
        ("rows in", digest.rows_in),
        ("rows out", digest.rows_out),
        ("ok", digest.rows_out - digest.num_errors),
        ("errors", digest.num_errors),
        ("candidates", digest.candidates),
        ("tokens", digest.tokens),
    ]
    generation = job["spec"].get("generation", {})
    settings = element(
        "details", element("summary", "Settings"), _pairs((key, str(generation[key])) for key in generation)
    )
    return _section(
        "Summary",
        element(
            "dl",
            *(element("div", element("dt", name), element("dd", f"{value:,}")) for name, value in figures),
            attributes={"class": "figures"},
        ),
        element("ul", *_checks(job, digest), attributes={"class": "checks"}),
        settings,
    )


def _checks(job: Mapping[str, Any], digest: Digest) -> Iterable[Html]:
    """The promises of a run, each as held or broken."""
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


def _check(holds: bool, *said: str) -> Html:
    mark = element("strong", "Holds: " if holds else "Does not hold: ")
    return element("li", mark, *said, attributes={"class": "good" if holds else "bad"})


def _errors(digest: Digest) -> Html:
    if not digest.errors:
        return Html("")
    return _section("Errors", *map(_error_group, digest.errors))


def _error_group(group: ErrorGroup) -> Html:
    """A list and not a table: messages are long, and a phone is narrow."""
    title = f"{group.stage}/{group.type} × {group.count:,}, commonest messages"
    messages = (element("li", f"{count:,} × ", _text(message)) for message, count in group.messages)
    return join(element("h3", title), element("ul", *messages))


def _metrics(digest: Digest) -> Html:
    said = "Per item, averaged over items without error; intervals by bootstrap over items."
    columns = ("metric", "mean", "95 % interval", "items")
    table = _table("Metrics", columns, map(_metric_row, digest.averages))
    return _section("Metrics", element("p", said, attributes={"class": "quiet"}), table)


def _metric_row(average: Average) -> Html:
    name, meaning, digits = LABELS[average.metric]
    interval = NONE
    if average.low is not None and average.high is not None:
        interval = f"{_number(average.low, digits)} to {_number(average.high, digits)}"
    cells = (_number(average.mean, digits), interval, f"{average.num_items:,}")
    return element(
        "tr",
        element("th", name, element("small", meaning), attributes={"scope": "row"}),
        *(element("td", cell, attributes={"class": "number"}) for cell in cells),
    )


def _gallery(digest: Digest, album: Album) -> Html:
    if not digest.sample:
        return Html("")
    shown = f"{len(digest.sample):,} of {digest.rows_out:,} items, drawn at random, in input order."
    cards = [_card(item, picture) for item, picture in zip(digest.sample, album.pictures, strict=True)]
    remark = element("p", album.remark, attributes={"class": "bad"}) if album.remark else Html("")
    intro = element("p", shown, attributes={"class": "quiet"})
    return _section("Items", intro, remark, element("div", *cards, attributes={"class": "gallery"}))


def _card(item: Item, picture: Picture) -> Html:
    place = element("p", f"{item.input_file}, row {item.input_row}", attributes={"class": "quiet"})
    if item.error is None:
        answers = element("ol", *_answers(item.candidates), attributes={"start": "0"})
    else:
        said = f"{item.error.stage}/{item.error.type}: "
        answers = element(
            "p", element("strong", said), _text(item.error.message), attributes={"class": "bad"}
        )
    prompt = element("p", _text(item.prompt or ""), attributes={"class": "prompt"})
    title = element("h3", item.id, attributes={"dir": "auto"})
    return element("article", title, place, _figure(item, picture), prompt, answers)


def _figure(item: Item, picture: Picture) -> Html:
    if picture.data_uri is None:
        return element("p", picture.note, attributes={"class": "note"})
    size = {"width": str(picture.width), "height": str(picture.height)}
    return element(
        "img", attributes={"src": picture.data_uri, "alt": f"Input image of item {item.id}", **size}
    )


def _answers(candidates: Sequence[Candidate]) -> Iterable[Html]:
    earlier = repeats([candidate.text for candidate in candidates])
    for candidate, first in zip(candidates, earlier, strict=True):
        facts = [f"{_number(logprob_per_token(candidate), 3)} nats/token", f"{candidate.num_tokens} tokens"]
        if candidate.finish_reason == "length":
            facts.append("cut at max_new_tokens")
        facts += candidate.flags
        repeated = first is not None
        mark = element("mark", f"repeats {first}") if repeated else Html("")
        said = element("small", " · ".join(facts), " ", mark)
        yield element("li", _text(candidate.text), said, attributes={"class": "repeat"} if repeated else None)


def _section(title: str, *children: str) -> Html:
    return element("section", element("h2", title), *children)


def _table(title: str, columns: Iterable[str], rows: Iterable[Html]) -> Html:
    """In a box of its own that scrolls, also by keyboard: a page must not scroll sideways on a phone."""
    head = element("tr", *(element("th", name, attributes={"scope": "col"}) for name in columns))
    table = element("table", element("thead", head), element("tbody", *rows))
    box = {"class": "scroll", "role": "region", "aria-label": title, "tabindex": "0"}
    return element("div", table, attributes=box)


def _pairs(pairs: Iterable[tuple[str, str]]) -> Html:
    children = (element("div", element("dt", key), element("dd", value)) for key, value in pairs)
    return element("dl", *children, attributes={"class": "settings"})


def _text(text: str) -> Html:
    """Text from data: in its own direction, so that it cannot reorder what is around it."""
    return element("bdi", text, attributes={"class": "text"})


def _number(value: float | None, digits: int) -> str:
    return NONE if value is None else f"{value:,.{digits}f}".replace("-", "−")
