"""Any input becomes the same rows, whichever way it is cut; a bad row is a value; a bad input is one line."""

from __future__ import annotations

import json
import os
import pickle
from datetime import datetime
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cogbatch.dataset import Dataset, InputOptions, Row, Shard, open_dataset
from cogbatch.dataset.schema import record, rows_to_table
from cogbatch.errors import DatasetError, ImageError
from cogbatch.images import load_image
from cogbatch.types import RequestError, RequestOutput

PROMPT = "Describe."


def every_row(dataset: Dataset, size: int | str = "auto") -> list[Row]:
    return [row for shard in dataset.shards(size) for row in dataset.read(shard)]


def output_table(dataset: Dataset) -> pa.Table:
    """What a job whose model says nothing would write."""
    records = [
        record(row, RequestOutput(""), model_fingerprint="m", job_fingerprint="j")
        for row in every_row(dataset)
    ]
    return rows_to_table(records, carried=dataset.carried)


def write_parquet(path: Path, columns: dict, *, row_group_size: int = 1000) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return path


def write_lines(path: Path, *lines: object) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def write_any(folder: Path, kind: str, files: list[int], group: int) -> list[tuple[str, int, str]]:
    """Files with ids "<file>.<row>"; returns the identities and ids that reading must give."""
    expected = []
    for number, num_rows in enumerate(files):
        ids = [f"{number}.{row}" for row in range(num_rows)]
        name = f"{number}.{kind}"
        if kind == "parquet":
            write_parquet(folder / name, {"id": pa.array(ids, pa.string())}, row_group_size=group)
        elif kind == "jsonl":
            (folder / name).write_text(
                "\n".join(f'{{"id": "{i}", "n": 1}}\n' for i in ids)
            )  # blank lines between
        else:
            (folder / name).write_text(
                "id,text\r\n" + "".join(f'{i},"two\nlines, ""quoted"""\r\n' for i in ids)
            )
        expected += [(name, row, i) for row, i in enumerate(ids)]
    return expected


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.lists(st.integers(0, 150), min_size=1, max_size=3).filter(any),
    group=st.integers(1, 70),
    size=st.integers(1, 90),
    limit=st.none() | st.integers(1, 200),
)
def test_every_row_is_read_once_in_order_however_it_is_cut(
    tmp_path_factory, kind, files, group, size, limit
) -> None:
    folder = tmp_path_factory.mktemp("input")
    expected = write_any(folder, kind, files, group)[:limit]
    options = InputOptions(str(folder), id_column="id", image_column=None, prompt=PROMPT, limit=limit)
    dataset = pickle.loads(pickle.dumps(open_dataset(options)))
    assert [(row.input_file, row.input_row, row.id) for row in every_row(dataset, size)] == expected
    assert dataset.num_rows == len(expected)
    assert dataset.count_duplicate_ids() == 0
    shard = Shard.from_json(json.loads(json.dumps(dataset.shards(size)[-1].to_json())))
    items = [row for item in shard.split() for row in dataset.read(item)]
    assert items == list(dataset.read(shard))


def test_parquet_reads_bytes_paths_urls_structs_and_nulls(tmp_path) -> None:
    images = [b"png", None, None]
    write_parquet(tmp_path / "a.parquet", {"image": images})
    write_parquet(tmp_path / "b.pq", {"image": ["x/a.png", "https://h/a.png", None]})
    structs = [{"bytes": b"j", "path": "a.jpg"}, {"bytes": None, "path": "a.jpg"}, None]
    write_parquet(tmp_path / "c.parquet", {"image": structs})

    def images_of(name: str) -> list[tuple]:
        rows = every_row(open_dataset(InputOptions(str(tmp_path / name), prompt=PROMPT)))
        assert all(row.error is None for row in rows)
        return [(row.image, row.image_ref) for row in rows]

    assert images_of("a.parquet") == [(b"png", None), (None, None), (None, None)]
    local = str(tmp_path.resolve())
    assert images_of("b.pq") == [
        (f"{local}/x/a.png", "x/a.png"),
        ("https://h/a.png", "https://h/a.png"),
        (None, None),
    ]
    assert images_of("c.parquet") == [(b"j", None), (f"{local}/a.jpg", "a.jpg"), (None, None)]


def test_ids_are_joined_or_made_from_file_and_row(tmp_path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"a": ["x", None, "z"], "b": [1, 2, 3]})

    def ids(column) -> list[str]:
        options = InputOptions(str(path), id_column=column, image_column=None, prompt=PROMPT)
        return [row.id for row in every_row(open_dataset(options))]

    assert ids(["a", "b"]) == ["x|1", "a.parquet#1", "z|3"]
    assert ids("b") == ["1", "2", "3"]
    assert ids(None) == ["a.parquet#0", "a.parquet#1", "a.parquet#2"]


def test_duplicate_ids_are_counted_over_all_files_within_the_limit(tmp_path) -> None:
    write_parquet(tmp_path / "a.parquet", {"id": ["x", "y", "x"]})
    write_parquet(tmp_path / "b.parquet", {"id": ["y", "z", "x"]})
    options = InputOptions(str(tmp_path), id_column="id", image_column=None, prompt=PROMPT)
    assert open_dataset(options).count_duplicate_ids() == 3
    limited = InputOptions(str(tmp_path), id_column="id", image_column=None, prompt=PROMPT, limit=4)
    assert open_dataset(limited).count_duplicate_ids() == 2


def test_the_prompt_column_comes_before_the_prompt_and_no_prompt_is_an_error_row(tmp_path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"q": ["What?", None]})
    both = InputOptions(str(path), image_column=None, prompt_column="q", prompt=PROMPT)
    assert [row.prompt for row in every_row(open_dataset(both))] == ["What?", PROMPT]
    alone = InputOptions(str(path), image_column=None, prompt_column="q")
    rows = every_row(open_dataset(alone))
    assert [row.error and row.error.stage for row in rows] == [None, "prompt"]


def test_carried_columns_keep_type_and_value_to_the_output(tmp_path) -> None:
    columns = {
        "ns": pa.array([1, None], pa.timestamp("ns", "UTC")),
        "list": pa.array([[1, 2], None], pa.list_(pa.int16())),
        "struct": pa.array([{"a": [datetime(2026, 1, 1)]}, None]),
        "category": pa.array(["x", None]).dictionary_encode(),
        "nothing": pa.nulls(2),
        "large": pa.array(["x", None], pa.large_string()),
    }
    path = write_parquet(tmp_path / "a.parquet", columns)
    dataset = open_dataset(InputOptions(str(path), image_column=None, prompt=PROMPT, columns=tuple(columns)))
    written = pa.table({**columns, "category": ["x", None], "nothing": pa.nulls(2, pa.string())})
    assert output_table(dataset).select(list(columns)).equals(written)


def test_jsonl_columns_get_one_type_and_mixed_ones_are_json_text(tmp_path) -> None:
    path = write_lines(
        tmp_path / "a.jsonl",
        {"int": 1, "num": 1, "text": "a", "mixed": 1, "deep": {"a": [1]}, "big": 2**70, "flag": True},
        {"int": None, "num": 0.5, "text": "\ud800", "mixed": "b", "flag": False},
    )
    names = ("int", "num", "text", "mixed", "deep", "big", "flag")
    dataset = open_dataset(InputOptions(str(path), image_column=None, prompt=PROMPT, columns=names))
    assert dataset.carried.types == [
        *[pa.int64(), pa.float64(), pa.string(), pa.string(), pa.string(), pa.string(), pa.bool_()]
    ]
    rows = output_table(dataset).select(list(names)).to_pylist()
    assert [list(row.values()) for row in rows] == [
        [1, 1.0, "a", "1", '{"a": [1]}', str(2**70), True],
        [None, 0.5, "?", "b", None, None, False],
    ]


def test_a_bad_line_is_an_error_row_and_its_neighbours_are_not(tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [b'{"id": "a"}', b"{oops", b"[1]", b'{"id": "\xff"}', b"[" * 100_000, b"", b'{"id": "z"}']
    path.write_bytes(b"\n".join(lines))  # no newline at the end
    rows = every_row(open_dataset(InputOptions(str(path), id_column="id", image_column=None, prompt=PROMPT)))
    assert [row.id for row in rows] == ["a", *[f"a.jsonl#{number}" for number in (1, 2, 3, 4)], "z"]
    assert [row.error.stage if row.error else None for row in rows] == [None, *["read"] * 4, None]
    assert "expected an object" in rows[2].error.message


def test_csv_has_text_columns_nulls_and_error_rows(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        'id,image,note\n1,a.png,"x, ""y"""\n2,,\n3,too,many,fields\n4,b.png,"\u2028\n\nz"\n', "utf-8-sig"
    )
    options = InputOptions(str(path), id_column="id", prompt=PROMPT, columns=("note",))
    rows = every_row(open_dataset(options))
    assert [(row.id, row.image_ref, row.carried["note"]) for row in rows] == [
        ("1", "a.png", 'x, "y"'),
        ("2", None, None),
        ("a.csv#2", None, None),
        ("4", "b.png", "\u2028\n\nz"),
    ]
    assert "4 fields; expected 3" in rows[2].error.message


def test_an_image_folder_is_one_virtual_file_in_sorted_order(tmp_path) -> None:
    for name in ("b.PNG", "a.jpg", "sub/c.webp", "notes.txt", ".hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    dataset = open_dataset(InputOptions(str(tmp_path), prompt=PROMPT))
    rows = every_row(dataset, 2)
    names = ["a.jpg", "b.PNG", "sub/c.webp"]
    assert [(row.input_file, row.input_row, row.id) for row in rows] == [
        (".", i, n) for i, n in enumerate(names)
    ]
    assert [row.image for row in rows] == [str(tmp_path.resolve() / name) for name in names]
    assert [shard.part_name for shard in dataset.shards(2)] == ["part-0-0-2.parquet", "part-0-2-1.parquet"]
    first = dataset.fingerprint
    (tmp_path / "a.jpg").write_bytes(b"longer")
    assert open_dataset(InputOptions(str(tmp_path), prompt=PROMPT)).fingerprint != first


def test_paths_that_leave_the_image_root_are_error_rows(tmp_path) -> None:
    root, outside = tmp_path / "data", tmp_path / "outside"
    for folder in (root / "sub", outside, tmp_path / "data2"):
        folder.mkdir(parents=True)
    (outside / "secret.png").write_bytes(b"x")
    (root / "link.png").symlink_to(outside / "secret.png")
    (root / "linked").symlink_to(outside)
    (root / "loop").symlink_to(root / "loop")
    (root / "inner.png").symlink_to(root / "sub")
    good = [
        "a.png",
        "sub/../a.png",
        str(root / "a.png"),
        "inner.png",
        f"file://{root}/a.png",
        "HTTPS://h/x.png",
    ]
    bad = [
        *["../outside/secret.png", str(outside / "secret.png"), "link.png", "linked/secret.png"],
        *["../data2/a.png", "sub/../../outside/secret.png", f"file://{outside}/secret.png"],
        *["s3://bucket/a.png", "a\0b", ""],
    ]
    path = write_lines(root / "a.jsonl", *[{"image": value} for value in [*good, *bad, 7]])
    rows = every_row(open_dataset(InputOptions(str(path), prompt=PROMPT)))
    assert [row.image_ref for row in rows if row.error is None] == good
    failed = rows[len(good) :]
    assert [row.image_ref for row in failed] == [*bad, "7"]
    assert all(row.error and row.error.stage == "image" and row.image is None for row in failed)
    wider = InputOptions(str(path), prompt=PROMPT, image_root=str(tmp_path))
    row = every_row(open_dataset(wider))[len(good) + 1]
    assert (row.image, row.error) == (str(outside / "secret.png"), None)


def test_what_is_wrong_with_an_image_is_said_alike_wherever_the_dataset_lies(tmp_path) -> None:
    values = ["none.png", "bad.png", "sub", "../out.png", "loop/a.png", f"{'long/' * 60}a.png", "a\0b"]

    def messages(folder: Path) -> list[str]:
        (folder / "sub").mkdir(parents=True)
        (folder / "bad.png").write_bytes(b"no image")
        (folder / "loop").symlink_to(folder / "loop")
        path = write_lines(folder / "a.jsonl", *[{"image": value} for value in values])
        return [message_of(row) for row in every_row(open_dataset(InputOptions(str(path), prompt=PROMPT)))]

    def message_of(row: Row) -> str:
        try:
            load_image(row.image or "")
            error = None
        except ImageError as err:
            error = RequestError("image", "ImageError", str(err))
        entry = record(row, RequestOutput(row.id, error=error), model_fingerprint="m", job_fingerprint="j")
        return entry["error"]["message"]

    here = messages(tmp_path / "here")
    assert here == messages(tmp_path / "quite" / "another" / "place")
    assert here[0] == "'none.png': cannot be read: No such file or directory"
    assert not any(str(tmp_path) in message for message in here)


def test_an_object_store_reads_its_own_scheme_to_bytes_and_keeps_paths_inside() -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/bucket/data/img/a.png", b"png")
    fs.pipe_file("/bucket/other.png", b"other")
    values = ["img/a.png", "memory://bucket/other.png", "../other.png", "img/none.png", "file:///etc/passwd"]
    values.append("data:image/png;base64,iVBORw0KGgo=")
    fs.pipe_file("/bucket/data/a.jsonl", "".join(json.dumps({"image": v}) + "\n" for v in values).encode())
    rows = every_row(open_dataset(InputOptions("memory://bucket/data/*.jsonl", prompt=PROMPT)))
    assert [row.image for row in rows] == [b"png", b"other", None, None, None, None]
    assert [row.error and row.error.stage for row in rows] == [None, None, *["image"] * 4]
    assert rows[-1].error is not None
    assert "scheme 'data'; expected http(s), a path, or the input's 'memory'" in rows[-1].error.message
    assert rows[0].image_ref == "img/a.png"


def test_the_fingerprint_follows_the_files_and_not_where_they_lie(tmp_path) -> None:
    marks = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        path = write_lines(tmp_path / name / "a.jsonl", {"id": 1})
        os.utime(path, (1_000_000, 1_000_000))
        marks.append(open_dataset(InputOptions(str(path), image_column=None, prompt=PROMPT)).fingerprint)
    os.utime(path, (2_000_000, 2_000_000))
    marks.append(open_dataset(InputOptions(str(path), image_column=None, prompt=PROMPT)).fingerprint)
    assert marks[0] == marks[1] != marks[2]
    assert len(marks[0]) == 64


def test_a_path_with_glob_characters_is_taken_literally_when_it_exists(tmp_path) -> None:
    write_lines(tmp_path / "a[1].jsonl", {"id": "literal"})
    write_lines(tmp_path / "a1.jsonl", {"id": "glob"})
    options = InputOptions(str(tmp_path / "a[1].jsonl"), id_column="id", image_column=None, prompt=PROMPT)
    assert [row.id for row in every_row(open_dataset(options))] == ["literal"]


def test_only_the_asked_columns_are_read(tmp_path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"id": ["a"] * 1000, "blob": [os.urandom(1000)] * 1000})
    data = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(0).column(1)
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + column.total_compressed_size] = b"\0" * column.total_compressed_size
    path.write_bytes(data)
    rows = every_row(open_dataset(InputOptions(str(path), id_column="id", image_column=None, prompt=PROMPT)))
    assert len(rows) == 1000
    assert all(row.error is None for row in rows)
    damaged = open_dataset(InputOptions(str(path), id_column="id", image_column="blob", prompt=PROMPT))
    rows = every_row(damaged)
    assert [row.input_row for row in rows] == list(range(1000))
    assert all(row.error and row.error.stage == "read" for row in rows)


def refused(options: InputOptions) -> str:
    with pytest.raises(DatasetError) as caught:
        open_dataset(options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_all_problems_are_told_at_once_with_the_nearest_column(tmp_path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"id": ["a"], "image": [1.5], "scene": ["s"]})
    message = refused(InputOptions(str(path), id_column="ids", columns=("id", "scen"), limit=0))
    for part in (
        "neither input.prompt nor input.prompt_column is set",
        "input.limit is 0",
        "input.columns: id: columns that the output has itself",
    ):
        assert part in message
    message = refused(InputOptions(str(path), id_column="ids", columns=("scen",), prompt=PROMPT))
    for part in (
        "input.id_column: no column 'ids', there are id, image, scene; did you mean 'id'?",
        "input.columns: no column 'scen', there are id, image, scene; did you mean 'scene'?",
        "input.image_column: 'image' is double",
    ):
        assert part in message


def test_a_column_of_no_row_of_jsonl_is_missing(tmp_path) -> None:
    path = write_lines(tmp_path / "a.jsonl", {"picture": "a.png"})
    assert "input.image_column: no column 'image', there are picture" in refused(
        InputOptions(str(path), prompt=PROMPT)
    )


def test_files_that_disagree_are_named(tmp_path) -> None:
    write_parquet(tmp_path / "a.parquet", {"image": ["a"], "n": [1]})
    write_parquet(tmp_path / "b.parquet", {"image": pa.nulls(1), "n": ["x"]})
    write_parquet(tmp_path / "c.parquet", {"n": [1]})
    message = refused(InputOptions(str(tmp_path), prompt=PROMPT, columns=("n",)))
    assert "c.parquet has no column 'image', which other files have" in message
    assert "b.parquet has column 'n' as string, other files as int64" in message
    (tmp_path / "c.parquet").write_bytes(b"PAR1 not really")
    assert "c.parquet is not a readable Parquet file" in refused(InputOptions(str(tmp_path), prompt=PROMPT))


def test_what_is_no_input_is_refused_with_what_was_expected(tmp_path) -> None:
    assert "nothing there" in refused(InputOptions(str(tmp_path / "absent.parquet"), prompt=PROMPT))
    assert "no file matches" in refused(InputOptions(str(tmp_path / "*.parquet"), prompt=PROMPT))
    assert "no file matches" in refused(InputOptions(str(tmp_path), prompt=PROMPT))
    assert "did you mean 'parquet'" in refused(InputOptions(str(tmp_path), format="parket", prompt=PROMPT))
    (tmp_path / "a.txt").write_text("x")
    assert "unknown format of a.txt" in refused(InputOptions(str(tmp_path), prompt=PROMPT))
    (tmp_path / "a.jsonl.gz").write_bytes(b"x")
    assert "a.jsonl.gz is damaged" in refused(InputOptions(str(tmp_path), prompt=PROMPT))
    (tmp_path / "a.jsonl.gz").unlink()
    (tmp_path / "a.csv.zst").write_bytes(b"x")
    assert "first: unzstd --rm a.csv.zst" in refused(InputOptions(str(tmp_path), prompt=PROMPT))
    empty = write_lines(tmp_path / "a.jsonl")
    assert "no rows; expected at least one" in refused(InputOptions(str(empty), prompt=PROMPT))
    write_parquet(tmp_path / "b.parquet", {"image": ["a"]})
    assert "several formats (jsonl, parquet)" in refused(InputOptions(str(tmp_path), prompt=PROMPT))
    assert "'nowhere' is not a directory" in refused(
        InputOptions(str(tmp_path / "b.parquet"), prompt=PROMPT, image_root="nowhere")
    )


def test_the_identity_of_options_leaves_out_where_files_lie() -> None:
    here = InputOptions("/a/x", id_column="id", image_root="/a", limit=3, prompt=PROMPT)
    there = InputOptions("/b/x", id_column=("id",), image_root=None, limit=3, prompt=PROMPT)
    assert here.identity() == there.identity()
    assert json.loads(json.dumps(here.identity())) == here.identity()
    assert here.identity() != InputOptions("/a/x", id_column="id", prompt=PROMPT).identity()
