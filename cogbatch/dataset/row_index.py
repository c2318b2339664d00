"""Where rows are in a file that has no index of its own: byte offsets of every 64th row."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, replace

from cogbatch.dataset.files import InputFile
from cogbatch.dataset.shards import Shard, Span
from cogbatch.dataset.streams import check_gzipped_rows

STRIDE = 64  # rows between two remembered offsets: 8 bytes per 64 rows, at most 63 rows skipped per shard


@dataclass(frozen=True)
class RowIndex:
    """One file's rows. offsets: bytes before rows 0, 64, 128, ...; of a gzip file only the first."""

    num_rows: int
    offsets: array[int]

    def place(self, shard: Shard) -> Shard:
        """The shard with where reading starts."""
        number = min(shard.first_row // STRIDE, len(self.offsets) - 1)
        return replace(shard, byte_offset=self.offsets[number], skip_rows=shard.first_row - number * STRIDE)


def index_rows(starts: Iterable[int], file: InputFile, *, limit: int | None) -> RowIndex:
    """Runs through the byte offsets of a file's rows, at most `limit` of them.

    Raises DatasetError: more rows than a gzip file may have.
    """
    offsets, num_rows = array("q"), 0
    if limit is None or limit > 0:
        for start in starts:
            if num_rows % STRIDE == 0 and not (file.is_gzipped and offsets):
                offsets.append(start)
            num_rows += 1
            check_gzipped_rows(file, num_rows)
            if num_rows == limit:
                break
    return RowIndex(num_rows, offsets)


def spans_of(indexes: Iterable[RowIndex]) -> tuple[Span, ...]:
    """Each file as one span."""
    return tuple(Span(number, 0, index.num_rows) for number, index in enumerate(indexes))


def start_row(shard: Shard) -> int:
    """The row that shard.byte_offset, or the start of its row group, stands for."""
    return shard.first_row - shard.skip_rows
