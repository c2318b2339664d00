"""Directories of datasets.save_to_disk: read without `datasets`, and never beyond the directory."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import pyarrow as pa
import pytest

from cogbatch.dataset import InputOptions, open_dataset
from cogbatch.errors import DatasetError
from tests.dataset.inputs import Item, encoded, every_row, folder_of, write_folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A Dataset in two files and a DatasetDict, written by the library itself."""
    folder = tmp_path_factory.mktemp("saved")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.environ["HF_DATASETS_OFFLINE"] = "1"
        datasets = pytest.importorskip("datasets")
        datasets.disable_progress_bars()
        columns = {
            "id": list(range(250)),
            "image": [{"bytes": b"%d" % n, "path": f"{n}.png"} if n % 5 else None for n in range(250)],
            "question": [f"é{n}" for n in range(250)],
            "label": [n % 2 for n in range(250)],
        }
        features = datasets.Features(
            id=datasets.Value("int32"),
            image=datasets.Image(decode=False),
            question=datasets.Value("large_string"),
            label=datasets.ClassLabel(names=["no", "yes"]),
        )
        dataset = datasets.Dataset.from_dict(columns, features=features)
        dataset.save_to_disk(str(folder / "one"), num_shards=2)
        both = datasets.DatasetDict(train=dataset, test=dataset.select(range(3)))
        both.save_to_disk(str(folder / "splits"))
    return folder


def test_a_saved_dataset_is_read_as_it_was_made(saved) -> None:
    options = InputOptions(str(saved / "one"), id_column="id", prompt_column="question", columns=("label",))
    dataset = open_dataset(options)
    rows = every_row(dataset, 33)
    assert [(row.id, row.image, row.prompt) for row in rows] == [
        (str(n), b"%d" % n if n % 5 else None, f"é{n}") for n in range(250)
    ]
    assert [row.carried["label"].as_py() for row in rows] == [n % 2 for n in range(250)]  # type: ignore[attr-defined]
    assert [file.path for file in dataset.files] == [f"data-0000{n}-of-00002.arrow" for n in (0, 1)]


def test_of_several_splits_one_is_asked_for(saved) -> None:
    with pytest.raises(DatasetError, match=r"splits there \('test', 'train'\), expected one; add its name"):
        open_dataset(InputOptions(str(saved / "splits"), prompt="Describe."))
    assert open_dataset(InputOptions(str(saved / "splits" / "test"), prompt="Describe.")).num_rows == 3


def test_only_the_files_of_the_state_are_read_and_a_cache_beside_them_is_not(tmp_path) -> None:
    write_folder(tmp_path, "arrow", [[Item("a"), Item("b")]])
    (tmp_path / "cache-0123.arrow").write_bytes(encoded([Item("c")], "arrow"))
    rows = every_row(open_dataset(InputOptions(str(tmp_path), id_column="id", prompt="Describe.")))
    assert [row.id for row in rows] == ["a", "b"]


@pytest.mark.parametrize("name", ["../out.arrow", "/etc/passwd", "sub/../../out.arrow", 7, None])
def test_a_state_that_names_a_file_elsewhere_is_refused(tmp_path, name) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    write_folder(folder, "arrow", [[Item("a")]])
    (tmp_path / "out.arrow").write_bytes(encoded([Item("secret")], "arrow"))
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    with pytest.raises(DatasetError, match=r"state\.json names .*, which is not there"):
        open_dataset(InputOptions(str(folder), prompt="Describe."))


@pytest.mark.parametrize("state", ["", "[]", "{}", '{"_data_files": [1]}'])
def test_a_state_of_another_kind_is_refused(tmp_path, state) -> None:
    write_folder(tmp_path, "arrow", [[Item("a")]])
    (tmp_path / "state.json").write_text(state)
    with pytest.raises(DatasetError, match=r"state\.json is not as datasets\.save_to_disk writes it"):
        open_dataset(InputOptions(str(tmp_path), prompt="Describe."))


def test_arrow_files_alone_are_read_when_they_are_named_one_by_one(tmp_path) -> None:
    for name, data in folder_of("arrow", [[Item("a")], [Item("b")]]).items():
        if name.endswith(".arrow"):
            (tmp_path / name).write_bytes(data)
    with pytest.raises(
        DatasetError, match=r"no state\.json there; expected what datasets\.save_to_disk writes"
    ):
        open_dataset(InputOptions(str(tmp_path), prompt="Describe."))
    rows = every_row(open_dataset(InputOptions(str(tmp_path / "*.arrow"), id_column="id", prompt="x")))
    assert [row.id for row in rows] == ["a", "b"]


def test_what_cannot_be_read_is_refused_with_the_file(tmp_path) -> None:
    def message(data: bytes) -> str:
        (tmp_path / "a.arrow").write_bytes(data)
        with pytest.raises(DatasetError) as caught:
            open_dataset(InputOptions(str(tmp_path / "a.arrow"), prompt="Describe."))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    whole = encoded([Item("a")], "arrow")
    assert "a.arrow is not a readable Arrow stream (damaged or cut off at byte" in message(whole[:-8])
    assert "a.arrow is not a readable Arrow stream" in message(b"")
    assert "a.arrow is not a readable Arrow stream" in message(b"\xff" * 100)
    sink, table = pa.BufferOutputStream(), pa.table({"image": pa.array(["a"]).dictionary_encode()})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    assert "dictionary-encoded columns are not supported" in message(sink.getvalue().to_pybytes())
