"""Arrow stream files, as datasets.save_to_disk writes them. Read with pyarrow; `datasets` is not needed.

One pass at the start finds where record batches begin; a shard reads the batches that hold its rows.
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

import pyarrow as pa

from cogbatch.dataset.batches import Batches, BatchStream
from cogbatch.dataset.files import InputFile, Listing
from cogbatch.dataset.row_index import RowIndex, spans_of
from cogbatch.dataset.shards import Shard, Span
from cogbatch.dataset.source import Record
from cogbatch.dataset.streams import kept, open_input
from cogbatch.dataset.values import named, storage
from cogbatch.errors import DatasetError

END_MARKS = (b"\xff\xff\xff\xff\0\0\0\0", b"\0\0\0\0")  # of a stream; the second before Arrow 0.15
READ_ERRORS = (pa.ArrowException, OSError, EOFError)


@dataclass(frozen=True)
class ArrowSource:
    """Arrow files with one schema. indexes: their record batches."""

    listing: Listing
    indexes: tuple[RowIndex, ...]
    schema: pa.Schema

    @property
    def spans(self) -> tuple[Span, ...]:
        return spans_of(self.indexes)

    def place(self, shard: Shard) -> Shard:
        return self.indexes[shard.file_index].place(shard)

    def records(self, shard: Shard, columns: Sequence[str]) -> Iterator[Record]:
        file = self.listing.files[shard.file_index]
        opener = functools.partial(_open_stream, self.listing, file)
        with kept((self.listing.fs, self.listing.folder, file), opener) as stream:
            yield from stream.records(shard, columns)


def open_arrow(listing: Listing) -> ArrowSource:
    """Runs through all files once. Raises DatasetError: damaged files, or files of several schemas."""
    indexes, schema = list[RowIndex](), None
    for file in listing.files:
        try:
            found, index = _index(listing, file)
        except (*READ_ERRORS, UnicodeDecodeError) as err:
            reason = " ".join(str(err).split())
            raise DatasetError(
                f"{file.name} is not a readable Arrow stream ({reason}); copy it again"
            ) from err
        if schema is not None and not found.equals(schema):
            raise DatasetError(f"{file.name} has other columns than {listing.files[0].name}; save them again")
        schema = found
        indexes.append(index)
    assert schema is not None
    return ArrowSource(
        listing, tuple(indexes), pa.schema([pa.field(f.name, storage(f.type)) for f in schema])
    )


def _index(listing: Listing, file: InputFile) -> tuple[pa.Schema, RowIndex]:
    first_rows, offsets, num_rows = array("q"), array("q"), 0
    with _open_arrow_file(listing, file) as opened:
        schema = named(pa.ipc.read_schema(opened))
        for offset, message in _messages(opened):
            if message.type != "record batch":
                raise pa.ArrowInvalid(f"a {message.type}; dictionary-encoded columns are not supported")
            first_rows.append(num_rows)
            offsets.append(offset)
            num_rows += pa.ipc.read_record_batch(message, schema).num_rows
    return schema, RowIndex(num_rows, first_rows, offsets)


def _messages(opened: pa.NativeFile) -> Iterator[tuple[int, pa.ipc.Message]]:
    """(byte offset, message) up to the mark of the end. Raises pa.ArrowInvalid: the file is cut off."""
    while True:
        offset = opened.tell()
        if opened.read(8).startswith(END_MARKS):
            return
        opened.seek(offset)
        try:
            yield offset, pa.ipc.read_message(opened)
        except (*READ_ERRORS, ValueError) as err:
            raise pa.ArrowInvalid(f"damaged or cut off at byte {offset}: {err}") from err


def _open_arrow_file(listing: Listing, file: InputFile) -> pa.NativeFile:
    """Mapped on local disk, so that finding batches does not read what is in them."""
    if listing.protocol == "file":
        return pa.memory_map(f"{listing.folder.rstrip('/')}/{file.path}")
    return pa.PythonFile(open_input(listing, file), mode="r")


def _open_stream(listing: Listing, file: InputFile) -> BatchStream:
    opened = open_input(listing, file)  # not mapped: a mapped file that shrinks kills the process
    schema: list[pa.Schema] = []

    def start(shard: Shard) -> Batches:
        if not schema:
            schema.append(_read_schema(opened))
        opened.seek(shard.byte_offset or 0)
        return _batches(opened, schema[0])

    return BatchStream(file, start, opened.close)


def _read_schema(opened: IO[bytes]) -> pa.Schema:
    return pa.ipc.read_schema(pa.PythonFile(opened, mode="r"))


def _batches(opened: IO[bytes], schema: pa.Schema) -> Batches:
    source = pa.PythonFile(opened, mode="r")
    for _, message in _messages(source):
        batch = pa.ipc.read_record_batch(message, schema)
        for column in batch.columns:
            _check_inside(column)
        yield batch


def _check_inside(column: pa.Array) -> None:
    """Raises pa.ArrowInvalid: it leads out of its own memory, which ends the process that looks there."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as err:
        if "Invalid UTF8" not in str(err):  # which concerns one row
            raise
