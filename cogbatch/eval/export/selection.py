"""Which candidates of an item are taken: all rules of --select, and pairs for dpo. Values in, values out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from cogbatch.eval.export.example import Choice
from cogbatch.eval.export.options import ExportOptions
from cogbatch.eval.export.scores import Scored
from cogbatch.eval.export.similar import Shingles, shingles, similarity
from cogbatch.text import normalise
from cogbatch.types import Candidate

IN_A_LOOP, CUT_OFF, WITHOUT_TEXT = "in a loop", "cut off by max_new_tokens", "without text"
UNSCORED, LIKE_A_BETTER_ONE = "without a score", "like a better one of its item"
NOT_CORRECT, BELOW = "not correct", "below the threshold"
UNDECIDED = "with a score that is neither correct nor wrong without a threshold"
NOT_CHOSEN = "not chosen"


def usable(candidates: Sequence[Candidate], options: ExportOptions, dropped: Counter[str]) -> list[Candidate]:
    """The candidates that may be trained on; why the others may not is counted."""
    found = []
    for candidate in candidates:
        if reason := _unusable(candidate, options):
            dropped[reason] += 1
        else:
            found.append(candidate)
    return found


def _unusable(candidate: Candidate, options: ExportOptions) -> str | None:
    if "loop" in candidate.flags and "loop" not in options.keep:
        return IN_A_LOOP
    if candidate.finish_reason == "length" and "length" not in options.keep:
        return CUT_OFF
    if not normalise(candidate.text) and "empty" not in options.keep:
        return WITHOUT_TEXT
    return None


def select(scored: Scored, options: ExportOptions, dropped: Counter[str]) -> list[Choice]:
    """The choices that `select` takes, the best first, of those good enough; why not others is counted."""
    choices: Sequence[Choice] = scored.choices
    if options.threshold is not None or options.select == "threshold":
        choices = _correct(choices, BELOW if options.threshold is not None else NOT_CORRECT, dropped)
    elif options.score is not None and options.select != "all":
        choices = [choice for choice in choices if choice.score is not None]
        dropped[UNSCORED] += len(scored.choices) - len(choices)
    match options.select or "best":
        case "best" | "top-n":
            number = options.top or 1
            dropped[NOT_CHOSEN] += len(choices[number:])
            return list(choices[:number])
        case "distinct":
            return _distinct(choices, scored.contents, options.nearness, dropped)
        case _:  # all, threshold
            return list(choices)


def make_pairs(
    scored: Scored, options: ExportOptions, dropped: Counter[str]
) -> Iterator[tuple[Choice, Choice]]:
    """(better, worse), the widest gap first: the best with the worst, the second best with the second worst.

    No candidate is in two pairs, and the two texts of a pair differ.
    """
    left = [choice for choice in scored.choices if choice.score is not None]
    dropped[UNSCORED] += len(scored.choices) - len(left)
    for _ in range(options.pairs or 1):
        if len(left) < 2 or not _is_pair(left[0], left[-1], options):
            break
        yield left.pop(0), left.pop()
    dropped[NOT_CHOSEN] += len(left)


def _is_pair(better: Choice, worse: Choice, options: ExportOptions) -> bool:
    high, low = better.score or 0.0, worse.score or 0.0
    return (
        high > low
        and high - low >= (options.min_gap or 0.0)
        and (options.threshold is None or high >= options.threshold)
        and normalise(better.text) != normalise(worse.text)
    )


def _correct(choices: Sequence[Choice], if_not: str, dropped: Counter[str]) -> list[Choice]:
    for choice in choices:
        if not choice.is_correct:
            undecided = UNSCORED if choice.score is None else UNDECIDED
            dropped[undecided if choice.is_correct is None else if_not] += 1
    return [choice for choice in choices if choice.is_correct]


def _distinct(
    choices: Sequence[Choice], said: Mapping[int, str], near: float, dropped: Counter[str]
) -> list[Choice]:
    """Each choice that neither says what a better one says nor is nearly the same text."""
    taken: list[Choice] = []
    sets: list[Shingles] = []
    contents: set[str] = set()
    for choice in choices:
        content = said.get(choice.candidate.index)
        found = shingles(choice.text)
        if content in contents or any(similarity(found, other) >= near for other in sets):
            dropped[LIKE_A_BETTER_ONE] += 1
            continue
        taken.append(choice)
        sets.append(found)
        if content is not None:
            contents.add(content)
    return taken
