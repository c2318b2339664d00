"""JSONL and CSV input: one pass at the start counts rows and remembers byte offsets; shards then seek.

Blank lines are not rows. CSV has a header line and only strings; an empty field is null.
Where a CSV row ends, csv.reader decides, the same one that reads its values: no second opinion loses a row.
"""

from __future__ import annotations

import csv
import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

import pyarrow as pa

from cogbatch.dataset.files import InputFile, Listing
from cogbatch.dataset.json_values import Kinds, note_kinds, parse_object, schema_of
from cogbatch.dataset.row_index import RowIndex, index_rows, spans_of, start_row
from cogbatch.dataset.rows import printable, row_error
from cogbatch.dataset.shards import Shard, Span
from cogbatch.dataset.source import Record, pad
from cogbatch.dataset.streams import GZIP_ERRORS, damage, kept, open_input
from cogbatch.errors import DatasetError
from cogbatch.images import DEFAULT_LIMITS
from cogbatch.types import RequestError

# Of a CSV field, as of a tar member and an image; Python's own limit is 131,072.
MAX_FIELD_CHARS = DEFAULT_LIMITS.max_bytes
csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD_CHARS))  # of the whole process

RawRow = bytes | list[str] | Exception  # a line of JSON; fields of CSV; or why there are none


@dataclass(frozen=True)
class LinesSource:
    """JSONL or CSV files (listing.format says which). headers: the column names of each CSV file."""

    listing: Listing
    indexes: tuple[RowIndex, ...]
    headers: tuple[tuple[str, ...], ...]
    schema: pa.Schema

    @property
    def spans(self) -> tuple[Span, ...]:
        return spans_of(self.indexes)

    def place(self, shard: Shard) -> Shard:
        return self.indexes[shard.file_index].place(shard)

    def records(self, shard: Shard, columns: Sequence[str]) -> Iterator[Record]:
        file, header = self.listing.files[shard.file_index], self.headers[shard.file_index]
        opener = functools.partial(_LineStream, self.listing, file)
        with kept((self.listing.fs, self.listing.folder, file), opener) as stream:
            yield from pad(_records(stream.rows(shard), header, columns), shard, file)


def open_lines(listing: Listing, *, limit: int | None = None) -> LinesSource:
    """Reads all files once, as streams, up to `limit` rows in all.

    Raises DatasetError: a file that cannot be read, is not gzip or has too many rows for that; a CSV file
    without a header, or names twice.
    """
    kinds = Kinds()
    indexes, headers = list[RowIndex](), list[tuple[str, ...]]()
    for file in listing.files:
        left = None if limit is None else limit - sum(index.num_rows for index in indexes)
        try:
            with open_input(listing, file) as opened:
                rows = _raw_rows(opened, listing.format, file)
                header = _header(rows, file) if listing.format == "csv" else ()
                headers.append(header)
                note_kinds(kinds, dict.fromkeys(header, ""))
                seen = _noting(rows, None if listing.format == "csv" else kinds)
                indexes.append(index_rows(seen, file, limit=left))
        except OSError as err:
            raise DatasetError(f"{file.name} cannot be read: {err.strerror or err}") from err
    source = LinesSource(listing, tuple(indexes), tuple(headers), schema_of(kinds))
    if not kinds and (limit is None or sum(index.num_rows for index in indexes) < limit):
        _refuse_what_is_no_json(source)
    return source


def _refuse_what_is_no_json(source: LinesSource) -> None:
    """A row that cannot be read is an error row; where none can, the input is something else."""
    first = next((span.file_index for span in source.spans if span.num_rows), None)
    if first is None:
        return
    record = next(source.records(source.place(Shard(0, first, 0, 1)), ()))
    if isinstance(record, RequestError):
        raise DatasetError(
            f"{source.listing.files[first].name}: no row is a JSON object; the first: {record.message};"
            " expected one object a line"
        )


class _LineStream:
    """The rows of one open file, forwards."""

    def __init__(self, listing: Listing, file: InputFile) -> None:
        self._opened = open_input(listing, file)
        self._rows_from = functools.partial(_raw_rows, self._opened, listing.format, file)
        self._rows: Iterator[tuple[int, RawRow]] = iter(())
        self._next_row: int | None = None

    def rows(self, shard: Shard) -> Iterator[RawRow]:
        """The shard's rows; fewer where the file ends before them."""
        start = start_row(shard)
        if self._next_row is None or not start <= self._next_row <= shard.first_row:
            self._opened.seek(shard.byte_offset or 0)
            self._rows, self._next_row = self._rows_from(), start
        skip = shard.first_row - self._next_row
        for _, raw in itertools.islice(self._rows, skip, skip + shard.num_rows):
            yield raw
        self._next_row = shard.first_row + shard.num_rows

    def close(self) -> None:
        self._opened.close()


def _records(rows: Iterator[RawRow], header: Sequence[str], columns: Sequence[str]) -> Iterator[Record]:
    for raw in rows:
        record = _parse(raw, header)
        yield {name: record.get(name) for name in columns} if isinstance(record, dict) else record


def _noting(rows: Iterator[tuple[int, RawRow]], kinds: Kinds | None) -> Iterator[int]:
    """The offsets of the rows; on the way, the kinds of values that JSON rows have."""
    for number, (offset, raw) in enumerate(rows):
        if number == 0 and isinstance(raw, ValueError):
            raise DatasetError(str(raw))
        if kinds is not None and isinstance(record := _parse(raw, ()), dict):
            note_kinds(kinds, record)
        yield offset


def _raw_rows(opened: IO[bytes], kind: str, file: InputFile) -> Iterator[tuple[int, RawRow]]:
    """(byte offset, row) of each row from where the file stands; the last one may be a gzip file's damage."""
    try:
        yield from _csv_rows(opened) if kind == "csv" else _text_rows(opened)
    except GZIP_ERRORS as err:
        at_byte = opened.tell()
        yield at_byte, damage(file, at_byte, err)


def _text_rows(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """(byte offset, line) of each row from where the file stands."""
    end = file.tell()
    for line in file:
        start, end = end, end + len(line)
        if line.strip():
            yield start, line


def _csv_rows(file: IO[bytes]) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """(byte offset, fields) of each row from where the file stands; after a bad row comes the next line.

    A field over the limit is read to its closing quote: what it holds is no row.
    """
    end, text = file.tell(), ""

    def lines() -> Iterator[str]:
        nonlocal end, text
        for chunk in file:
            for line in chunk.splitlines(keepends=True):  # at "\r" too, as csv.reader wants them
                # A byte that is not UTF-8 concerns its row only: it is refused there, as a surrogate.
                text = line.decode("utf-8" if end else "utf-8-sig", "surrogateescape")
                end += len(line)
                yield text

    rest = lines()
    reader = csv.reader(rest, strict=True)
    while True:
        start, first_line = end, reader.line_num
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as err:
            num_lines = reader.line_num - first_line
            if str(err).startswith("field larger than"):
                is_open = (num_lines > 1) != (text.count('"') % 2 == 1)  # a row goes on only within quotes
                while is_open and (line := next(rest, None)) is not None:
                    num_lines, is_open = num_lines + 1, line.count('"') % 2 == 0
            yield (
                start,
                csv.Error(f"{err}; {num_lines} lines; is a quote left open?") if num_lines > 1 else err,
            )
            continue
        if fields:
            yield start, fields


def _parse(raw: RawRow, header: Sequence[str]) -> dict[str, object] | RequestError:
    try:
        return parse_object(raw) if isinstance(raw, bytes) else _parse_csv(raw, header)
    except (ValueError, RecursionError, csv.Error) as err:
        return row_error("read", err)


def _parse_csv(raw: list[str] | Exception, header: Sequence[str]) -> dict[str, object]:
    values = _fields(raw)
    if len(values) != len(header):
        raise ValueError(f"{len(values)} fields; expected {len(header)} as in the header")
    return {name: value or None for name, value in zip(header, values, strict=True)}


def _fields(raw: list[str] | Exception) -> list[str]:
    if isinstance(raw, Exception):
        raise raw
    try:
        "".join(raw).encode()
    except UnicodeEncodeError as err:
        raise ValueError("not UTF-8 text; save the file as UTF-8") from err
    return raw


def _header(rows: Iterator[tuple[int, RawRow]], file: InputFile) -> tuple[str, ...]:
    raw = next(rows, (0, list[str]()))[1]
    assert not isinstance(raw, bytes)
    try:
        names = tuple(_fields(raw))
    except (ValueError, csv.Error) as err:
        raise DatasetError(f"{file.name}: the header line cannot be read: {err}") from err
    if len(set(names)) < len(names):
        raise DatasetError(
            f"{file.name}: column names twice in the header: {printable(', '.join(names)[:1000])}"
        )
    return names
