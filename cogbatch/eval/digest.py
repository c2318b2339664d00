"""One pass over a run: counts, errors, whether its promises hold, averages, values, and a sample of items."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from cogbatch.eval.judge import Judge, Judgement
from cogbatch.eval.metrics import (
    Average,
    averages,
    check_draws,
    logprob_per_token,
    quality_metrics,
)
from cogbatch.eval.parallel import measured
from cogbatch.eval.runs import Item, Run
from cogbatch.metric_names import COST
from cogbatch.types import RequestError

MAX_MESSAGES = 10_000  # different ones that are counted
CHANGING = re.compile(r"""'[^']*'|"[^"]*"|\b\d+\b""")  # in messages about one thing: paths, sizes, rows
SHOWN_MESSAGES = 3  # of each kind of error
ERROR_SHARE = 5  # one error row more in the sample for this many drawn ones: errors are rare, and wanted
ITEM_VALUES = ("vendi_score", "unique_rate")  # kept for each item, beside those of each candidate
TOLD_EVERY = 500  # rows
MANY_ROWS = 5000  # from here on several processes are sooner done than one


@dataclass(frozen=True)
class ErrorMessage:
    """Messages that differ at most in quoted words and numbers, how many rows have one, and the first row.

    message: with a … for what differs; of the first row: its own.
    """

    message: str
    count: int
    first: Item

    @property
    def is_one(self) -> bool:
        """Whether all rows have the very same message."""
        return self.first.error is not None and self.message == self.first.error.message


@dataclass(frozen=True)
class ErrorGroup:
    """Error rows of one stage and type, with their commonest messages."""

    stage: str
    type: str
    count: int
    messages: tuple[ErrorMessage, ...]


@dataclass(frozen=True)
class Digest:
    """A run in numbers.

    Args:
        rows_in: of the job. rows_out: in the parts. misplaced: rows out that are not where the grid has them.
        candidates, tokens: delivered in all rows. engine_seconds: that engines worked for all rows, errors
            too. model_fingerprints: the different ones in the rows.
        foreign_rows: rows of another job. averages: over the items without error, those of a judge too, the
            cost last.
        sample: in input order. added: identities of the error rows in it that were not drawn.
        judgements: of the candidates of each item of the sample; empty without a judge.
        no_pass_at_k: why there is no pass@k, where items were judged right or wrong.
        values: of every candidate without error num_tokens, logprob_per_token and score (with a judge), of
            every item vendi_score and unique_rate; float32, those that are defined, in input order.
    """

    rows_in: int
    rows_out: int
    misplaced: int
    foreign_rows: int
    errors: tuple[ErrorGroup, ...]
    candidates: int
    tokens: int
    engine_seconds: float
    model_fingerprints: tuple[str, ...]
    averages: tuple[Average, ...]
    sample: tuple[Item, ...]
    judgements: tuple[tuple[Judgement, ...], ...] = ()
    no_pass_at_k: str | None = None
    added: frozenset[tuple[str, int]] = frozenset()
    values: Mapping[str, array[float]] = field(default_factory=dict)

    @property
    def num_errors(self) -> int:
        """Rows with an error."""
        return sum(group.count for group in self.errors)

    @property
    def is_exactly_once(self) -> bool:
        """True when every input row is there once and nothing else is."""
        return self.rows_in == self.rows_out and not self.misplaced


def digest_run(
    run: Run,
    *,
    max_items: int,
    judge: Judge | None = None,
    seed: int = 0,
    wanted: Collection[tuple[str, int]] | None = None,
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> Digest:
    """Reads all parts once.

    Memory: about 200 bytes an item, 12 a candidate, the sample, and a bounded number of messages.

    Args:
        max_items: size of the sample, drawn uniformly; the same seed draws the same rows. The first error
            rows that were not drawn are added, one for every five items.
        judge: of the candidates; adds the metrics of quality_metrics.
        wanted: identities of the sample, instead of drawing.
        workers: processes for the metrics (see parallel.measured); a small run is not worth any.
        on_progress: is told how many rows of how many are read.

    Raises ValueError: max_items below 0. RunDirectoryError: a part cannot be read. EvaluationError: the
    judge failed.
    """
    if max_items < 0:
        raise ValueError(f"max_items is {max_items}, expected at least 0")
    drawn = _draw(run.num_finished, max_items, seed) if wanted is None else frozenset[int]()
    tally = _Tally(
        judge=judge,
        no_pass_at_k=_why_no_pass_at_k(run),
        drawn=drawn,
        wanted=frozenset(wanted or ()),
        more_errors=0 if wanted is not None else max_items // ERROR_SHARE,
    )
    metrics = averages(_metrics(run, tally, workers, on_progress), seed=seed)
    return Digest(
        rows_in=run.num_rows,
        rows_out=tally.rows,
        misplaced=tally.misplaced,
        foreign_rows=tally.foreign_rows,
        errors=tally.groups(),
        candidates=tally.candidates,
        tokens=tally.tokens,
        engine_seconds=tally.engine_seconds,
        model_fingerprints=tuple(sorted(tally.fingerprints)),
        averages=metrics,
        sample=tuple(tally.sample),
        judgements=tuple(tally.judgements),
        no_pass_at_k=tally.no_pass_at_k if judge is not None else None,
        added=frozenset(tally.added),
        values=tally.values,
    )


@dataclass
class _Tally:
    judge: Judge | None
    no_pass_at_k: str | None
    drawn: frozenset[int]  # of the rows, by their place in the parts
    wanted: frozenset[tuple[str, int]]
    more_errors: int
    added: set[tuple[str, int]] = field(default_factory=set)
    rows: int = 0
    misplaced: int = 0
    foreign_rows: int = 0
    candidates: int = 0
    tokens: int = 0
    engine_seconds: float = 0.0
    fingerprints: set[str] = field(default_factory=set)
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)
    messages: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    firsts: dict[tuple[str, str, str], Item] = field(default_factory=dict)
    various: set[tuple[str, str, str]] = field(default_factory=set)
    sample: list[Item] = field(default_factory=list)
    judgements: list[tuple[Judgement, ...]] = field(default_factory=list)
    values: dict[str, array[float]] = field(default_factory=dict)

    def takes(self, item: Item) -> bool:
        """Puts the item into the sample, if it belongs there."""
        belongs = self.rows in self.drawn or item.identity in self.wanted
        if not belongs and item.error is not None and len(self.added) < self.more_errors:
            belongs = True
            self.added.add(item.identity)
        if belongs:
            self.sample.append(item)
            if self.judge is not None:
                self.judgements.append(())
        return belongs

    def keep(self, name: str, value: float | None) -> None:
        if value is not None:
            self.values.setdefault(name, array("f")).append(value)

    def measure(
        self, item: Item, metrics: Mapping[str, float | None], *, sampled: bool
    ) -> Mapping[str, float | None]:
        """The metrics of an item without error, with those of the judge where there is one, and its cost."""
        for name in ITEM_VALUES:
            self.keep(name, metrics[name])
        for candidate in item.candidates:
            self.keep("num_tokens", candidate.num_tokens)
            self.keep("logprob_per_token", logprob_per_token(candidate))
        cost = {COST: item.seconds}
        if self.judge is None:
            return {**metrics, **cost}
        judged = self.judge(item)
        for one in judged:
            self.keep("score", one.score)
        if sampled:
            self.judgements[-1] = judged
        quality = quality_metrics(
            [candidate.text for candidate in item.candidates],
            [one.score for one in judged],
            [one.correct for one in judged],
            [one.content for one in judged],
            draws=self.no_pass_at_k is None,
        )
        return {**metrics, **quality, **cost}

    def add_error(self, item: Item, error: RequestError) -> None:
        self.kinds[error.stage, error.type] += 1
        key = (error.stage, error.type, CHANGING.sub("…", error.message))
        if key in self.messages or len(self.messages) < MAX_MESSAGES:
            self.messages[key] += 1
            first = self.firsts.setdefault(key, item)
            if first.error != error:
                self.various.add(key)

    def groups(self) -> tuple[ErrorGroup, ...]:
        """The commonest kinds first."""
        common: dict[tuple[str, str], list[ErrorMessage]] = {}
        for key, count in self.messages.most_common():
            shown, first = common.setdefault(key[:2], []), self.firsts[key]
            said = first.error.message if first.error and key not in self.various else key[2]
            if len(shown) < SHOWN_MESSAGES:
                shown.append(ErrorMessage(said, count, first))
        return tuple(
            ErrorGroup(*key, count, tuple(common.get(key, ()))) for key, count in self.kinds.most_common()
        )


def _metrics(
    run: Run, tally: _Tally, workers: int, on_progress: Callable[[int, int], None] | None
) -> Iterator[Mapping[str, float | None]]:
    """The metrics of the items without error; everything else goes into the tally on the way."""
    carried = tally.judge.columns if tally.judge is not None else ()
    workers = workers if run.num_finished >= MANY_ROWS else 1
    items = measured(run.items(carried=carried), workers=workers)
    for (item, metrics), place in zip(items, _places(run), strict=True):
        sampled = tally.takes(item)
        tally.rows += 1
        tally.misplaced += item.identity != place
        tally.foreign_rows += item.job_fingerprint != run.job["job_fingerprint"]
        tally.fingerprints.add(item.model_fingerprint)
        tally.candidates += len(item.candidates)
        tally.tokens += sum(candidate.num_tokens for candidate in item.candidates)
        tally.engine_seconds += item.seconds
        if item.error is None:
            yield tally.measure(item, vars(metrics), sampled=sampled)
        else:
            tally.add_error(item, item.error)
        if on_progress is not None and tally.rows % TOLD_EVERY == 0:
            on_progress(tally.rows, run.num_finished)


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
