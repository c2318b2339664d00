"""JSONL and CSV: every row once and as it was written, whatever stands in it and however lines end."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cogbatch.dataset import Dataset, InputOptions, Row, open_dataset
from cogbatch.dataset.lines import MAX_FIELD_CHARS
from cogbatch.errors import DatasetError

PROMPT = "Describe."


def every_row(dataset: Dataset, size: int = 3) -> list[Row]:
    return [row for shard in dataset.shards(size) for row in dataset.read(shard)]


def rows_of_csv_reader(text: str) -> list[list[str | None] | None]:
    """The oracle: what Python's csv.reader makes of the whole text; None for a row that it refuses."""
    rows, reader = [], csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return rows
        except csv.Error:
            rows.append(None)
            continue
        if fields:
            rows.append([field or None for field in fields] if len(fields) == 2 else None)


def assert_rows_are_those_of_csv_reader(folder: Path, text: str, size: int) -> None:
    path = folder / "a.csv"
    path.write_bytes(("a,b\n" + text).encode())
    expected = rows_of_csv_reader(text)
    options = InputOptions(str(path), image_column=None, prompt=PROMPT, columns=("a", "b"))
    if not expected:
        with pytest.raises(DatasetError, match="no rows"):
            open_dataset(options)
        return
    rows = every_row(open_dataset(options), size)
    assert [None if row.error else [row.carried["a"], row.carried["b"]] for row in rows] == expected


LINE = json.dumps({"id": 1, "prompt": "say"})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (f"{LINE}\n{LINE}\n".encode("utf-16"), "not UTF-8 text at byte 1"),
        (gzip.compress(f"{LINE}\n".encode()), "not UTF-8 text at byte 2"),
        (f"{LINE}\r{LINE}\r".encode(), f"not valid JSON at character {len(LINE) + 2}: Extra data"),
        (b"some\ntext\n", "not valid JSON at character 1: Expecting value"),
        (b"[1]\n[2]\n", "a JSON list; expected an object"),
    ],
)
def test_a_file_without_a_row_of_json_is_refused_with_the_reason(
    tmp_path: Path, data: bytes, reason: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(data)
    options = InputOptions(str(path), image_column=None, prompt_column="prompt")
    with pytest.raises(DatasetError) as caught:
        open_dataset(options)
    assert f"a.jsonl: no row is a JSON object; the first: {reason}" in str(caught.value)
    path.write_bytes(data + b"\n" + LINE.encode())
    limited = replace(options, prompt_column=None, prompt=PROMPT, limit=1)
    assert [bool(row.error) for row in every_row(open_dataset(limited))] == [True]
    path.write_bytes(LINE.encode() + b"\n" + data)
    assert any(row.error for row in every_row(open_dataset(options)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    table=st.lists(
        st.tuples(*[st.text(st.sampled_from('",\n\r a\u2028é\ufeff') | st.characters(codec="utf-8"))] * 2)
    ),
    copies=st.sampled_from([1, 70]),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC]),
    line_end=st.sampled_from(["\r\n", "\n", "\r"]),
    size=st.integers(1, 90),
)
def test_csv_rows_are_those_that_were_written_whatever_the_quoting_and_the_cut(
    tmp_path_factory, table, copies, quoting, line_end, size
) -> None:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, quoting=quoting, lineterminator=line_end).writerows(table * copies)
    assert_rows_are_those_of_csv_reader(tmp_path_factory.mktemp("csv"), buffer.getvalue(), size)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.lists(st.sampled_from(['"', '""', ",", "\n", "\r\n", "\r", "x", " ", 'x,5" y\n', "é,\0\n"])).map(
        "".join
    ),
    copies=st.sampled_from([1, 70]),
    size=st.integers(1, 90),
)
def test_stray_quotes_neither_lose_nor_join_rows(tmp_path_factory, text, copies, size) -> None:
    assert_rows_are_those_of_csv_reader(tmp_path_factory.mktemp("csv"), text * copies, size)


def test_a_quote_inside_a_field_is_text_and_one_left_open_is_an_error_row(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'id,note\n1,5" disk\n2,x\n3,\xff\n4,"open\n5,y\n')
    rows = every_row(
        open_dataset(
            InputOptions(str(path), id_column="id", image_column=None, prompt=PROMPT, columns=("note",))
        )
    )
    assert [(row.id, row.carried["note"]) for row in rows] == [
        *[("1", '5" disk'), ("2", "x"), ("a.csv#2", None), ("a.csv#3", None)]
    ]
    assert "not UTF-8" in rows[2].error.message
    assert "2 lines; is a quote left open?" in rows[3].error.message


def test_only_the_files_first_character_is_a_byte_order_mark(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\ufeffid\n\ufeffx\n", "utf-8")
    rows = every_row(open_dataset(InputOptions(str(path), id_column="id", image_column=None, prompt=PROMPT)))
    assert [row.id for row in rows] == ["\ufeffx"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(
        st.text(st.sampled_from("a\u2028\u2029\x85\ufeff") | st.characters(codec="utf-8")),
        min_size=1,
        max_size=8,
    ),
    copies=st.sampled_from([1, 40]),
    line_end=st.sampled_from(["\n", "\r\n", "\n\n", "\r\n \t\r\n"]),
    has_last_end=st.booleans(),
    mark=st.sampled_from(["", "\ufeff"]),
    size=st.integers(1, 90),
)
def test_json_rows_are_those_that_were_written_however_lines_end(
    tmp_path_factory, values, copies, line_end, has_last_end, mark, size
) -> None:
    lines = [json.dumps({"a": value}, ensure_ascii=False) for value in values * copies]
    path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
    path.write_bytes((mark + line_end.join(lines) + line_end * has_last_end).encode())
    dataset = open_dataset(InputOptions(str(path), image_column=None, prompt=PROMPT, columns=("a",)))
    rows = every_row(dataset, size)
    assert [(row.error, row.carried["a"]) for row in rows] == [(None, value) for value in values * copies]


@pytest.fixture
def small_fields() -> Iterator[int]:
    """A low limit of csv's fields, which is one of the whole process."""
    before = csv.field_size_limit(200_000)
    yield 200_000
    csv.field_size_limit(before)


def rows_with_notes(path: Path) -> list[Row]:
    options = InputOptions(str(path), id_column="id", image_column=None, prompt=PROMPT, columns=("note",))
    return every_row(open_dataset(options))


def test_a_long_field_of_csv_is_read(tmp_path) -> None:
    text = "line\n" * 300_000
    path = tmp_path / "a.csv"
    path.write_text(f'id,note\n1,"{text}"\n2,x\n')
    assert csv.field_size_limit() == MAX_FIELD_CHARS
    rows = rows_with_notes(path)
    assert [(row.id, row.carried["note"]) for row in rows] == [("1", text), ("2", "x")]


@pytest.mark.parametrize(
    "field",
    [
        "x" * 300_000,
        '"' + "x" * 300_000 + '"',
        '"' + "line\n" * 60_000 + '"',
        '"' + 'a ""quoted"", word\n' * 30_000 + '"',
        '"' + "\r" * 300_000 + '"',
        '"' + "x" * 300_000 + '\n"",\n""\n"',
    ],
)
def test_a_field_over_the_limit_is_exactly_one_error_row(tmp_path, small_fields, field) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(f"id,note\n1,x\n2,{field}\n3,y\n4,{field}\n".encode())
    rows = rows_with_notes(path)
    assert [row.id for row in rows] == ["1", "a.csv#1", "3", "a.csv#3"]
    assert [row.carried["note"] for row in rows] == ["x", None, "y", None]
    assert f"field larger than field limit ({small_fields})" in rows[1].error.message
