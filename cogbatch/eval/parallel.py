"""The metrics of many items, in several processes: the same values in the same order, sooner."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice

from cogbatch.eval.metrics import ItemMetrics, item_metrics
from cogbatch.eval.runs import Item
from cogbatch.types import Candidate

CHUNK_ITEMS = 128
AHEAD = 3  # chunks in flight for each worker
Chunk = tuple[Sequence[Item], "Future[list[ItemMetrics]]"]


def measured(items: Iterable[Item], *, workers: int) -> Iterator[tuple[Item, ItemMetrics]]:
    """Each item with its metrics, in order; a few hundred items are held at a time.

    Args:
        workers: processes; 1 starts none. More need a main module that can be imported, as
            multiprocessing's "spawn" does.
    """
    if workers == 1:
        yield from ((item, item_metrics(item.candidates)) for item in items)
        return
    items, pending = iter(items), deque[Chunk]()
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool, _nothing_left(pool):
        while chunk := list(islice(items, CHUNK_ITEMS)):
            pending.append((chunk, pool.submit(_measure, [item.candidates for item in chunk])))
            if len(pending) > AHEAD * workers:
                yield from _finished(pending.popleft())
        while pending:
            yield from _finished(pending.popleft())


@contextlib.contextmanager
def _nothing_left(pool: ProcessPoolExecutor) -> Iterator[None]:
    """What is queued is not done when the block is left early: by Ctrl-C, or an error."""
    try:
        yield
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _measure(several: Sequence[Sequence[Candidate]]) -> list[ItemMetrics]:
    return [item_metrics(candidates) for candidates in several]


def _finished(chunk: Chunk) -> Iterator[tuple[Item, ItemMetrics]]:
    items, future = chunk
    yield from zip(items, future.result(), strict=True)
