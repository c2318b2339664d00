"""Where rows are in a file that has no index of its own: byte offsets of some rows."""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cogbatch.dataset.files import InputFile
from cogbatch.dataset.shards import Shard, Span
from cogbatch.dataset.streams import check_gzipped_rows

STRIDE = 64  # rows between two remembered offsets: 8 bytes per 64 rows, at most 63 rows skipped per shard


@dataclass(frozen=True)
class RowIndex:
    """One file's rows. offsets: bytes before each of first_rows, of which the first is 0."""

    num_rows: int
    first_rows: Sequence[int]
    offsets: Sequence[int]

    def place(self, shard: Shard) -> Shard:
        """The shard with where reading starts."""
        number = bisect.bisect_right(self.first_rows, shard.first_row) - 1
        skip = shard.first_row - self.first_rows[number]
        return replace(shard, byte_offset=self.offsets[number], skip_rows=skip)


def index_rows(starts: Iterable[int], file: InputFile, *, limit: int | None) -> RowIndex:
    """Runs through the byte offsets of a file's rows, at most `limit` of them; gzip files keep the first.

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
    return RowIndex(num_rows, range(0, num_rows, STRIDE)[: len(offsets)], offsets)


def known_index(shards: Sequence[Shard]) -> RowIndex:
    """The rows of one file as the shards of a job have them, which are in order and have been placed."""
    offsets = array("q", [shard.byte_offset or 0 for shard in shards])
    num_rows = shards[-1].first_row + shards[-1].num_rows if shards else 0
    return RowIndex(num_rows, array("q", map(start_row, shards)), offsets)


def spans_of(indexes: Iterable[RowIndex]) -> tuple[Span, ...]:
    """Each file as one span."""
    return tuple(Span(number, 0, index.num_rows) for number, index in enumerate(indexes))


def start_row(shard: Shard) -> int:
    """The row that shard.byte_offset, or the start of its row group, stands for."""
    return shard.first_row - shard.skip_rows
