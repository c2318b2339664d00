"""One value that cannot be used is one error row, whatever its column is for; its neighbours are fine."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cogbatch.dataset import InputOptions, Row, open_dataset
from cogbatch.dataset.schema import record, rows_to_table
from cogbatch.errors import DatasetError
from cogbatch.types import RequestOutput
from tests.dataset.inputs import add_member, every_row

PROMPT = "Describe."


def with_bytes(*values: bytes) -> pa.Array:
    """A string column with these bytes, UTF-8 or not."""
    column = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(column), column.buffers())


def read_all(path: Path, **options: object) -> list[Row]:
    """All rows, which become a table as a worker makes one."""
    dataset = open_dataset(InputOptions(str(path), **{"image_column": None, "prompt": PROMPT, **options}))
    assert dataset.count_duplicate_ids() == 0
    rows = every_row(dataset)
    records = [record(row, RequestOutput(""), model_fingerprint="m", job_fingerprint="j") for row in rows]
    table = rows_to_table(records, carried=dataset.carried)
    table.validate(full=True)
    assert table.num_rows == dataset.num_rows == len(rows)
    return rows


TEXT = with_bytes(b"a", b"\xff", b"z")
IMAGE = pa.StructArray.from_arrays([TEXT], ["path"])
NESTED = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), IMAGE)


@pytest.mark.parametrize(
    ("options", "column"),
    [
        ({"id_column": "x"}, TEXT),
        ({"id_column": ["row", "x"]}, TEXT),
        ({"prompt_column": "x"}, TEXT),
        ({"image_column": "x"}, TEXT),
        ({"image_column": "x"}, IMAGE),
        ({"columns": ("x",)}, TEXT),
        ({"columns": ("x",)}, IMAGE),
        ({"columns": ("x",)}, NESTED),
        ({"columns": ("x",)}, TEXT.dictionary_encode()),
    ],
)
def test_text_that_is_not_utf_8_in_parquet_is_an_error_row_of_its_own(tmp_path, options, column) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"row": [0, 1, 2], "x": column}), path)
    first, bad, last = read_all(path, **{"id_column": "row", **options})
    assert (first.error, last.error) == (None, None)
    assert (bad.error.stage, bad.error.message[:11]) == ("read", "column 'x':")
    assert bad.id == ("a.parquet#1" if options.get("id_column") else "1")
    assert set(bad.carried.values()) <= {None}


def test_a_time_that_its_type_in_parts_cannot_hold_is_an_error_row(tmp_path) -> None:
    path = tmp_path / "a.arrow"
    times = pa.array([1, 2**62, 3], pa.timestamp("s"))
    with pa.ipc.new_stream(path, pa.schema([("t", times.type)])) as writer:
        writer.write_table(pa.table({"t": times}))
    rows = read_all(path, format="huggingface", columns=("t",))
    assert [row.error and row.error.stage for row in rows] == [None, "read", None]
    assert "column 't': Casting from timestamp[s]" in rows[1].error.message


def test_any_type_of_column_may_be_an_id(tmp_path) -> None:
    ids = {
        "interval": pa.array([(1, 2, 3), (1, 2, 4)], pa.month_day_nano_interval()),
        "zone": pa.array([1, 2], pa.timestamp("ns", "Mars/Phobos")),
        "far": pa.array([2**40, 2**41], pa.int64()).cast(pa.timestamp("s")),
        "struct": pa.array([{"a": 1}, {"a": 2}]),
    }
    path = tmp_path / "a.arrow"
    table = pa.table(ids)
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table)
    for name in ids:
        rows = read_all(path, format="huggingface", id_column=name)
        assert len({row.id for row in rows}) == 2, name


def test_json_keys_with_half_a_surrogate_are_no_columns(tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "a", "\\ud800": 1, "deep": {"\\udfff": [1]}}\n{"id": "b"}\n')
    rows = read_all(path, id_column="id", columns=("deep",))
    assert [(row.id, row.error, row.carried["deep"]) for row in rows] == [
        ("a", None, '{"?": [1]}'),
        ("b", None, None),
    ]


def test_json_nested_without_end_is_an_error_row_in_any_column(tmp_path) -> None:
    path = tmp_path / "a.jsonl"  # some can be read and not written
    path.write_text("".join(f'{{"id": {n}, "x": {"[" * n}{"]" * n}}}\n' for n in range(900, 1000)))
    for options in ({"columns": ("x",)}, {"image_column": "x"}, {"prompt_column": "x"}, {"id_column": "x"}):
        assert len(read_all(path, **{"id_column": "id", **options})) == 100


def test_names_in_a_tar_file_that_are_not_utf_8_harm_nothing(tmp_path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("1.txt", "1.\udcff", "\udcfe.txt", "\udcfe.json", "3.txt"):
            add_member(tar, name, b'{"\xff": 1}' if name.endswith("json") else b"Why?")
    rows = read_all(path, prompt_column="txt", columns=("txt",))
    assert [(row.id, row.error, row.prompt) for row in rows] == [
        *[("1", None, "Why?"), ("?", None, "Why?"), ("3", None, "Why?")]
    ]


def encoded(table: pa.Table, kind: str) -> bytes:
    """A file of the table."""
    sink = io.BytesIO()
    if kind == "parquet":
        pq.write_table(table, sink)
    else:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    return sink.getvalue()


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
@pytest.mark.parametrize(
    "options", [{"id_column": "x"}, {"prompt_column": "x"}, {"image_column": "x"}, {"columns": ("x",)}]
)
def test_two_columns_of_one_name_are_refused_in_one_line_where_one_is_asked_for(
    tmp_path, kind, options
) -> None:
    path = tmp_path / f"a.{kind}"
    columns = [pa.array([1]), pa.array(["a"]), pa.array(["b"])]
    path.write_bytes(encoded(pa.Table.from_arrays(columns, ["id", "x", "x"]), kind))
    form = "huggingface" if kind == "arrow" else "parquet"
    with pytest.raises(DatasetError, match=r"2 columns 'x'; rename them"):
        read_all(path, format=form, **options)
    assert [row.id for row in read_all(path, format=form, id_column="id")] == ["1"]


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_names_of_columns_that_are_not_utf_8_are_refused_in_one_line(tmp_path, kind) -> None:
    form = "huggingface" if kind == "arrow" else "parquet"
    path = tmp_path / f"a.{kind}"
    path.write_bytes(encoded(pa.table({"id": ["a"], "QQQQ": [1]}), kind).replace(b"QQQQ", b"QQ\xffQ"))
    with pytest.raises(DatasetError, match=rf"a\.{kind} is not a readable .*'utf-8' codec can't decode"):
        read_all(path, format=form, id_column="id")


def test_a_carried_struct_with_a_name_that_is_not_utf_8_is_refused(tmp_path) -> None:
    path = tmp_path / "a.arrow"
    table = pa.table({"id": ["a"], "x": [{"QQQQ": 1}]})
    path.write_bytes(encoded(table, "arrow").replace(b"QQQQ", b"QQ\xffQ"))
    assert [row.id for row in read_all(path, format="huggingface", id_column="id")] == ["a"]
    with pytest.raises(DatasetError, match=r"'x' is struct<.*>, which parts cannot hold"):
        read_all(path, format="huggingface", columns=("x",))


def test_a_column_of_arrow_that_leads_out_of_its_memory_is_error_rows(tmp_path) -> None:
    """Looking at such a value would end the process."""
    offsets = pa.array([0, 1, 2**30, 3], pa.int32()).buffers()[1]
    bad = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"abc")])
    path = tmp_path / "a.arrow"
    schema = pa.schema([("id", pa.string()), ("x", pa.string())])
    with pa.ipc.new_stream(path, schema) as writer:
        for ids, column in (("abc", pa.array(["x", "y", "z"])), ("def", bad)):
            writer.write_batch(pa.record_batch([pa.array(list(ids)), column], schema=schema))
    rows = read_all(path, format="huggingface", id_column="id", columns=("x",))
    assert [row.id for row in rows] == ["a", "b", "c", "a.arrow#3", "a.arrow#4", "a.arrow#5"]
    assert [row.error and row.error.stage for row in rows] == [None] * 3 + ["read"] * 3
