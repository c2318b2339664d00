"""What a job will take, as far as a sample of its rows and the model's shapes tell.

Tokens, memory, hours, cost. A speed is never made up: hours need one that was measured or given.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Any

from cogbatch.batch.summary import ErrorKind
from cogbatch.batch.survey import Survey
from cogbatch.dataset.dataset import Dataset
from cogbatch.dataset.object_path import Place
from cogbatch.dataset.rows import Row
from cogbatch.dataset.run_directory import RunDirectory
from cogbatch.dataset.shards import Shard
from cogbatch.types import RequestError

if TYPE_CHECKING:
    from cogbatch.engine.fit import Fit

SAMPLED_ROWS = 16


@dataclass(frozen=True)
class Speed:
    """items_per_s: of all workers together. source: who says so."""

    items_per_s: float
    source: str


@dataclass(frozen=True)
class Estimate:
    """Beside what is counted in Plan.

    Args:
        sampled: rows that were read and, where the model is known, made into prompts. error_kinds: of those
            that could not be, the commonest first. survey: None: the model is not here yet.
        rows: of the job. rows_left, workers: of the run to come. price_per_hour: of one worker.
    """

    sampled: int
    error_kinds: tuple[ErrorKind, ...]
    survey: Survey | None
    rows: int
    rows_left: int
    workers: int
    speed: Speed | None = None
    price_per_hour: float | None = None

    @property
    def prompt_tokens(self) -> int | None:
        """Of the whole job: the sample's mean for every row."""
        tokens = self.survey.prompt_tokens if self.survey else ()
        return round(sum(tokens) / len(tokens) * self.rows) if tokens else None

    @property
    def most_output_tokens(self) -> int | None:
        return self.survey.new_tokens * self.rows if self.survey else None

    @property
    def hours(self) -> float | None:
        return None if self.speed is None else self.rows_left / self.speed.items_per_s / 3600

    @property
    def cost(self) -> float | None:
        """Every worker is paid until the last one ends."""
        if self.hours is None or self.price_per_hour is None:
            return None
        return self.hours * self.workers * self.price_per_hour

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {
            "sampled": self.sampled,
            "sampled_errors": sum(kind.count for kind in self.error_kinds),
            "error_kinds": [vars(kind) for kind in self.error_kinds],
            "prompt_tokens": self.prompt_tokens,
            "most_output_tokens": self.most_output_tokens,
            "memory": self.survey.memory_json() if self.survey else None,
            "items_per_s": self.speed.items_per_s if self.speed else None,
            "hours": self.hours,
            "cost": self.cost,
        }

    def lines(self) -> Iterator[str]:
        """The same for a person."""
        yield from self._sample_lines()
        if self.survey is None:
            yield "tokens and memory: known once the checkpoint has been fetched (cogbatch run does)"
        else:
            yield from self._token_lines(self.survey)
            yield from _memory_lines(self.survey)
        yield self._time_line()

    def _sample_lines(self) -> Iterator[str]:
        failed = sum(kind.count for kind in self.error_kinds)
        yield f"sample: {self.sampled} of {self.rows} rows, {failed} of them would be errors"
        for kind in self.error_kinds[:1]:
            yield f"  {kind.count} x {kind.stage}/{kind.type}, for example: {kind.message}"

    def _token_lines(self, survey: Survey) -> Iterator[str]:
        if survey.prompt_tokens:
            longest, image = max(survey.prompt_tokens), survey.need.image_tokens
            of_image = f", {image:,} of an image" if image else ""
            yield (
                f"prompts: up to {longest:,} tokens in the sample{of_image}; "
                f"about {self.prompt_tokens:,} in all"
            )
        yield (
            f"output: at most {self.most_output_tokens:,} tokens, {survey.new_tokens:,} an item in "
            f"{survey.rows} row{'s' * (survey.rows != 1)}"
        )

    def _time_line(self) -> str:
        if not self.rows_left:
            return "time: nothing is left to do"
        if self.speed is None or self.hours is None:
            what = "time" if self.price_per_hour is None else "time and cost"
            return f"{what}: unknown; measure with --limit, then plan with --items-per-s"
        speed = f"{self.speed.items_per_s:.3g} items/s ({self.speed.source})"
        line = f"time: {_duration(self.hours)} for {self.rows_left} rows at {speed}"
        if self.cost is None:
            return line
        return (
            f"{line}; cost: {self.cost:,.2f} for {self.workers} worker{'s' * (self.workers != 1)} at "
            f"{self.price_per_hour:g} an hour"
        )


def _memory_lines(survey: Survey) -> Iterator[str]:
    from cogbatch.engine.fit import gigabytes

    need = survey.need
    how = f"{survey.dtype}, {survey.quantization}" if survey.quantization else survey.dtype
    yield f"weights: {gigabytes(need.weight_bytes)} ({how}); working memory: {gigabytes(need.working_bytes)}"
    times = need.expanded_item_bytes / need.item_bytes
    yield (
        f"keys and values: {gigabytes(need.item_bytes)} an item; with a copy of the prompt for every row "
        f"{gigabytes(need.expanded_item_bytes)}, {times:.1f} times as much"
    )
    yield f"{survey.here.device}: {_verdict(survey.here)}"
    if survey.here.problem:
        yield "  lower max_new_tokens or num_candidates, set model.quantization, or use another device"
    alike = [list(group) for _, group in groupby(survey.cards, key=_verdict)]
    yield "cards: " + "; ".join(f"{_classes(group)}: {_verdict(group[0])}" for group in alike)


def _classes(cards: Sequence[Fit]) -> str:
    return cards[0].device if len(cards) == 1 else f"{cards[0].device} to {cards[-1].device}"


def _verdict(fit: Fit) -> str:
    return f"no, {fit.problem}" if fit.problem else f"{fit.items} item{'s' * (fit.items != 1)} at a time"


def _duration(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"


def sample_rows(dataset: Dataset, shards: Sequence[Shard], *, count: int = SAMPLED_ROWS) -> list[Row]:
    """At most so many rows, evenly spread over the job."""
    ends = list(accumulate(shard.num_rows for shard in shards))
    count = min(count, ends[-1])
    rows: list[Row] = []
    for place in range(count):
        number = (2 * place + 1) * ends[-1] // (2 * count)
        index = bisect_right(ends, number)
        start = number - (ends[index] - shards[index].num_rows)
        rows += dataset.read(shards[index].part_of(start=start, num_rows=1))
    return rows


def kinds_of(errors: Sequence[RequestError]) -> tuple[ErrorKind, ...]:
    """The commonest kinds first, each with the message of its first."""
    counts = Counter((error.stage, error.type) for error in errors)
    examples = {(error.stage, error.type): error.message for error in reversed(errors)}
    return tuple(
        ErrorKind(stage=stage, type=kind, count=count, message=examples[stage, kind])
        for (stage, kind), count in counts.most_common()
    )


def known_speed(run_path: Place, *, items_per_s: float | None, workers: int) -> Speed | None:
    """The speed that was given for one worker, or else that of an earlier run in the same directory."""
    if items_per_s is not None:
        shared = f", {workers} workers" if workers > 1 else ""
        return Speed(items_per_s * workers, f"as given{shared}")
    measured = RunDirectory(run_path).finished_speed()
    return None if measured is None else Speed(measured, "measured in this run directory")
