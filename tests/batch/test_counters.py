"""Laws of counting in a worker: what is counted passes unchanged. What is exported: test_head.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cogbatch.batch.metrics import WorkerMetrics


def test_rows_pass_unchanged_one_by_one() -> None:
    taken: list[int] = []

    def rows() -> Iterator[int]:
        for number in range(3):
            taken.append(number)
            yield number

    read = WorkerMetrics("run").reading(rows())
    assert taken == []
    assert (next(read), taken) == (0, [0]), "nothing is read ahead"
    assert list(read) == [1, 2]


def test_what_reading_raises_is_raised_after_the_rows_before_it() -> None:
    def rows() -> Iterator[int]:
        yield 0
        raise OSError("truncated")

    read = WorkerMetrics("run").reading(rows())
    assert next(read) == 0
    with pytest.raises(OSError, match="truncated"):
        next(read)


def test_a_stage_that_raises_is_not_swallowed() -> None:
    with pytest.raises(OSError, match="full"), WorkerMetrics("run").stage("write"):
        raise OSError("full")
