"""What each candidate of an item is worth, and by what that was said. Chooses nothing."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cogbatch.errors import EvaluationError
from cogbatch.eval.export.example import Choice
from cogbatch.eval.export.options import ExportOptions
from cogbatch.eval.judge import Judge, Judgement, open_judge
from cogbatch.eval.metrics import logprob_per_token
from cogbatch.eval.runs import Item, Run
from cogbatch.types import Candidate

LOGPROB, SELECTOR = "logprob", "selector"
NAMES = {LOGPROB: "log-probability per token", SELECTOR: "score of selector or beam"}
Scores = Sequence[float | None]


@dataclass(frozen=True)
class Scored:
    """Candidates with their scores, the best first, unscored ones last; equal scores in their own order.

    Args:
        by: what the scores are, for people. contents: by candidate index, equal for texts that say the same;
            None where nothing can tell.
    """

    by: str
    choices: tuple[Choice, ...]
    contents: dict[int, str]


@dataclass(frozen=True)
class Scorer:
    """Scores items of one run.

    Args:
        columns: carried columns that its items need. score, threshold: as in ExportOptions.
        may_fall_back: an item of which the judge knows nothing is ranked as if there were no judge, which is
            wrong where scores are compared with a number.
    """

    columns: tuple[str, ...]
    score: str | None
    threshold: float | None = None
    judge: Judge | None = None
    may_fall_back: bool = True

    def __call__(self, item: Item, candidates: Sequence[Candidate]) -> Scored:
        """The candidates, which are some of the item's, with scores.

        Raises EvaluationError: the checker failed, or the column holds no numbers.
        """
        judged = self.judge(replace(item, candidates=tuple(candidates))) if self.judge else ()
        contents = {
            candidate.index: one.content
            for candidate, one in zip(candidates, judged, strict=False)
            if one.content is not None
        }
        by, verdicts = self._verdicts(item, candidates, judged)
        choices = [
            Choice(candidate, verdict.score, verdict.correct)
            for candidate, verdict in zip(candidates, verdicts, strict=True)
        ]
        choices.sort(key=lambda choice: (choice.score is None, -(choice.score or 0.0)))  # a stable sort
        return Scored(by, tuple(choices), contents)

    def _verdicts(
        self, item: Item, candidates: Sequence[Candidate], judged: Sequence[Judgement]
    ) -> tuple[str, Sequence[Judgement]]:
        if self.judge is not None and (
            not self.may_fall_back or any(one.score is not None for one in judged)
        ):
            return self.judge.name, judged
        by, scores = self._scores(item, candidates)
        return by, [Judgement(score, self._is_enough(score)) for score in scores]

    def _is_enough(self, score: float | None) -> bool | None:
        return None if score is None or self.threshold is None else score >= self.threshold

    def _scores(self, item: Item, candidates: Sequence[Candidate]) -> tuple[str, Scores]:
        if self.score not in (None, LOGPROB, SELECTOR):
            return f"column {self.score}", _of_column(item, str(self.score), candidates)
        given = [_finite(candidate.score) for candidate in candidates]
        if self.score == SELECTOR or (self.score is None and None not in given):
            return NAMES[SELECTOR], given
        return NAMES[LOGPROB], [logprob_per_token(candidate) for candidate in candidates]


def open_scorer(options: ExportOptions, run: Run) -> Scorer:
    """The scorer for the items of a run. Raises EvaluationError: no such checker or column."""
    judge = None
    if options.judge is not None:
        judge = open_judge(replace(options.judge, threshold=options.threshold), run)
    columns = judge.columns if judge else ()
    if options.score not in (None, LOGPROB, SELECTOR):
        if options.score not in run.carried:
            there = ", ".join(run.carried) or "none"
            raise EvaluationError(
                f"{run.path}: no carried column {options.score!r} with scores, carried are: {there};"
                f" name it in input.columns of the job, or use {LOGPROB} or {SELECTOR}"
            )
        columns = (*columns, str(options.score))
    compares = options.is_pairs or options.select == "threshold" or options.threshold is not None
    return Scorer(columns, options.score, options.threshold, judge, may_fall_back=not compares)


def _finite(score: float | None) -> float | None:
    return score if score is not None and math.isfinite(score) else None


def _of_column(item: Item, column: str, candidates: Sequence[Candidate]) -> Scores:
    """The item's number for every candidate, or the number of each by its index."""
    value: Any = item.carried[column]
    if isinstance(value, str):  # how a list in JSONL is carried
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    values = value if isinstance(value, list) else None
    if values is not None and len(values) <= max((candidate.index for candidate in candidates), default=0):
        raise EvaluationError(
            f"{item.input_file}, row {item.input_row}: column {column!r} has {len(values)} numbers;"
            " expected one a candidate, by its index"
        )
    found = [value if values is None else values[candidate.index] for candidate in candidates]
    for number in found:
        if number is None:
            continue
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise EvaluationError(
                f"{item.input_file}, row {item.input_row}: column {column!r} is {number!r:.60};"
                " expected a finite number, or a list of one a candidate"
            )
    return [None if number is None else float(number) for number in found]
