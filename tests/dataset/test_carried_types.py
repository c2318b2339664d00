"""A column of any Arrow type is carried with its values, through a part and its retry, or refused by name."""

from __future__ import annotations

import datetime as dt
import io
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cogbatch.dataset import Dataset, InputOptions, open_dataset
from cogbatch.dataset.parts import read_part, write_part
from cogbatch.dataset.retry import replace_rows
from cogbatch.dataset.schema import part_schema, record, rows_to_table
from cogbatch.errors import DatasetError
from cogbatch.types import RequestOutput

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
SECONDS = st.integers(-(2**31), 2**31)
TIMES = st.times().map(lambda time: time.replace(microsecond=0))
DAYS = st.dates(dt.date(1900, 1, 1), dt.date(2200, 1, 1))
# A type and values of it, as Python has them.
SIMPLE: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.null(), st.none()),
    (pa.bool_(), st.booleans()),
    *((kind, st.integers(0, 127)) for kind in (pa.int8(), pa.uint8(), pa.int16(), pa.uint32(), pa.uint64())),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    *((kind, st.integers(-9, 9).map(float)) for kind in (pa.float16(), pa.float32())),
    (pa.float64(), st.floats(allow_nan=False)),
    *((kind, TEXT) for kind in (pa.string(), pa.large_string(), pa.string_view())),
    (pa.dictionary(pa.int8(), pa.string()), TEXT),
    *((kind, st.binary(max_size=4)) for kind in (pa.binary(), pa.large_binary(), pa.binary_view())),
    (pa.binary(3), st.binary(min_size=3, max_size=3)),
    *((kind, DAYS) for kind in (pa.date32(), pa.date64())),
    *((kind, TIMES) for kind in (pa.time32("s"), pa.time32("ms"), pa.time64("us"))),
    *((pa.timestamp(unit), SECONDS) for unit in ("s", "ms", "us", "ns")),
    (pa.timestamp("s", "Europe/Berlin"), SECONDS),
    *((pa.duration(unit), SECONDS) for unit in ("s", "ns")),
    (pa.decimal128(5, 1), st.integers(-99, 99).map(lambda n: Decimal(n) / 2)),
    (pa.decimal32(5, 1), st.integers(-99, 99).map(lambda n: Decimal(n) / 2)),
]
Typed = tuple[pa.DataType, st.SearchStrategy[Any]]


def nested(inner: Typed) -> st.SearchStrategy[Typed]:
    """Types that hold values of this one."""
    kind, values = inner
    some = st.none() | values
    lists = st.lists(some, max_size=3)
    return st.sampled_from(
        [
            (pa.list_(kind), lists),
            (pa.large_list(kind), lists),
            (pa.list_(kind, 2), st.lists(some, min_size=2, max_size=2)),
            (pa.struct([("a", kind), ("b.c", pa.int8())]), st.fixed_dictionaries({"a": some})),
            (pa.map_(pa.string(), kind), st.lists(st.tuples(TEXT, some), max_size=2)),
        ]
    )


TYPED = st.recursive(st.sampled_from(SIMPLE), lambda inner: inner.flatmap(nested), max_leaves=3)


@st.composite
def columns(draw: st.DrawFn) -> pa.Array:
    """A column of some type with three values."""
    kind, values = draw(TYPED)
    return pa.array(draw(st.lists(st.none() | values, min_size=3, max_size=3)), kind)


def arrow_file(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def parquet_file(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def carrying(path: Path, *names: str) -> Dataset:
    kind = "huggingface" if path.suffix == ".arrow" else "auto"
    return open_dataset(InputOptions(str(path), kind, image_column=None, prompt="say", columns=names))


def table_of(dataset: Dataset, *, job: str = "j") -> pa.Table:
    (shard,) = dataset.shards()
    output = RequestOutput("")
    rows = [record(row, output, model_fingerprint="m", job_fingerprint=job) for row in dataset.read(shard)]
    return rows_to_table(rows, carried=dataset.carried)


def same(value: object) -> object:
    """What counts as the same value: unit and time zone of a time are of its type."""
    if isinstance(value, dt.datetime):
        return value.replace(tzinfo=None)
    if isinstance(value, dict):
        return {key: same(inner) for key, inner in value.items()}
    return [same(inner) for inner in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_any_type_goes_through_a_part_and_its_retry_with_its_values(tmp_path: Path, count: int) -> None:
    @settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))
    @given(column=columns())
    def holds(column: pa.Array) -> None:
        check_a_part_and_its_retry(tmp_path, column)

    holds()


def check_a_part_and_its_retry(tmp_path: Path, column: pa.Array) -> None:
    table, dictionary = pa.table({"x": column}), "dictionary" in str(column.type)
    path = tmp_path / ("a.parquet" if dictionary else "a.arrow")
    path.write_bytes(parquet_file(table) if dictionary else arrow_file(table))
    dataset = carrying(path, "x")
    table = table_of(dataset)
    assert table["error"].null_count == 3
    name = "part-0-0-3.parquet"
    write_part(tmp_path, name, table)
    part = read_part(tmp_path, name)
    assert part.schema.equals(part_schema(dataset.carried)), "read as it was written"
    replaced = replace_rows(part, (1,), table.slice(1, 1))
    write_part(tmp_path, name, replaced)
    again = read_part(tmp_path, name)
    assert again.schema.equals(part.schema)
    assert same(again["x"].to_pylist()) == same(column.to_pylist())


UNION = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])
REFUSED = {
    "struct<>": pa.array([{}], pa.struct([])),
    "list<item: struct<>>": pa.array([[{}]], pa.list_(pa.struct([]))),
    "month_day_nano_interval": pa.array([(1, 2, 3)], pa.month_day_nano_interval()),
    "run_end_encoded<run_ends: int32, values: int64>": pa.RunEndEncodedArray.from_arrays(
        pa.array([1], pa.int32()), [7]
    ),
    "list_view<item: int8>": pa.array([[1]], pa.list_view(pa.int8())),
    "fixed_size_list<item: int8>[0]": pa.array([[]], pa.list_(pa.int8(), 0)),
    "sparse_union<0: int64=0>": UNION,
    "fixed_size_binary[0]": pa.array([b""], pa.binary(0)),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_type_that_parts_cannot_hold_is_refused_by_name_before_anything_starts(tmp_path, kind) -> None:
    path = tmp_path / "a.arrow"
    path.write_bytes(arrow_file(pa.table({"good": [1], "x": REFUSED[kind]})))
    with pytest.raises(DatasetError) as caught:
        carrying(path, "good", "x")
    assert str(caught.value).endswith(f"input.columns: 'x' is {kind}, which parts cannot hold; leave it out")
    assert carrying(path, "good").num_rows == 1, "only what is carried must fit"


def test_messages_whose_tool_is_always_null_are_carried(tmp_path) -> None:
    messages = [[{"role": "user", "tool": None}, {"role": "assistant", "tool": None}], None, []]
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet_file(pa.table({"messages": messages})))
    dataset = carrying(path, "messages")
    write_part(tmp_path, "part-0-0-3.parquet", table_of(dataset))
    assert read_part(tmp_path, "part-0-0-3.parquet")["messages"].to_pylist() == messages
    kind = pa.list_(pa.struct([("role", pa.string()), ("tool", pa.string())]))
    assert dataset.carried.field("messages").type == kind


def test_parts_with_all_types_of_time_can_be_joined_with_new_rows(tmp_path) -> None:
    """Parquet has no seconds, so that a part read back was once of another schema than new rows."""
    times = {
        "s": pa.array([1], pa.timestamp("s")),
        "clock": pa.array([1], pa.time32("s")),
        "day": pa.array([86_400_000], pa.date64()),
        "view": pa.array(["x"], pa.string_view()),
    }
    path = tmp_path / "a.arrow"
    path.write_bytes(arrow_file(pa.table(times)))
    new = table_of(carrying(path, *times))
    write_part(tmp_path, "part-0-0-1.parquet", new)
    replaced = replace_rows(read_part(tmp_path, "part-0-0-1.parquet"), (0,), new)
    assert [replaced[name].to_pylist() for name in times] == [a.to_pylist() for a in times.values()]


def test_row_groups_with_dictionaries_of_their_own_become_one_part(tmp_path) -> None:
    values = [f"{number}" for number in range(300)]
    groups = [pa.array(values[start : start + 100]).dictionary_encode() for start in (0, 100, 200)]
    kind = pa.dictionary(pa.int8(), pa.string())
    path = tmp_path / "a.parquet"
    with pq.ParquetWriter(path, pa.schema([("x", kind)])) as writer:
        for group in groups:
            writer.write_table(pa.table({"x": group.cast(kind)}))
    dataset = carrying(path, "x")
    records = [
        record(row, RequestOutput(""), model_fingerprint="m", job_fingerprint="j")
        for shard in dataset.shards(100)
        for row in dataset.read(shard)
    ]
    assert rows_to_table(records, carried=dataset.carried)["x"].to_pylist() == values
