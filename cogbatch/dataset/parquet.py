"""Parquet input: shards are row ranges of one row group, and only the asked columns are read."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from cogbatch.dataset.files import InputFile, Listing
from cogbatch.dataset.rows import row_error
from cogbatch.dataset.shards import Shard, Span
from cogbatch.dataset.source import Record, open_input
from cogbatch.errors import DatasetError

FOOTER_THREADS = 16
MAX_NAMED = 5  # files in one message


@dataclass(frozen=True)
class ParquetSource:
    """Parquet files with the same columns, as far as they are asked for."""

    listing: Listing
    spans: tuple[Span, ...]
    schema: pa.Schema

    def place(self, shard: Shard) -> Shard:
        return shard

    def records(self, shard: Shard, columns: Sequence[str]) -> Iterator[Record]:
        listing, file = self.listing, self.listing.files[shard.file_index]
        try:
            group = _row_group(listing.protocol, listing.folder, file, shard.row_group or 0, tuple(columns))
        except (pa.ArrowException, OSError) as err:
            if isinstance(err, OSError) and err.errno is not None:
                raise  # the storage, not the data: worth another attempt
            yield from [row_error("read", err)] * shard.num_rows  # a damaged page: Arrow gives no errno
            return
        rows = group.slice(shard.skip_rows, shard.num_rows)
        for row in range(shard.num_rows):
            yield {name: _value(rows.column(name)[row]) for name in columns}


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
            fields[field.name] = _common(fields.get(field.name), pa.field(field.name, _storage(field.type)))
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
        with open_input(listing.protocol, listing.folder, file.path) as opened:
            parquet = pq.ParquetFile(opened)
            return parquet.metadata, parquet.schema_arrow
    except (pa.ArrowException, OSError) as err:
        return f"{file.path} is not a readable Parquet file ({' '.join(str(err).split())})"


def _common(first: pa.Field | None, second: pa.Field) -> pa.Field:
    """The type of the first file; where that is null (all values missing), the other's."""
    return second if first is None or pa.types.is_null(first.type) else first


def _disagreements(
    name: str, field: pa.Field | None, schemas: Sequence[tuple[InputFile, pa.Schema]]
) -> Iterator[str]:
    if field is None:
        return
    for file, schema in schemas:
        if name not in schema.names:
            yield f"{file.path} has no column {name!r}, which other files have"
            continue
        kind = _storage(schema.field(name).type)
        if not pa.types.is_null(kind) and kind != field.type:
            yield f"{file.path} has column {name!r} as {kind}, other files as {field.type}"


# Neighbouring shards share a row group. One is kept: two may not fit into memory.
@functools.lru_cache(maxsize=1)
def _row_group(
    protocol: str, folder: str, file: InputFile, row_group: int, columns: tuple[str, ...]
) -> pa.Table:
    with open_input(protocol, folder, file.path) as opened:
        return pq.ParquetFile(opened).read_row_group(row_group, columns=list(columns))


def _storage(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _value(scalar: pa.Scalar) -> pa.Scalar | None:
    """Arrow's own scalar, because Python's values lose nanoseconds."""
    if not scalar.is_valid:
        return None
    return scalar.value if isinstance(scalar, pa.ExtensionScalar) else scalar
