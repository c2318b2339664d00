"""One value at a time: as Python has it, or as a carried column of a part has it. No files are opened.

A carried column has a type that Parquet gives back as it took it: parts that were read, and replaced, and
written again stay of one schema.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from cogbatch.dataset.json_values import fit
from cogbatch.dataset.rows import clean

# What may be wrong with a value: not UTF-8, out of range, an unknown time zone, nested without end.
UNUSABLE = (pa.ArrowException, ValueError, OverflowError, RecursionError)


def storage(kind: pa.DataType) -> pa.DataType:
    """The type that a value is stored as."""
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def named(schema: pa.Schema) -> pa.Schema:
    """The schema. Raises UnicodeDecodeError: the name of a column is no text, which Arrow does not check."""
    len(schema.names)  # decodes them
    return schema


def plain(value: object) -> object:
    """The Python value of an Arrow scalar; times as text, which loses nothing. Raises UNUSABLE."""
    if not isinstance(value, pa.Scalar):
        return value
    is_time = pa.types.is_temporal(value.type) and not pa.types.is_interval(value.type)
    return value.cast(pa.string()).as_py() if is_time else value.as_py()


def carried_type(kind: pa.DataType) -> pa.DataType | None:
    """The type of a column once it has been in Parquet, which has no seconds; None: it cannot be there."""
    try:
        column = pa.nulls(0, kind).cast(_spelled_out(kind))
        found = _in_parquet(column)
        return found if _in_parquet(column.cast(found)).equals(found) else None
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        return None


def carry(value: object, kind: pa.DataType) -> object:
    """The value as one of a carried type. Raises UNUSABLE: the type cannot hold it, or it is not UTF-8."""
    if isinstance(value, pa.Scalar):
        column = pa.repeat(value, 1)
        column = column if column.type.equals(kind) else column.cast(kind)
        column.validate(full=True)
        return column[0]
    value = fit(value, kind)
    value = clean(value) if isinstance(value, str) else value
    pa.scalar(value, kind)
    return value


def column_of(values: Iterable[object], kind: pa.DataType) -> pa.Array:
    """Carried values as a column. Not by pa.array, which knows fewer types of scalars."""
    return pa.concat_arrays([pa.nulls(0, kind), *(_column_of_one(value, kind) for value in values)])


def _spelled_out(kind: pa.DataType) -> pa.DataType:
    """The type without what goes wrong in a part: dictionaries as their values, since a dictionary is bad as
    soon as one of its values is; values of which only nulls are known as strings, as those of JSON are; views
    as what they show, since not all can be written.

    Raises pa.ArrowNotImplementedError: list views, which come out of a cast damaged, and lists of no items,
    which cannot be read again.
    """
    if pa.types.is_dictionary(kind):
        return _spelled_out(kind.value_type)
    sized = pa.types.is_fixed_size_list(kind)
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind) or (sized and kind.list_size == 0):
        raise pa.ArrowNotImplementedError(str(kind))
    if pa.types.is_null(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_struct(kind):
        return pa.struct([_inner(field) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_inner(kind.key_field), _inner(kind.item_field), kind.keys_sorted)
    if sized:
        return pa.list_(_inner(kind.value_field), kind.list_size)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return (pa.list_ if pa.types.is_list(kind) else pa.large_list)(_inner(kind.value_field))
    return kind


def _inner(field: pa.Field) -> pa.Field:
    """Raises UnicodeDecodeError: its name is no text."""
    return pa.field(field.name, _spelled_out(field.type), field.nullable)


def _column_of_one(value: object, kind: pa.DataType) -> pa.Array:
    return pa.repeat(value, 1) if isinstance(value, pa.Scalar) else pa.array([value], kind)


def _in_parquet(column: pa.Array) -> pa.DataType:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"column": column}), sink)
    return pq.read_table(pa.BufferReader(sink.getvalue())).schema.field(0).type
