"""Names from the data are text in the output and never become paths, whatever format they come in."""

from __future__ import annotations

import base64
import json
import os
import re
import tarfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cogbatch.dataset import InputOptions, Row, open_dataset
from cogbatch.dataset.parts import write_part
from cogbatch.dataset.rows import make_id
from cogbatch.dataset.schema import record, rows_to_table
from cogbatch.errors import DatasetError
from cogbatch.types import RequestOutput
from tests.dataset.inputs import KINDS, Item, add_member, every_row, opened, write_folder

NAMES = [
    *["../../escape", "/etc/passwd", "~/x", "$HOME/x", "a/../../b", "..", ".", "con", "a\nb", "a\x1b[2Jb"],
    *[
        "part-0-0-1.parquet",
        "file:///etc/passwd",
        "s3://bucket/key",
        "é\u202egpj",
        "x" * 3000,
        "'; rm -rf /",
        "%2e%2e/x",
    ],
]


def names_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def write_parts(rows: list[Row], folder: Path, dataset) -> pa.Table:
    """What a worker writes for these rows, read back."""
    for shard in dataset.shards(4):
        found = [row for row in rows if 0 <= row.input_row - shard.first_row < shard.num_rows]
        output = RequestOutput("")
        table = rows_to_table(
            [record(row, output, model_fingerprint="m", job_fingerprint="j") for row in found],
            carried=dataset.carried,
        )
        write_part(folder, shard.part_name, table)
    return pa.concat_tables([pq.read_table(path) for path in sorted(folder.iterdir())])


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_ids_are_text_of_the_output_and_make_no_file(tmp_path, kind) -> None:
    data, parts = tmp_path / "data", tmp_path / "parts"
    data.mkdir()
    parts.mkdir()
    is_key = re.compile(r"(.*/)?[^./]+", re.DOTALL).fullmatch  # of a tar member, all but the ending
    names = list(filter(is_key, NAMES)) if kind.startswith("tar") else NAMES
    write_folder(data, kind, [[Item(name, b"x", name) for name in names]])
    dataset = opened(data, kind)
    rows = every_row(dataset, 4)
    assert sorted(row.id for row in rows) == sorted(names)
    before = names_in(tmp_path)
    table = write_parts(rows, parts, dataset)
    assert sorted(table["id"].to_pylist()) == sorted(names)
    wanted = {f"parts/{shard.part_name}" for shard in dataset.shards(4)}
    assert names_in(tmp_path) - before == wanted


@pytest.mark.parametrize("kind", ["parquet", "arrow", "jsonl", "csv", "tar"])
def test_an_image_path_in_the_data_reads_nothing_outside_the_root(tmp_path, kind) -> None:
    """Also as the path beside missing bytes, as Hugging Face's image columns have it."""
    root = tmp_path / "data"
    root.mkdir()
    (tmp_path / "secret.png").write_bytes(b"secret")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    hostile = ["../secret.png", str(tmp_path / "secret.png"), f"file://{tmp_path}/secret.png", "link.png"]
    column = "image"
    if kind in ("parquet", "arrow"):
        table = pa.table({"image": [{"bytes": None, "path": path} for path in hostile]})
        if kind == "parquet":
            pq.write_table(table, root / "0.parquet")
        else:
            with pa.ipc.new_stream(str(root / "0.arrow"), table.schema) as writer:
                writer.write_table(table)
    elif kind == "jsonl":
        (root / "0.jsonl").write_text("".join(json.dumps({"image": path}) + "\n" for path in hostile))
    elif kind == "csv":
        (root / "0.csv").write_text("image\n" + "".join(f"{path}\n" for path in hostile))
    else:
        column = "txt"
        write_folder(root, "tar", [[Item(str(n), b"", path) for n, path in enumerate(hostile)]])
    options = InputOptions(str(root / f"0.{kind}"), image_column=column, prompt="Describe.")
    rows = every_row(open_dataset(options))
    assert [row.image for row in rows] == [None] * len(hostile)
    assert all(row.error and "leaves the image root" in row.error.message for row in rows)


@pytest.mark.parametrize(
    "value", ["../secret.png", "/bucket/secret.png", "x/../../secret.png", "memory://../secret.png"]
)
def test_an_object_path_that_leaves_the_folder_is_an_error_row(value) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/bucket/secret.png", b"secret")
    fs.pipe_file("/bucket/data/a.jsonl", json.dumps({"image": value}).encode())
    (row,) = every_row(open_dataset(InputOptions("memory://bucket/data/a.jsonl", prompt="Describe.")))
    assert row.image is None
    assert row.error


def test_file_names_that_are_not_utf_8_or_hold_line_ends_are_read_and_shown_in_one_line(tmp_path) -> None:
    names = [b"a\nb", b"\xff", b"plain", "é".encode()]
    for name in names:
        path = os.fsencode(tmp_path) + b"/" + name
        with open(path + b".jsonl", "wb") as file:  # noqa: PTH123  pathlib has no bytes
            file.write(b'{"id": 1}\n')
        with open(path + b".png", "wb") as file:  # noqa: PTH123
            file.write(b"png")
    lines = open_dataset(InputOptions(f"{tmp_path}/*.jsonl", image_column=None, prompt="Describe."))
    shown = ["a\\nb", "plain", "é", "\\udcff"]
    assert sorted(row.input_file for row in every_row(lines)) == sorted(f"{name}.jsonl" for name in shown)
    folder = tmp_path / "images"
    folder.mkdir()
    for path in tmp_path.glob("*.png"):
        path.rename(folder / path.name)
    pictures = open_dataset(InputOptions(str(folder), prompt="Describe."))
    rows = every_row(pictures)
    assert [Path(str(row.image)).read_bytes() for row in rows] == [b"png"] * 4
    (tmp_path / "parts").mkdir()
    table = write_parts(rows, tmp_path / "parts", pictures)
    assert table["id"].to_pylist() == [row.id for row in rows]


@settings(deadline=None)
@given(st.lists(st.lists(st.text("a|\\"), min_size=2, max_size=3), min_size=2, max_size=2, unique_by=tuple))
def test_other_values_of_several_id_columns_never_make_the_same_id(pair) -> None:
    first, second = (make_id(values, input_file="f", input_row=0) for values in pair)
    assert first != second or len(pair[0]) != len(pair[1])


def test_ids_of_one_column_stay_as_they_are() -> None:
    assert make_id(["a|b\\c"], input_file="f", input_row=0) == "a|b\\c"
    assert make_id(["a|b", 7], input_file="f", input_row=0) == "a\\|b|7"
    assert make_id([b"\xff"], input_file="f", input_row=0) == base64.b64encode(b"\xff").decode()


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "tar"])
def test_column_names_of_the_data_reach_no_terminal_as_they_are(tmp_path, kind) -> None:
    name = "a\x1b]0;x\x07\nb\u202ec"
    if kind == "csv":
        (tmp_path / "0.csv").write_text(f'"{name}",b\n1,2\n')
    elif kind == "jsonl":
        (tmp_path / "0.jsonl").write_text(json.dumps({name: 1}))
    elif kind == "parquet":
        pq.write_table(pa.table({name: [1]}), tmp_path / "0.parquet")
    else:
        with tarfile.open(tmp_path / "0.tar", "w") as tar:
            add_member(tar, f"0.{name}", b"x")
    with pytest.raises(DatasetError, match="no column 'image', there are ") as caught:
        open_dataset(InputOptions(str(tmp_path / f"0.{kind}"), prompt="Describe."))
    assert str(caught.value).isprintable()
    assert "x1b]0;x" in str(caught.value)
