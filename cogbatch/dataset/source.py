"""What every input format can do, and the simplest of them: the image folder. Values as they are, no meaning.

A source knows its columns and where row groups end, and reads any shard without reading its whole file. It is
a plain value: built once by the driver, it travels to workers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from cogbatch.dataset.files import InputFile
from cogbatch.dataset.shards import Shard, Span
from cogbatch.types import RequestError

Record = Mapping[str, object] | RequestError


class Source(Protocol):
    """One format's way to read."""

    @property
    def spans(self) -> tuple[Span, ...]:
        """All rows, in order, in pieces that no shard may cross."""

    @property
    def schema(self) -> pa.Schema:
        """The columns there are."""

    def place(self, shard: Shard) -> Shard:
        """The shard with where reading starts filled in."""

    def records(self, shard: Shard, columns: Sequence[str]) -> Iterator[Record]:
        """The shard's rows as column -> value, exactly shard.num_rows; an unreadable one as its error.

        A value is a Python object or an Arrow scalar; null is None.
        """


@dataclass(frozen=True)
class FolderSource:
    """An image folder: one virtual file, its rows the sorted listing, with columns id and image."""

    names: pa.BinaryArray  # as the file system has them, which need not be UTF-8
    schema: pa.Schema

    @property
    def spans(self) -> tuple[Span, ...]:
        return (Span(0, 0, len(self.names)),)

    def place(self, shard: Shard) -> Shard:
        return shard

    def records(self, shard: Shard, columns: Sequence[str]) -> Iterator[Record]:
        for name in self.names.slice(shard.first_row, shard.num_rows).to_pylist():
            yield dict.fromkeys(columns, os.fsdecode(name))

    @property
    def paths(self) -> list[str]:
        """All rows' paths, relative to the folder, in order."""
        return [os.fsdecode(name) for name in self.names.to_pylist()]


def open_folder(names: Sequence[str]) -> FolderSource:
    """The folder with these images, paths relative to it."""
    schema = pa.schema([("id", pa.string()), ("image", pa.string())])
    return FolderSource(pa.array([os.fsencode(name) for name in names], pa.binary()), schema)


def pad(records: Iterator[Record], shard: Shard, file: InputFile) -> Iterator[Record]:
    """The records, then errors up to shard.num_rows: rows that the file had when the job started."""
    num_read = 0
    for record in records:
        num_read += 1
        yield record
    changed = RequestError("read", "DatasetError", f"{file.name} has become shorter since the job started")
    yield from [changed] * (shard.num_rows - num_read)
