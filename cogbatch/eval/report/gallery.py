"""The gallery: items with their image and their candidates, side by side where there are several runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import starmap

from cogbatch.eval.difference import differences, most_typical
from cogbatch.eval.digest import Digest
from cogbatch.eval.judge import Judgement
from cogbatch.eval.metrics import logprob_per_token, repeats, vendi_score
from cogbatch.eval.pictures import Album, Picture
from cogbatch.eval.report.blocks import NOTHING, note, quiet, section, text
from cogbatch.eval.report.labels import number
from cogbatch.eval.report.markup import Html, element, join
from cogbatch.eval.report.reported import Reported, place_of_item
from cogbatch.eval.runs import Item
from cogbatch.types import Candidate

MAX_RUNS = 6  # side by side
SORTS = (
    ("order", "Input order"),
    ("errors-down", "Errors first"),
    ("diversity-down", "Most diverse first"),
    ("diversity-up", "Least diverse first"),
    ("score-down", "Best score first"),
    ("score-up", "Worst score first"),
    ("logprob-down", "Most likely first"),
    ("logprob-up", "Least likely first"),
)
FILTERS = (
    ("all", "All items"),
    ("errors", "Errors only"),
    ("correct", "With a correct candidate"),
    ("incorrect", "With an incorrect candidate"),
    ("none-correct", "Without a correct candidate"),
)
HARD = "\u00a0"  # a blank that no line breaks at
Judged = tuple[Item, tuple[Judgement | None, ...]]


@dataclass(frozen=True)
class Card:
    """An item in all runs that have it."""

    item: Item
    picture: Picture
    answers: tuple[tuple[str, Judged], ...]


def gallery(
    runs: Sequence[Reported], first: Digest, album: Album, *, max_bytes: int, remark: str = ""
) -> Html:
    """All items of a sample, or as many as there is room for.

    Args:
        runs: those that are shown. first: of the run whose sample it is. album: the sample's pictures.
        max_bytes: of all cards. remark: to be said of the choice of runs.
    """
    if not first.sample:
        return NOTHING
    found = [(one.name, one.sampled) for one in runs]
    cards = [
        _card(
            Card(
                item,
                picture,
                tuple((name, items[item.identity]) for name, items in found if item.identity in items),
            ),
            order,
            place=place_of_item(runs[0].run, item),
            several=len(runs) > 1,
        )
        for order, (item, picture) in enumerate(_drawn_first(first, album))
    ]
    kept = _within(cards, max_bytes)
    drawn, added = len(first.sample) - len(first.added), len(first.added)
    is_all = drawn == first.rows_out
    said = f"{drawn:,} of {first.rows_out:,} items, drawn at random, in input order"
    if is_all:
        said = f"all {drawn:,} items, in input order" if drawn > 1 else "the only item"
    said += f", then {added:,} more with errors" if added else ""
    if len(kept) < len(cards):
        said += f"; {len(kept):,} of these are shown, evenly spaced, as the page would be too large"
    words = (
        "Marked words are not in the item's most typical candidate, the one that shares most with the others."
    )
    return section(
        "items",
        "Items",
        quiet(f"{said[:1].upper()}{said[1:]}. {words}"),
        quiet("Scores are those of the selector or the beams: no judge was asked.")
        if _has_scores(runs) and not _is_judged(runs)
        else NOTHING,
        quiet(remark) if remark else NOTHING,
        note(album.remark) if album.remark else NOTHING,
        _controls(runs),
        element(
            "div",
            *kept,
            attributes={"class": "gallery" if len(runs) == 1 else "gallery several", "id": "cards"},
        ),
    )


def _drawn_first(first: Digest, album: Album) -> list[tuple[Item, Picture]]:
    """The sample with its pictures, and what was added to it at its end: it is no fair view of the run."""
    pairs = zip(first.sample, album.pictures, strict=True)
    return sorted(pairs, key=lambda pair: pair[0].identity in first.added)


def _controls(runs: Sequence[Reported]) -> Html:
    """Hidden until the script shows them: without it they would do nothing."""
    is_right_or_wrong = any("correct" in one.averages and one.averages["correct"].num_items for one in runs)
    sorts = [sort for sort in SORTS if _has_scores(runs) or not sort[0].startswith("score")]
    filters = FILTERS if is_right_or_wrong else FILTERS[:2]
    search = element("input", attributes={"type": "search", "id": "search", "autocomplete": "off"})
    marks = element("input", attributes={"type": "checkbox", "id": "marks", "checked": ""})
    return element(
        "form",
        _control("search", "Search text, id or prompt", search),
        _control("sort", "Sort", _select("sort", sorts)),
        _control("filter", "Show", _select("filter", filters)),
        element("div", marks, element("label", "Mark differing words", attributes={"for": "marks"})),
        element("output", attributes={"id": "found", "for": "search sort filter"}),
        attributes={"id": "controls", "class": "controls", "role": "search", "hidden": ""},
    )


def _is_judged(runs: Sequence[Reported]) -> bool:
    return any(one.judge is not None for one in runs)


def _has_scores(runs: Sequence[Reported]) -> bool:
    """Whether a candidate that is shown may have a score: of a judge, else of a selector or beam."""
    return _is_judged(runs) or any(
        candidate.score is not None
        for one in runs
        for item in one.digest.sample
        for candidate in item.candidates
    )


def _control(name: str, said: str, control: Html) -> Html:
    return element("div", element("label", said, attributes={"for": name}), control)


def _select(name: str, choices: Iterable[tuple[str, str]]) -> Html:
    options = (element("option", said, attributes={"value": value}) for value, said in choices)
    return element("select", *options, attributes={"id": name})


def _card(card: Card, order: int, *, place: str, several: bool) -> Html:
    item = card.item
    prompt = element("p", text(item.prompt or ""), attributes={"class": "prompt"})
    head = element("div", element("h3", text(item.id)), quiet(place), _figure(item, card.picture), prompt)
    if several:
        columns = (
            element("div", element("h4", text(name)), _answers(judged)) for name, judged in card.answers
        )
        body = element("div", *columns, attributes={"class": "columns"})
    else:
        body = _answers(card.answers[0][1])
    return element("article", head, body, attributes=_keys(card, order))


def _keys(card: Card, order: int) -> dict[str, str]:
    """What the script sorts and filters by; of several runs the mean."""
    errors = sum(item.error is not None for _, (item, _) in card.answers)
    candidates = [one for _, (item, _) in card.answers for one in item.candidates]
    judged = [one for _, (_, judgements) in card.answers for one in judgements if one is not None]
    diversities = [
        vendi_score([one.text for one in item.candidates]) for _, (item, _) in card.answers if item.candidates
    ]
    scored = [
        pair
        for _, (item, judgements) in card.answers
        for pair in zip(item.candidates, judgements, strict=True)
    ]
    right = {one.correct for one in judged}
    shown = {
        "diversity": _mean(diversities),
        "score": _mean(starmap(_score, scored)),
        "logprob": _mean(map(logprob_per_token, candidates)),
    }
    keys = {f"data-{name}": f"{value:.6g}" for name, value in shown.items() if value is not None}
    has = [name for name, there in (("correct", True in right), ("incorrect", False in right)) if there]
    return keys | {"data-order": str(order), "data-errors": str(errors), "data-has": " ".join(has)}


def _figure(item: Item, picture: Picture) -> Html:
    if picture.data_uri is None:
        return element("p", picture.note, attributes={"class": "note"})
    size = {"width": str(picture.width), "height": str(picture.height), "decoding": "async"}
    return element(
        "img", attributes={"src": picture.data_uri, "alt": f"Input image of item {item.id}", **size}
    )


def _answers(judged: Judged) -> Html:
    item, judgements = judged
    if item.error is not None:
        said = element("strong", f"Error, {item.error.stage}/{item.error.type}: ")
        return element("p", said, text(item.error.message), attributes={"class": "bad"})
    return element("ol", *_candidates(item.candidates, judgements), attributes={"start": "0"})


def _candidates(candidates: Sequence[Candidate], judgements: Sequence[Judgement | None]) -> Iterator[Html]:
    texts = [candidate.text for candidate in candidates]
    several_sources = len({candidate.source for candidate in candidates}) > 1
    typical = most_typical(texts) if texts else 0
    for place, (candidate, earlier, judged) in enumerate(
        zip(candidates, repeats(texts), judgements, strict=True)
    ):
        said = text(candidate.text) if place == typical else _marked(candidate.text, texts[typical])
        remarks = list(_remarks(candidate, judged))
        if several_sources and candidate.source:
            remarks.append(candidate.source)
        if place == typical and len(texts) > 1:
            remarks.append("most typical")
        if earlier is not None:
            remarks.append(f"repeats {earlier}")
        facts = element("small", _verdict(judged), " · ".join(remarks))
        yield element("li", said, facts, attributes=None if earlier is None else {"class": "repeat"})


def _marked(said: str, base: str) -> Html:
    pieces = (
        element("mark", piece.text) if piece.differs else join(piece.text)
        for piece in differences(said, base)
    )
    return element("bdi", *pieces, attributes={"class": "text"})


def _verdict(judged: Judgement | None) -> Html:
    """In words and colour: colour alone says nothing to many."""
    if judged is None or judged.correct is None:
        return NOTHING
    mark, said = ("✓ ", "correct") if judged.correct else ("✗ ", "incorrect")
    sign = element("span", mark, attributes={"aria-hidden": "true"})
    return join(element("b", sign, said, attributes={"class": "good" if judged.correct else "bad"}), " · ")


def _score(candidate: Candidate, judged: Judgement | None) -> float | None:
    """The judge's; where there is none the selector's or beam's."""
    return candidate.score if judged is None else judged.score


def _remarks(candidate: Candidate, judged: Judgement | None) -> Iterator[str]:
    score = _score(candidate, judged)
    if score is not None and (judged is None or score != judged.correct):
        yield f"score {number(score, 3)}"
    yield f"{number(logprob_per_token(candidate), 3)}{HARD}nats/token"
    yield f"{candidate.num_tokens}{HARD}tokens"
    if candidate.finish_reason == "length":
        yield "cut at max_new_tokens"
    yield from candidate.flags


def _mean(values: Iterable[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def _within(cards: Sequence[Html], max_bytes: int) -> Sequence[Html]:
    """As many cards as fit, evenly spaced: the first ones would not be a fair choice."""
    sizes = [len(card.encode(errors="replace")) for card in cards]
    step, kept = 1.0, list(range(len(cards)))
    while kept and sum(sizes[place] for place in kept) > max_bytes:
        step *= 1.1
        kept = [int(number * step) for number in range(int(len(cards) / step))]
    return [cards[place] for place in kept]


def shown_runs(runs: Sequence[Reported], front: Sequence[bool]) -> tuple[Sequence[Reported], str]:
    """At most six runs for the gallery, those on the front first; and what is to be said of the choice."""
    ranked = sorted(range(len(runs)), key=lambda place: (not front[place], place))
    if len(runs) <= MAX_RUNS:
        return runs, ""
    said = f"{MAX_RUNS} of {len(runs)} runs are shown here, those on the front before others."
    return [runs[place] for place in sorted(ranked[:MAX_RUNS])], said
