"""Rows out of Arrow record batches that come in order: what Parquet and Arrow files have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from cogbatch.dataset.files import InputFile
from cogbatch.dataset.row_index import start_row
from cogbatch.dataset.rows import row_error
from cogbatch.dataset.shards import Shard
from cogbatch.dataset.source import Record, pad

Batches = Iterator[pa.RecordBatch]


class BatchStream:
    """The record batches of one open file, forwards; the current one is kept.

    Args:
        start: the batches from a shard's row group or byte offset on. close: gives back what is open.
    """

    def __init__(
        self, file: InputFile, start: Callable[[Shard], Batches], close: Callable[[], object]
    ) -> None:
        self._file, self._start, self.close = file, start, close
        self._row_group: int | None = None
        self._batches: Batches | None = None
        self._batch: pa.RecordBatch | None = None
        self._first_row = 0  # of the batch

    def records(self, shard: Shard, columns: Sequence[str]) -> Iterator[Record]:
        """The shard's rows; where a batch is damaged, errors from there to the shard's end."""
        return pad(self._records(shard, columns), shard, self._file)

    def _records(self, shard: Shard, columns: Sequence[str]) -> Iterator[Record]:
        row, end = shard.first_row, shard.first_row + shard.num_rows
        while row < end:
            try:
                batch = self._find(shard, row)
            except (pa.ArrowException, OSError) as err:
                self._batches = None
                if isinstance(err, OSError) and err.errno is not None:
                    raise  # the storage, not the data: worth another attempt
                group = "" if shard.row_group is None else f", row group {shard.row_group}"
                reason = ValueError(f"{self._file.name}{group}: not readable from row {row} on: {err}")
                yield from [row_error("read", reason)] * (end - row)
                return
            if batch is None:
                return
            arrays = {name: batch.column(name) for name in columns}
            until = min(end, self._first_row + batch.num_rows)
            for place in range(row - self._first_row, until - self._first_row):
                yield {name: _value(array[place]) for name, array in arrays.items()}
            row = until

    def _find(self, shard: Shard, row: int) -> pa.RecordBatch | None:
        """The batch with this row; None when the file ends before it."""
        start, end = start_row(shard), self._first_row + (self._batch.num_rows if self._batch else 0)
        goes_on = self._row_group == shard.row_group and self._first_row <= row and start <= end
        if self._batches is None or not goes_on:
            self._batches, self._batch = self._start(shard), None
            self._row_group, self._first_row = shard.row_group, start
        while self._batch is None or self._first_row + self._batch.num_rows <= row:
            self._first_row += self._batch.num_rows if self._batch else 0
            self._batch = next(self._batches, None)
            if self._batch is None:
                self._batches = None
                return None
        return self._batch


def _value(scalar: pa.Scalar) -> pa.Scalar | None:
    """Arrow's own scalar, because Python's values lose nanoseconds."""
    if not scalar.is_valid:
        return None
    return scalar.value if isinstance(scalar, pa.ExtensionScalar) else scalar
