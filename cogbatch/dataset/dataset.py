"""A dataset: files of one format as shards of rows, each with id, image and prompt. No torch, no Ray."""

from __future__ import annotations

import difflib
import functools
import hashlib
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from cogbatch.dataset.arrow import open_arrow
from cogbatch.dataset.files import InputFile, Listing, fingerprint, list_input
from cogbatch.dataset.known import KnownInput, found_in, known_source
from cogbatch.dataset.lines import open_lines
from cogbatch.dataset.options import InputOptions
from cogbatch.dataset.parquet import open_parquet
from cogbatch.dataset.references import ImageRoot, image_root
from cogbatch.dataset.rows import Row, as_text, clean, make_id, printable, row_error
from cogbatch.dataset.schema import RESERVED
from cogbatch.dataset.shards import Shard, Span, cut, first_rows
from cogbatch.dataset.source import Record, Source, open_folder
from cogbatch.dataset.values import UNUSABLE, carried_type, carry, plain
from cogbatch.dataset.webdataset import open_webdataset
from cogbatch.errors import DatasetError, ImageError
from cogbatch.images import ImageLimits
from cogbatch.redact import shown, without_secrets
from cogbatch.types import RequestError

NAMED_BY_KEY = ("folder", "webdataset")  # formats that have a column id of their own
MAX_NAMED = 20  # columns in one message


@dataclass(frozen=True)
class Dataset:
    """An opened input. A plain value that can be pickled: workers get it and read their shards from it.

    Args:
        files: in the order of Shard.file_index; an image folder is one virtual file, ".".
        fingerprint: sha256 that identifies the files, wherever they lie.
        carried: the columns that are carried to the output, with their types there.
        spans: the rows of the job (limit applied), in pieces that no shard crosses.
    """

    options: InputOptions
    files: tuple[InputFile, ...]
    fingerprint: str
    carried: pa.Schema
    spans: tuple[Span, ...]
    source: Source
    images: ImageRoot
    id_columns: tuple[str, ...]

    @property
    def num_rows(self) -> int:
        """Rows of the job."""
        return sum(span.num_rows for span in self.spans)

    @property
    def image_limits(self) -> ImageLimits:
        """What load_image is told of the images of this input."""
        return self.options.image_limits

    def shards(self, shard_size: int | Literal["auto"] = "auto") -> tuple[Shard, ...]:
        """All rows once, in order, in shards of at most shard_size rows.

        Raises ValueError: shard_size below 1. DatasetError: more than 100,000 shards.
        """
        return tuple(self.source.place(shard) for shard in cut(self.spans, shard_size))

    def read(self, shard: Shard) -> Iterator[Row]:
        """The shard's rows, exactly shard.num_rows. What is wrong with one row is in its error.

        Raises OSError: the file is gone, or its storage does not answer.
        """
        for offset, record in enumerate(self.source.records(shard, self._columns)):
            yield self._row(self.files[shard.file_index].path, shard.first_row + offset, record)

    def count_duplicate_ids(self) -> int:
        """How many rows have the id of an earlier row. Reads the id columns; 8 bytes of memory a row.

        By 8-byte hashes: for 10 million ids the odds of counting one too many are about 3 in a million.
        """
        if not self.id_columns:
            return 0
        hashes = array("Q")
        for shard in map(self.source.place, cut(self.spans, self.num_rows)):
            file = self.files[shard.file_index].path
            for offset, record in enumerate(self.source.records(shard, self.id_columns)):
                name = self._id(file, shard.first_row + offset, record)
                hashes.append(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()))
        return len(hashes) - len(np.unique(np.frombuffer(hashes, dtype=np.uint64)))

    def found(self) -> dict[str, Any]:
        """What job.json keeps for known_input, beside the shards."""
        return found_in(self.source, self._columns)

    @property
    def _columns(self) -> tuple[str, ...]:
        return _asked_columns(self.options, self.id_columns)

    def _row(self, file: str, number: int, record: Record) -> Row:
        name = self._id(file, number, record)
        try:
            if not isinstance(record, RequestError):
                return self._readable_row(file, number, name, record)
            error = record
        except UNUSABLE as err:
            error = row_error("read", err)
        nothing = dict.fromkeys(self.carried.names)
        return Row(file, number, name, prompt=self.options.prompt or "", carried=nothing, error=error)

    def _readable_row(self, file: str, number: int, name: str, record: Mapping[str, object]) -> Row:
        """The row, whose prompt and image may still be wrong. Raises UNUSABLE: a value cannot be read."""
        options = self.options
        for column in self.id_columns:
            _of(record, column, plain)
        carried = {
            field.name: _of(record, field.name, functools.partial(carry, kind=field.type))
            for field in self.carried
        }
        asked = _of(record, options.prompt_column, plain)
        value = _of(record, options.image_column, plain)
        image, reference, prompt, error = None, None, "", None
        try:
            prompt = self._prompt(asked)
        except ValueError as err:
            error = row_error("prompt", err)
        try:
            image, reference = (None, _reference(value)) if error else self.images.resolve(value)
        except ImageError as err:
            reference, error = _reference(value), row_error("image", err)
        return Row(file, number, name, image, reference, prompt, carried, error)

    def _id(self, file: str, number: int, record: Record) -> str:
        """The id; that of a row without one where its columns cannot be read."""
        try:
            values = [] if isinstance(record, RequestError) else [plain(record[c]) for c in self.id_columns]
            return make_id(values, input_file=file, input_row=number)
        except UNUSABLE:
            return make_id((), input_file=file, input_row=number)

    def _prompt(self, value: object) -> str:
        prompt = self.options.prompt if value is None else value
        if not isinstance(prompt, str):
            kind = "no value" if prompt is None else type(prompt).__name__
            raise ValueError(f"column {self.options.prompt_column!r}: {kind}; expected text")
        return clean(prompt)


def open_dataset(options: InputOptions, *, known: KnownInput | None = None) -> Dataset:
    """Lists the input, reads what is needed to cut it into shards, and checks everything that can be checked.

    Args:
        known: what an earlier start found; if the files are the same, those without an index are not read.

    Raises DatasetError: one line with all that is wrong.
    """
    problems, where = list(_option_problems(options)), shown(options.path)
    try:
        listing = list_input(options)
        id_columns = options.id_columns or (("id",) if listing.format in NAMED_BY_KEY else ())
        asked = _asked_columns(options, id_columns)
        source = known_source(listing, known) or _open_source(listing, options, asked)
    except DatasetError as err:
        raise DatasetError(f"input {where}: {'; '.join([*problems, str(err)])}") from err
    spans = first_rows(source.spans, options.limit)
    if not spans:
        problems.append("no rows; expected at least one")
    else:
        problems += _column_problems(options, source.schema)
    root = image_root(options.image_root, listing)
    if root.protocol == "file" and not Path(root.folder).is_dir():
        problems.append(f"input.image_root: {options.image_root!r} is not a directory")
    if problems:
        raise DatasetError(f"input {where}: {'; '.join(problems)}")
    mark = fingerprint(listing.files)
    files = tuple(replace(file, path=file.name) for file in listing.files)
    if listing.format == "folder":
        files = (InputFile(".", sum(file.size_bytes for file in files), mark),)
    return Dataset(
        options=options,
        files=files,
        fingerprint=mark,
        carried=pa.schema([(name, carried_type(source.schema.field(name).type)) for name in options.columns]),
        spans=spans,
        source=source,
        images=root,
        id_columns=id_columns,
    )


def _open_source(listing: Listing, options: InputOptions, asked: Sequence[str]) -> Source:
    match listing.format:
        case "folder":
            return open_folder([file.path for file in listing.files])
        case "parquet":
            return open_parquet(listing, asked)
        case "webdataset":
            return open_webdataset(listing, limit=options.limit)
        case "huggingface":
            return open_arrow(listing)
        case _:
            return open_lines(listing, limit=options.limit)


def _asked_columns(options: InputOptions, id_columns: Sequence[str]) -> tuple[str, ...]:
    named = (*id_columns, options.image_column, options.prompt_column, *options.columns)
    return tuple(dict.fromkeys(name for name in named if name is not None))


def _option_problems(options: InputOptions) -> Iterator[str]:
    if options.prompt is None and options.prompt_column is None:
        yield "neither input.prompt nor input.prompt_column is set; set one"
    if options.limit is not None and options.limit < 1:
        yield f"input.limit is {options.limit}, expected at least 1"
    taken = [name for name in options.columns if name in RESERVED]
    if taken:
        yield f"input.columns: {', '.join(taken)}: columns that the output has itself; rename them"
    twice = sorted({name for name in options.columns if options.columns.count(name) > 1})
    if twice:
        yield f"input.columns: {', '.join(twice)} twice; name each once"


def _column_problems(options: InputOptions, schema: pa.Schema) -> Iterator[str]:
    roles = [("id_column", name) for name in options.id_columns]
    roles += [("image_column", options.image_column)] if options.image_column else []
    roles += [("prompt_column", options.prompt_column)] if options.prompt_column else []
    roles += [("columns", name) for name in options.columns]
    for role, name in roles:
        if schema.names.count(name) > 1:
            yield f"input.{role}: {schema.names.count(name)} columns {name!r}; rename them in the input"
        elif name not in schema.names:
            near = difflib.get_close_matches(name, schema.names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            yield f"input.{role}: no column {name!r}, there are {_some(schema.names) or 'none'}{hint}"
        elif role == "image_column" and not _may_be_image(schema.field(name).type):
            yield f"input.image_column: {name!r} is {schema.field(name).type}; expected bytes, text or struct"
        elif role == "prompt_column" and not _is_text(schema.field(name).type):
            yield f"input.prompt_column: {name!r} is {schema.field(name).type}; expected text"
        elif role == "columns" and carried_type(schema.field(name).type) is None:
            kind = printable(str(schema.field(name).type)[:200])
            yield f"input.columns: {name!r} is {kind}, which parts cannot hold; leave it out"


def _some(names: Sequence[str]) -> str:
    first = ", ".join(printable(name[:100]) for name in names[:MAX_NAMED])
    return first + (f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else "")


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    return any(test(kind) for test in tests)


def _may_be_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return bool({field.name for field in kind} & {"bytes", "path"})
    tests = (
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_binary_view,
        pa.types.is_fixed_size_binary,
    )
    return _is_text(kind) or any(test(kind) for test in tests)


def _of(record: Mapping[str, object], column: str | None, convert: Callable[[object], object]) -> object:
    """The converted value of a column, None without one. Raises ValueError: the column, and why not."""
    try:
        return None if column is None or record[column] is None else convert(record[column])
    except UNUSABLE as err:
        raise ValueError(f"column {column!r}: {err}") from err


def _reference(value: object) -> str | None:
    """What the output says of an image that could not be resolved."""
    if value is None or isinstance(value, bytes | dict):
        return None
    return without_secrets(as_text(value), whole=True)
