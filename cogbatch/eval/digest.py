"""One pass over a run: counts, errors, whether its promises hold, averages, and a sample of its items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from cogbatch.eval.judge import Judge, Judgement
from cogbatch.eval.metrics import Average, averages, check_draws, item_metrics, quality_metrics
from cogbatch.eval.runs import Item, Run
from cogbatch.types import RequestError

MAX_MESSAGES = 10_000  # different ones that are counted; a message may hold a path and be unlike any other
SHOWN_MESSAGES = 3  # of each kind of error


@dataclass(frozen=True)
class ErrorGroup:
    """Error rows of one stage and type, with their commonest messages and how often each came."""

    stage: str
    type: str
    count: int
    messages: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Digest:
    """A run in numbers.

    Args:
        rows_in: of the job. rows_out: in the parts. misplaced: rows out that are not where the grid has them.
        candidates, tokens: delivered in all rows. model_fingerprints: the different ones in the rows.
        foreign_rows: rows of another job. averages: over the items without error, those of a judge too.
        sample: in input order. judgements: of the candidates of each of its items; empty without a judge.
        no_pass_at_k: why there is no pass@k, where items were judged right or wrong.
    """

    rows_in: int
    rows_out: int
    misplaced: int
    foreign_rows: int
    errors: tuple[ErrorGroup, ...]
    candidates: int
    tokens: int
    model_fingerprints: tuple[str, ...]
    averages: tuple[Average, ...]
    sample: tuple[Item, ...]
    judgements: tuple[tuple[Judgement, ...], ...] = ()
    no_pass_at_k: str | None = None

    @property
    def num_errors(self) -> int:
        """Rows with an error."""
        return sum(group.count for group in self.errors)

    @property
    def is_exactly_once(self) -> bool:
        """True when every input row is there once and nothing else is."""
        return self.rows_in == self.rows_out and not self.misplaced


def digest_run(run: Run, *, max_items: int, judge: Judge | None = None, seed: int = 0) -> Digest:
    """Reads all parts once. Memory: about 200 bytes an item, the sample, and a bounded number of messages.

    Args:
        max_items: size of the sample, drawn uniformly; the same seed draws the same rows.
        judge: of the candidates; adds the metrics of quality_metrics.

    Raises ValueError: max_items below 0. RunDirectoryError: a part cannot be read. EvaluationError: the
    judge failed.
    """
    if max_items < 0:
        raise ValueError(f"max_items is {max_items}, expected at least 0")
    tally = _Tally(judge=judge, no_pass_at_k=_why_no_pass_at_k(run))
    metrics = averages(_metrics(run, tally, _draw(run.num_finished, max_items, seed)), seed=seed)
    return Digest(
        rows_in=run.num_rows,
        rows_out=tally.rows,
        misplaced=tally.misplaced,
        foreign_rows=tally.foreign_rows,
        errors=tally.groups(),
        candidates=tally.candidates,
        tokens=tally.tokens,
        model_fingerprints=tuple(sorted(tally.fingerprints)),
        averages=metrics,
        sample=tuple(tally.sample),
        judgements=tuple(tally.judgements),
        no_pass_at_k=tally.no_pass_at_k if judge is not None else None,
    )


@dataclass
class _Tally:
    judge: Judge | None = None
    no_pass_at_k: str | None = None
    rows: int = 0
    misplaced: int = 0
    foreign_rows: int = 0
    candidates: int = 0
    tokens: int = 0
    fingerprints: set[str] = field(default_factory=set)
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)
    messages: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    sample: list[Item] = field(default_factory=list)
    judgements: list[tuple[Judgement, ...]] = field(default_factory=list)

    def measure(self, item: Item, *, sampled: bool) -> Mapping[str, float | None]:
        """The metrics of an item without error, judged where there is a judge."""
        metrics = vars(item_metrics(item.candidates))
        if self.judge is None:
            return metrics
        judged = self.judge(item)
        if sampled:
            self.judgements[-1] = judged
        return metrics | quality_metrics(
            [candidate.text for candidate in item.candidates],
            [one.score for one in judged],
            [one.correct for one in judged],
            [one.content for one in judged],
            draws=self.no_pass_at_k is None,
        )

    def add_error(self, error: RequestError) -> None:
        self.kinds[error.stage, error.type] += 1
        key = (error.stage, error.type, error.message)
        if key in self.messages or len(self.messages) < MAX_MESSAGES:
            self.messages[key] += 1

    def groups(self) -> tuple[ErrorGroup, ...]:
        """The commonest kinds first."""
        common: dict[tuple[str, str], list[tuple[str, int]]] = {}
        for (stage, kind, message), count in self.messages.most_common():
            shown = common.setdefault((stage, kind), [])
            if len(shown) < SHOWN_MESSAGES:
                shown.append((message, count))
        return tuple(
            ErrorGroup(*key, count, tuple(common.get(key, ()))) for key, count in self.kinds.most_common()
        )


def _metrics(run: Run, tally: _Tally, drawn: frozenset[int]) -> Iterator[Mapping[str, float | None]]:
    """The metrics of the items without error; everything else goes into the tally on the way."""
    carried = tally.judge.columns if tally.judge is not None else ()
    for item, place in zip(run.items(carried=carried), _places(run), strict=True):
        sampled = tally.rows in drawn
        if sampled:
            tally.sample.append(item)
            if tally.judge is not None:
                tally.judgements.append(())
        tally.rows += 1
        tally.misplaced += item.identity != place
        tally.foreign_rows += item.job_fingerprint != run.job["job_fingerprint"]
        tally.fingerprints.add(item.model_fingerprint)
        tally.candidates += len(item.candidates)
        tally.tokens += sum(candidate.num_tokens for candidate in item.candidates)
        if item.error is None:
            yield tally.measure(item, sampled=sampled)
        else:
            tally.add_error(item.error)


def _places(run: Run) -> Iterator[tuple[str, int] | None]:
    """The identity of every row of the parts, as the grid has it; None where a part is not of the grid."""
    grid = {shard.part_name: shard for shard in run.shards}
    for part in run.parts:
        shard = grid.get(part.name)
        for row in range(part.num_rows):
            yield (run.job["files"][shard.file_index], shard.first_row + row) if shard else None


def _why_no_pass_at_k(run: Run) -> str | None:
    try:
        check_draws(run.job["spec"].get("generation", {}))
    except ValueError as err:
        return str(err)
    return None


def _draw(num_rows: int, max_items: int, seed: int) -> frozenset[int]:
    chosen = np.random.default_rng(seed).choice(num_rows, size=min(num_rows, max_items), replace=False)
    return frozenset(chosen.tolist())
