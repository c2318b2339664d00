"""JSONL and CSV input: one pass at the start counts rows and remembers byte offsets; shards then seek.

Blank lines are not rows. JSON values keep their type where a column has one (bool, int64, double, string);
other columns are carried as JSON text. CSV has a header line and only strings; an empty field is null.
Where a CSV row ends, csv.reader decides, the same one that reads its values: no second opinion loses a row.
"""

from __future__ import annotations

import csv
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

RawRow = bytes | list[str] | csv.Error  # a line of JSON; fields of CSV, or why there are none

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
            raw_rows = _raw_rows(opened, self.listing.format)
            for _, raw in itertools.islice(raw_rows, shard.skip_rows, shard.skip_rows + shard.num_rows):
                record = _parse(raw, index.header)
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
        raw_rows: Iterator[tuple[int, RawRow]] = _text_rows(opened)
        header: tuple[str, ...] = ()
        if listing.format == "csv":
            raw_rows = csv_rows = _csv_rows(opened)
            header = _header(next(csv_rows, (0, []))[1], file)
        for name in header:
            types.setdefault(name, set()).add("str")
        for offset, raw in raw_rows:
            if num_rows % STRIDE == 0:
                offsets.append(offset)
            num_rows += 1
            record = None if header else _parse(raw, header)  # the types of CSV are known
            for name, value in record.items() if isinstance(record, dict) else ():
                types.setdefault(name, set()).add(_kind(value))
    return FileIndex(num_rows, offsets, header)


def _raw_rows(file: IO[bytes], kind: str) -> Iterator[tuple[int, RawRow]]:
    return _csv_rows(file) if kind == "csv" else _text_rows(file)


def _text_rows(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """(byte offset, line) of each row from where the file stands."""
    end = file.tell()
    for line in file:
        start, end = end, end + len(line)
        if line.strip():
            yield start, line


def _csv_rows(file: IO[bytes]) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """(byte offset, fields) of each row from where the file stands; after a bad row comes the next line."""
    end = file.tell()

    def lines() -> Iterator[str]:
        nonlocal end
        for chunk in file:
            for line in chunk.splitlines(keepends=True):  # at "\r" too, as csv.reader wants them
                # A byte that is not UTF-8 concerns its row only: it is refused there, as a surrogate.
                text = line.decode("utf-8" if end else "utf-8-sig", "surrogateescape")
                end += len(line)
                yield text

    reader = csv.reader(lines(), strict=True)
    while True:
        start, first_line = end, reader.line_num
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as err:
            num_lines = reader.line_num - first_line
            yield (
                start,
                csv.Error(f"{err}; {num_lines} lines; is a quote left open?") if num_lines > 1 else err,
            )
            continue
        if fields:
            yield start, fields


def _parse(raw: RawRow, header: Sequence[str]) -> dict[str, object] | RequestError:
    try:
        return _parse_json(raw) if isinstance(raw, bytes) else _parse_csv(raw, header)
    except (ValueError, RecursionError, csv.Error) as err:
        return row_error("read", err)


def _parse_json(text: bytes) -> dict[str, object]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as err:
        raise ValueError(f"not valid JSON at character {err.pos + 1}: {err.msg}") from err
    if not isinstance(value, dict):
        raise ValueError(f"a JSON {type(value).__name__}; expected an object with column names as keys")
    return value


def _parse_csv(raw: list[str] | csv.Error, header: Sequence[str]) -> dict[str, object]:
    values = _fields(raw)
    if len(values) != len(header):
        raise ValueError(f"{len(values)} fields; expected {len(header)} as in the header")
    return {name: value or None for name, value in zip(header, values, strict=True)}


def _fields(raw: list[str] | csv.Error) -> list[str]:
    if isinstance(raw, csv.Error):
        raise raw
    try:
        "".join(raw).encode()
    except UnicodeEncodeError as err:
        raise ValueError("not UTF-8 text; save the file as UTF-8") from err
    return raw


def _header(raw: list[str] | csv.Error, file: InputFile) -> tuple[str, ...]:
    try:
        names = tuple(_fields(raw))
    except (ValueError, csv.Error) as err:
        raise DatasetError(f"{file.path}: the header line cannot be read: {err}") from err
    if len(set(names)) < len(names):
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
