"""What a worker counts for Prometheus, through Ray's own exporter: ray_cogbatch_..._total on each node."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from ray.util.metrics import Counter

from cogbatch.types import RequestOutput

Item = TypeVar("Item")


class WorkerMetrics:
    """Counters of one worker process. Every metric has the tag `run`, the name of the run directory or sweep.

    items and candidates finished; tokens generated, kept or not; errors by stage; seconds by stage: `load`
    (weights), `read` (rows of shards), `generate` (the engine at work) and `write` (parts). Rows of a shard
    that is redone count twice: the parts say what there is, these say what was done.
    """

    def __init__(self, run: str) -> None:
        def counter(name: str, description: str, *tags: str) -> Counter:
            made = Counter(f"cogbatch_{name}", description, tag_keys=("run", *tags))
            made.set_default_tags({"run": run})
            return made

        self._items = counter("items", "Items finished, well or not.")
        self._candidates = counter("candidates", "Candidates delivered.")
        self._tokens = counter("tokens", "Tokens generated, kept or not.")
        self._errors = counter("errors", "Items that ended as an error, by stage.", "stage")
        self._seconds = counter("seconds", "Seconds spent, by stage.", "stage")

    def finished(self, output: RequestOutput) -> None:
        """An item has its output."""
        self._items.inc()
        if output.error is not None:
            self._errors.inc(tags={"stage": output.error.stage})
        if output.candidates:
            self._candidates.inc(len(output.candidates))
        if output.seconds > 0:
            self._seconds.inc(output.seconds, tags={"stage": "generate"})

    def generated(self, tokens: int) -> None:
        """The engine made tokens."""
        if tokens > 0:
            self._tokens.inc(tokens)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Counts the seconds of the block, however it ends."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._seconds.inc(max(time.perf_counter() - began, 1e-9), tags={"stage": name})

    def reading(self, rows: Iterable[Item]) -> Iterator[Item]:
        """The same rows; the seconds that they take to come are counted, all at once when they end."""
        waited, iterator = 0.0, iter(rows)
        try:
            while True:
                began = time.perf_counter()
                try:
                    row = next(iterator)
                except StopIteration:
                    return
                finally:
                    waited += time.perf_counter() - began
                yield row
        finally:
            self._seconds.inc(max(waited, 1e-9), tags={"stage": "read"})
