"""Shards: the row ranges of the input that are units of work and of resume. Arithmetic only, no files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from cogbatch.errors import DatasetError, RunDirectoryError

MAX_SHARDS = 100_000  # of one job: each is one Ray object
MIN_AUTO_SIZE, MAX_AUTO_SIZE = 8, 512
AUTO_SHARDS = 1_000  # what "auto" aims at: small enough to redo, large enough to schedule
BUSY_SIZE = 32  # from here on an engine does not feel the edges of shards (docs/benchmarks.md)


@dataclass(frozen=True)
class Span:
    """Rows of one file that a shard may not leave: a Parquet row group, or a whole file of another format."""

    file_index: int
    first_row: int
    num_rows: int
    row_group: int | None = None


@dataclass(frozen=True, slots=True)
class Shard:
    """A row range of one input file. A plain value: it travels to workers. A driver holds up to 100,000.

    Args:
        index: place in the grid of the job; single items made by split() keep that of their shard.
        file_index: place in Dataset.files. first_row: row of that file. num_rows: at least 1.
        row_group: Parquet row group that holds all rows; None for other formats.
        byte_offset: where reading starts; None for Parquet and image folders.
        skip_rows: rows between that start (or the start of the row group or listing) and first_row.
    """

    index: int
    file_index: int
    first_row: int
    num_rows: int
    row_group: int | None = None
    byte_offset: int | None = None
    skip_rows: int = 0

    @property
    def part_name(self) -> str:
        """The file name of this shard's part, whoever writes it and however often."""
        return f"part-{self.file_index}-{self.first_row}-{self.num_rows}.parquet"

    def split(self) -> tuple[Shard, ...]:
        """One shard per row, in order: to isolate a row that kills its worker."""
        return tuple(self.part_of(start=row, num_rows=1) for row in range(self.num_rows))

    def part_of(self, *, start: int, num_rows: int) -> Shard:
        """The rows start..start + num_rows of this shard as a shard of the same index."""
        if start < 0 or num_rows < 1 or start + num_rows > self.num_rows:
            raise ValueError(f"rows {start}..{start + num_rows} are not within a shard of {self.num_rows}")
        return Shard(
            index=self.index,
            file_index=self.file_index,
            first_row=self.first_row + start,
            num_rows=num_rows,
            row_group=self.row_group,
            byte_offset=self.byte_offset,
            skip_rows=self.skip_rows + start,
        )

    def to_json(self) -> dict[str, int | None]:
        """A plain dict; Shard.from_json is its inverse."""
        # asdict copies deeply, which takes seconds for 100,000 shards
        return {"index": self.index} | {name: getattr(self, name) for name in GRID_COLUMNS}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Shard:
        """The shard that to_json described. Raises ValueError: keys other than a shard's."""
        names = {field.name for field in fields(cls)}
        if set(value) != names:
            raise ValueError(f"a shard has the keys {sorted(names)}, got {sorted(value)}")
        return cls(**value)


GRID_COLUMNS = tuple(field.name for field in fields(Shard) if field.name != "index")


def grid_to_json(shards: Sequence[Shard]) -> dict[str, list[int | None]]:
    """All shards of a job, in order, as columns: with an object each it is most of job.json."""
    return {name: [getattr(shard, name) for shard in shards] for name in GRID_COLUMNS}


def stored_shards(job: Mapping[str, Any], *, where: object) -> tuple[Shard, ...]:
    """The shards of a job.json. where: its path. Raises RunDirectoryError: none, or of another shape."""
    try:
        grid = job["shards"]
        if isinstance(grid, list):  # as the first versions wrote it
            shards = tuple(map(Shard.from_json, grid))
        else:
            rows = zip(*(grid[name] for name in GRID_COLUMNS), strict=True)
            shards = tuple(Shard(index, *row) for index, row in enumerate(rows))
        if shards and all(type(shard.num_rows) is int and shard.num_rows > 0 for shard in shards):
            return shards
        raise ValueError("expected shards of at least one row")
    except (KeyError, TypeError, ValueError) as err:
        raise RunDirectoryError(
            f"{where}: its shards cannot be read ({type(err).__name__}: {err});"
            " was it made by hand, or by another version?"
        ) from err


def auto_shard_size(num_rows: int) -> int:
    """Items per shard, 8 to 512: about 1,000 shards a job; of few rows as many shards as items in each, so
    that there are enough of both: shards to share out, items to keep an engine busy."""
    few = min(math.isqrt(num_rows), BUSY_SIZE)
    return min(max(-(-num_rows // AUTO_SHARDS), few, MIN_AUTO_SIZE), MAX_AUTO_SIZE)


def first_rows(spans: Iterable[Span], limit: int | None) -> tuple[Span, ...]:
    """The spans cut after `limit` rows in all (None: all rows), empty ones left out."""
    kept, left = [], limit
    for span in spans:
        num_rows = span.num_rows if left is None else min(span.num_rows, left)
        if num_rows:
            kept.append(Span(span.file_index, span.first_row, num_rows, span.row_group))
        if left is not None:
            left -= num_rows
    return tuple(kept)


def cut(spans: Iterable[Span], shard_size: int | Literal["auto"]) -> Iterator[Shard]:
    """Each span cut into shards of at most shard_size rows.

    Raises ValueError: shard_size is neither "auto" nor at least 1. DatasetError: more than 100,000 shards.
    """
    spans = tuple(spans)
    if shard_size != "auto" and (isinstance(shard_size, bool) or shard_size < 1):
        raise ValueError(f'shard_size is {shard_size!r}, expected "auto" or at least 1')
    size = auto_shard_size(sum(span.num_rows for span in spans)) if shard_size == "auto" else shard_size
    count = sum(-(-span.num_rows // size) for span in spans)
    if count > MAX_SHARDS:
        raise DatasetError(
            f"{count} shards of at most {size} rows in {len(spans)} files or row groups, expected at most"
            f" {MAX_SHARDS}; use a larger shard_size, larger row groups, or several jobs"
        )
    index = 0
    for span in spans:
        for start in range(0, span.num_rows, size):
            num_rows = min(size, span.num_rows - start)
            first_row = span.first_row + start
            yield Shard(index, span.file_index, first_row, num_rows, span.row_group, None, start)
            index += 1
