"""WebDataset input: tar files whose neighbouring members with one key are a row.

Columns: id (the key), image (the member that ends as an image), each ending ("txt", "json", "seg.png"), and
each key of a JSON member ("json.caption"). One pass at the start finds rows; shards read by byte offset.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from cogbatch.dataset.files import ENDINGS, InputFile, Listing
from cogbatch.dataset.json_values import Kinds, note_kinds, parse_object, schema_of
from cogbatch.dataset.row_index import RowIndex, index_rows, spans_of, start_row
from cogbatch.dataset.rows import clean, row_error
from cogbatch.dataset.shards import Shard, Span
from cogbatch.dataset.source import Record, pad
from cogbatch.dataset.streams import kept, open_input
from cogbatch.dataset.tar_samples import Sample, Value, tar_samples
from cogbatch.errors import DatasetError

IMAGES = tuple(ending.removeprefix(".") for ending in ENDINGS["folder"])
TEXTS = ("txt", "text", "json", "caption", "prompt", "cls", "id", "url")  # other members are bytes
MAX_ENDINGS = 1000  # that become columns: a key with dots in it makes an ending of its own


@dataclass(frozen=True)
class TarSource:
    """Tar files of one make."""

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
        opener = functools.partial(_TarStream, self.listing, file, columns)
        with kept((self.listing.fs, self.listing.folder, file, tuple(columns)), opener) as stream:
            yield from pad((_record(row, columns) for row in stream.rows(shard)), shard, file)


def open_webdataset(listing: Listing, *, limit: int | None = None) -> TarSource:
    """Reads all files once, as streams, up to `limit` rows in all.

    Raises DatasetError: a file that cannot be read, is no tar file, or is gzip with too many rows for that.
    """
    endings, kinds, indexes = dict[str, None](), Kinds(), list[RowIndex]()
    for file in listing.files:
        left = None if limit is None else limit - sum(index.num_rows for index in indexes)
        try:
            with open_input(listing, file) as opened:
                samples = tar_samples(opened, file, _is_json)
                indexes.append(index_rows(_noting(samples, endings, kinds), file, limit=left))
        except OSError as err:
            raise DatasetError(f"{file.name} cannot be read: {err.strerror or err}") from err
    return TarSource(listing, tuple(indexes), _schema(endings, kinds))


class _TarStream:
    """The samples of one open file, forwards; of skipped rows only the headers are read."""

    def __init__(self, listing: Listing, file: InputFile, columns: Sequence[str]) -> None:
        self._opened = open_input(listing, file)
        self._file, self._columns = file, columns
        self._samples: Iterator[tuple[int, Sample | ValueError]] = iter(())
        self._next_row: int | None = None
        self._skips = False

    def rows(self, shard: Shard) -> Iterator[Sample | ValueError]:
        """The shard's rows; fewer where the file ends before them."""
        start = start_row(shard)
        if self._next_row is None or not start <= self._next_row <= shard.first_row:
            self._opened.seek(shard.byte_offset or 0)
            self._samples, self._next_row = tar_samples(self._opened, self._file, self._is_wanted), start
        skip = shard.first_row - self._next_row
        self._skips = True
        for _ in itertools.islice(self._samples, skip):
            pass
        self._skips = False
        for _, sample in itertools.islice(self._samples, shard.num_rows):
            yield sample
        self._next_row = shard.first_row + shard.num_rows

    def close(self) -> None:
        self._opened.close()

    def _is_wanted(self, ending: str) -> bool:
        if self._skips:
            return False
        if ending in self._columns or ("image" in self._columns and _is_image(ending)):
            return True
        return _is_json(ending) and any(name.startswith(f"{ending}.") for name in self._columns)


def _noting(
    samples: Iterator[tuple[int, Sample | ValueError]], endings: dict[str, None], kinds: Kinds
) -> Iterator[int]:
    """The offsets of the samples; on the way, their endings and what is in JSON members."""
    for number, (offset, sample) in enumerate(samples):
        if isinstance(sample, ValueError):
            if number == 0:
                raise DatasetError(f"no tar file that can be read: {sample}")
            yield offset
            continue
        for ending, value in sample.members.items():
            if len(endings) < MAX_ENDINGS and clean(ending) == ending:
                endings[ending] = None
            if isinstance(value, bytes) and ending in endings:
                try:
                    note_kinds(kinds, parse_object(value), prefix=f"{ending}.")
                except (ValueError, RecursionError):
                    continue  # it is an error where the row is read
        yield offset


def _schema(endings: dict[str, None], kinds: Kinds) -> pa.Schema:
    fields = {"id": pa.string()}
    if any(_is_image(ending) for ending in endings):
        fields["image"] = pa.binary()
    for ending in endings:
        fields.setdefault(ending, pa.string() if _is_text(ending) else pa.binary())
    for field in schema_of(kinds):
        fields.setdefault(field.name, field.type)
    return pa.schema(list(fields.items()))


def _record(sample: Sample | ValueError, columns: Sequence[str]) -> Record:
    if isinstance(sample, ValueError):
        return row_error("read", sample)
    try:
        return {name: _value(sample, name) for name in columns}
    except (ValueError, RecursionError) as err:
        return row_error("read", err)


def _value(sample: Sample, column: str) -> object:
    """The column's value, None where the sample has none. Raises ValueError: a member that cannot be used."""
    members = sample.members
    if column == "id":
        return sample.key
    if column == "image":
        endings = [ending for ending in members if _is_image(ending)]
        plain = [ending for ending in endings if ending in IMAGES]  # "png" before "seg.png"
        return _bytes(members[(plain or endings)[0]]) if endings else None
    if column in members:
        data = _bytes(members[column])
        return data if data is None or not _is_text(column) else _text(data, column)
    for ending, value in members.items():
        if _is_json(ending) and column.startswith(f"{ending}.") and (data := _bytes(value)) is not None:
            return parse_object(data).get(column.removeprefix(f"{ending}."))
    return None


def _bytes(value: Value) -> bytes | None:
    if isinstance(value, ValueError):
        raise value
    return value


def _text(data: bytes, column: str) -> str:
    """A text file ends in a newline, which is no part of a prompt."""
    try:
        return data.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as err:
        raise ValueError(f"member {column!r} is not UTF-8 text; save it as UTF-8") from err


def _is_image(ending: str) -> bool:
    return ending.rpartition(".")[2] in IMAGES


def _is_text(ending: str) -> bool:
    return ending.rpartition(".")[2] in TEXTS


def _is_json(ending: str) -> bool:
    return ending.rpartition(".")[2] == "json"
