"""Parquet input: shards are row ranges of one row group, and only the asked columns are read."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from cogbatch.dataset.batches import Batches, BatchStream
from cogbatch.dataset.files import InputFile, Listing
from cogbatch.dataset.shards import Shard, Span
from cogbatch.dataset.source import Record
from cogbatch.dataset.streams import kept, open_ranges
from cogbatch.dataset.values import named, storage
from cogbatch.errors import DatasetError

FOOTER_THREADS = 16
MAX_NAMED = 5  # files in one message
BUFFER_BYTES = 2**20  # of one column, read at once
BATCH_BYTES, MAX_BATCH_ROWS = 16 * 2**20, 1024


@dataclass(frozen=True)
class ParquetSource:
    """Parquet files with the same columns, as far as they are asked for."""

    listing: Listing
    spans: tuple[Span, ...]
    schema: pa.Schema

    def place(self, shard: Shard) -> Shard:
        return shard

    def records(self, shard: Shard, columns: Sequence[str]) -> Iterator[Record]:
        if not columns:
            yield from [{}] * shard.num_rows
            return
        file = self.listing.files[shard.file_index]
        opener = functools.partial(_open_stream, self.listing, file, tuple(columns))
        with kept((self.listing.fs, self.listing.folder, file, tuple(columns)), opener) as stream:
            yield from stream.records(shard, columns)


def open_parquet(listing: Listing, columns: Sequence[str]) -> ParquetSource:
    """Reads the footers. A column that no file has is left to the caller.

    Raises DatasetError: damaged files; files that lack one of the columns, or have it as another type.
    """
    with ThreadPoolExecutor(FOOTER_THREADS) as pool:
        footers = list(pool.map(functools.partial(_footer, listing), listing.files))
    spans, fields, problems = [], dict[str, pa.Field](), list[str]()
    for file_index, footer in enumerate(footers):
        if isinstance(footer, str):
            problems.append(footer)
            continue
        metadata, schema = footer
        first_row = 0
        for row_group in range(metadata.num_row_groups):
            num_rows = metadata.row_group(row_group).num_rows
            spans.append(Span(file_index, first_row, num_rows, row_group))
            first_row += num_rows
        for field in schema:
            fields[field.name] = _common(fields.get(field.name), pa.field(field.name, storage(field.type)))
    good = [
        (file, footer[1])
        for file, footer in zip(listing.files, footers, strict=True)
        if not isinstance(footer, str)
    ]
    for name in columns:
        problems += _disagreements(name, fields.get(name), good)
    if problems:
        more = f"; and {len(problems) - MAX_NAMED} more" if len(problems) > MAX_NAMED else ""
        raise DatasetError("; ".join(problems[:MAX_NAMED]) + more)
    return ParquetSource(listing, tuple(spans), pa.schema(list(fields.values())))


def _footer(listing: Listing, file: InputFile) -> tuple[pq.FileMetaData, pa.Schema] | str:
    try:
        with open_ranges(listing, file) as opened:
            parquet = pq.ParquetFile(opened)
            return parquet.metadata, named(parquet.schema_arrow)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as err:
        return f"{file.name} is not a readable Parquet file ({' '.join(str(err).split())})"


def _common(first: pa.Field | None, second: pa.Field) -> pa.Field:
    """The type of the first file; where that is null (all values missing), the other's."""
    return second if first is None or pa.types.is_null(first.type) else first


def _disagreements(
    name: str, field: pa.Field | None, schemas: Sequence[tuple[InputFile, pa.Schema]]
) -> Iterator[str]:
    if field is None:
        return
    for file, schema in schemas:
        if (count := schema.names.count(name)) != 1:
            found = (
                f"{count} columns {name!r}; rename them"
                if count
                else f"no column {name!r}, which other files have"
            )
            yield f"{file.name} has {found}"
            continue
        kind = storage(schema.field(name).type)
        if not pa.types.is_null(kind) and kind != field.type:
            yield f"{file.name} has column {name!r} as {kind}, other files as {field.type}"


def _open_stream(listing: Listing, file: InputFile, columns: tuple[str, ...]) -> BatchStream:
    """The file's row groups as batches of these columns, page by page: a group may not fit into memory."""
    opened = open_ranges(listing, file)
    parquet: list[pq.ParquetFile] = []  # opened with the first row: a damaged footer concerns rows

    def start(shard: Shard) -> Batches:
        if not parquet:
            parquet.append(pq.ParquetFile(opened, buffer_size=BUFFER_BYTES, pre_buffer=False))
        group = parquet[0].metadata.row_group(shard.row_group or 0)
        num_rows = batch_rows(group)
        return iter(
            parquet[0].iter_batches(
                num_rows, row_groups=[shard.row_group or 0], columns=list(columns), use_threads=False
            )
        )

    return BatchStream(file, start, opened.close)


def batch_rows(group: pq.RowGroupMetaData) -> int:
    """Rows that are decoded at once: about 16 MB of the group.

    Of all its columns: asking a damaged footer for one of them can end the process.
    """
    return max(1, min(MAX_BATCH_ROWS, BATCH_BYTES * group.num_rows // max(group.total_byte_size, 1)))
