"""Items of a run beside the rows of its input, and their pictures, read ahead but in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import pyarrow as pa

from cogbatch.dataset.dataset import Dataset
from cogbatch.dataset.rows import Row
from cogbatch.errors import CogbatchError
from cogbatch.eval.runs import Item, Run

THREADS = 8  # most of the time is spent waiting for disk or network
WINDOW = 32  # pictures that are ready or under way

T = TypeVar("T")
R = TypeVar("R")


def items_with_rows(
    run: Run, dataset: Dataset, *, carried: Sequence[str]
) -> Iterator[tuple[Item, Row | str]]:
    """Every item of the run, in input order, with its row of the input, or why there is none.

    Rows are read as their shards lie, not one by one.

    Raises RunDirectoryError: a part is damaged.
    """
    for item, row in zip(run.items(carried=carried), _rows(run, dataset), strict=True):
        if isinstance(row, Row) and (row.input_file, row.input_row) != item.identity:
            yield item, "the input has other files than the job"
        elif isinstance(row, Row) and row.id != item.id:
            yield item, "the input has another id there now"
        else:
            yield item, row


def _rows(run: Run, dataset: Dataset) -> Iterator[Row | str]:
    grid = {shard.part_name: shard for shard in run.shards}
    for part in run.parts:
        shard, read = grid.get(part.name), 0
        reason = "the part is not of the job"
        if shard is not None and shard.num_rows == part.num_rows:
            try:
                for row in dataset.read(shard):
                    read += 1
                    yield row
            except (CogbatchError, OSError, IndexError, ValueError, pa.ArrowException) as err:
                reason = f"the input cannot be read: {' '.join(str(err).split()) or type(err).__name__}"
        yield from [reason] * (part.num_rows - read)


def in_order(function: Callable[[T], R], values: Iterable[T]) -> Iterator[R]:
    """The results of the function, in the order of the values, a few computed ahead by threads."""
    with ThreadPoolExecutor(THREADS) as pool:
        ahead: deque[Future[R]] = deque()
        for value in values:
            ahead.append(pool.submit(function, value))
            if len(ahead) >= WINDOW:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
