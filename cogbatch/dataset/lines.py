"""JSONL and CSV input: one pass at the start counts rows and remembers byte offsets; shards then seek.

Blank lines are not rows. JSON values keep their type where a column has one (bool, int64, double, string);
other columns are carried as JSON text. CSV has a header line and only strings; an empty field is null.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import IO

import pyarrow as pa

from cogbatch.dataset.files import InputFile, Listing
from cogbatch.dataset.rows import row_error
from cogbatch.dataset.shards import Shard, Span
from cogbatch.dataset.source import Record, open_input
from cogbatch.errors import DatasetError
from cogbatch.types import RequestError

STRIDE = 64  # rows between two remembered offsets: 8 bytes per 64 rows, at most 63 lines skipped per shard


@dataclass(frozen=True)
class FileIndex:
    """Where rows are in one file: byte offsets of rows 0, 64, 128, ...; header: the names of a CSV file."""

    num_rows: int
    offsets: array[int]
    header: tuple[str, ...]


@dataclass(frozen=True)
class LinesSource:
    """JSONL or CSV files (listing.format says which)."""

    listing: Listing
    indexes: tuple[FileIndex, ...]
    schema: pa.Schema

    @property
    def spans(self) -> tuple[Span, ...]:
        return tuple(Span(number, 0, index.num_rows) for number, index in enumerate(self.indexes))

    def place(self, shard: Shard) -> Shard:
        offset = self.indexes[shard.file_index].offsets[shard.first_row // STRIDE]
        return replace(shard, byte_offset=offset, skip_rows=shard.first_row % STRIDE)

    def records(self, shard: Shard, columns: Sequence[str]) -> Iterator[Record]:
        index = self.indexes[shard.file_index]
        file = self.listing.files[shard.file_index]
        read = 0
        with open_input(self.listing.protocol, self.listing.folder, file.path) as opened:
            opened.seek(shard.byte_offset or 0)
            texts = _texts(opened, self.listing.format)
            for _, text in itertools.islice(texts, shard.skip_rows, shard.skip_rows + shard.num_rows):
                record = _parse(text, index.header)
                if isinstance(record, dict):
                    record = {name: record.get(name) for name in columns}
                read += 1
                yield record
        changed = RequestError(
            "read", "DatasetError", f"{file.path} has become shorter since the job started"
        )
        yield from [changed] * (shard.num_rows - read)


def open_lines(listing: Listing) -> LinesSource:
    """Reads all files once, as streams. Raises DatasetError: a CSV file without a header, or names twice."""
    types: dict[str, set[str]] = {}
    indexes = tuple(_index(listing, file, types) for file in listing.files)
    schema = pa.schema([(name, _column_type(kinds)) for name, kinds in types.items()])
    return LinesSource(listing, indexes, schema)


def fit(value: object, kind: pa.DataType) -> object:
    """A JSON or CSV value as the column's type has it: text of what is no text, int as float."""
    if value is None or isinstance(value, str):
        return value
    if pa.types.is_string(kind):
        return json.dumps(value, ensure_ascii=False)
    return float(value) if pa.types.is_floating(kind) and isinstance(value, int) else value


def _index(listing: Listing, file: InputFile, types: dict[str, set[str]]) -> FileIndex:
    """One pass: offsets, and into `types` the kinds of values seen per column."""
    offsets, num_rows = array("q"), 0
    with open_input(listing.protocol, listing.folder, file.path) as opened:
        texts = _texts(opened, listing.format)
        header = _header(next(texts, (0, b""))[1], file) if listing.format == "csv" else ()
        for name in header:
            types.setdefault(name, set()).add("str")
        for offset, text in texts:
            if num_rows % STRIDE == 0:
                offsets.append(offset)
            num_rows += 1
            record = None if header else _parse(text, header)  # the types of CSV are known
            for name, value in record.items() if isinstance(record, dict) else ():
                types.setdefault(name, set()).add(_kind(value))
    return FileIndex(num_rows, offsets, header)


def _texts(file: IO[bytes], kind: str) -> Iterator[tuple[int, bytes]]:
    """(byte offset, text) of each row from where the file stands: a line; for CSV, up to closed quotes."""
    offset = file.tell()
    lines: list[bytes] = []
    is_open = False
    for line in file:
        lines.append(line)
        if kind == "csv" and line.count(b'"') % 2:  # a doubled quote counts two
            is_open = not is_open
        if is_open:
            continue
        text = b"".join(lines)
        if text.strip():
            yield offset, text
        offset += len(text)
        lines.clear()
    if lines:
        yield offset, b"".join(lines)


def _parse(text: bytes, header: Sequence[str]) -> dict[str, object] | RequestError:
    try:
        return _parse_csv(text, header) if header else _parse_json(text)
    except (ValueError, RecursionError, csv.Error) as err:
        return row_error("read", err)


def _parse_json(text: bytes) -> dict[str, object]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"a JSON {type(value).__name__}; expected an object with column names as keys")
    return value


def _parse_csv(text: bytes, header: Sequence[str]) -> dict[str, object]:
    values = _fields(text)
    if len(values) != len(header):
        raise ValueError(f"{len(values)} fields; expected {len(header)} as in the header")
    return {name: value or None for name, value in zip(header, values, strict=True)}


def _fields(text: bytes) -> list[str]:
    return next(csv.reader(io.StringIO(text.decode("utf-8-sig"), newline=""), strict=True))


def _header(text: bytes, file: InputFile) -> tuple[str, ...]:
    try:
        names = tuple(_fields(text)) if text else ()
    except (ValueError, csv.Error) as err:
        raise DatasetError(f"{file.path}: the header line cannot be read: {err}") from err
    if text and len(set(names)) < len(names):
        raise DatasetError(f"{file.path}: column names twice in the header: {', '.join(names)}")
    return names


def _kind(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        return "other"
    name = type(value).__name__
    return name if name in ("NoneType", "bool", "int", "float", "str") else "other"


def _column_type(kinds: set[str]) -> pa.DataType:
    kinds = kinds - {"NoneType"}
    if kinds == {"bool"}:
        return pa.bool_()
    if kinds == {"int"}:
        return pa.int64()
    return pa.float64() if kinds in ({"float"}, {"int", "float"}) else pa.string()
