"""What job.json knows of an input is what a look into it would give, and opens it without one."""

from __future__ import annotations

import functools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cogbatch.dataset import Dataset, InputOptions, open_dataset
from cogbatch.dataset.known import known_input
from cogbatch.dataset.shards import Shard, grid_to_json
from cogbatch.dataset.streams import close_last
from tests.dataset.counting import CountingFileSystem
from tests.dataset.inputs import Item, every_row, folder_of, options_for

WITHOUT_INDEX = ("arrow", "tar", "tar.gz", "jsonl", "csv", "jsonl.gz", "csv.gz")
FOLDER = "counting://bucket/known"


@functools.cache
def files_of(kind: str, counts: tuple[int, ...]) -> dict[str, bytes]:
    items = [[Item(f"{file}-{row}", b"x" * 50, "why?") for row in range(n)] for file, n in enumerate(counts)]
    return dict(folder_of(kind, items, group=30))


def store(kind: str, *counts: int) -> None:
    """A folder with files of so many rows."""
    fs = CountingFileSystem()
    fs.store.clear()
    for name, data in files_of(kind, counts).items():
        fs.pipe_file(f"/bucket/known/{name}", data)
    close_last()
    fs.bytes_read.clear()


def bytes_read() -> int:
    """Of the files with rows; state.json only names them."""
    counted = CountingFileSystem.bytes_read
    return sum(count for name, count in counted.items() if not name.endswith("state.json"))


def job_of(dataset: Dataset, shards: tuple[Shard, ...]) -> dict[str, Any]:
    """job.json, as far as the input goes."""
    job = {
        "identity": {"input": {"fingerprint": dataset.fingerprint, **dataset.options.identity()}},
        "found": dataset.found(),
        "shards": grid_to_json(shards),
    }
    return dict(json.loads(json.dumps(job)))


@pytest.mark.parametrize("kind", WITHOUT_INDEX)
@settings(max_examples=8, deadline=None)
@given(
    counts=st.sampled_from([(1,), (70,), (130, 0, 64), (0, 200)]),
    size=st.integers(1, 90),
    limit=st.none() | st.sampled_from([1, 65, 150]),
)
def test_a_known_input_is_opened_without_reading_and_gives_the_same_rows(kind, counts, size, limit) -> None:
    store(kind, *counts)
    options = options_for(FOLDER, kind, limit=limit)
    dataset = open_dataset(options)
    assert bytes_read() > 0
    shards = dataset.shards(size)
    CountingFileSystem.bytes_read.clear()
    again = open_dataset(options, known=known_input(job_of(dataset, shards), options))
    assert bytes_read() == 0
    assert (again.shards(size), again.num_rows, again.files) == (shards, dataset.num_rows, dataset.files)
    assert again.carried.equals(dataset.carried)
    assert again.found() == dataset.found()
    assert every_row(again, size) == every_row(dataset, size)
    assert again.count_duplicate_ids() == 0


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tar"])
def test_only_the_missing_shard_is_read(kind) -> None:
    store(kind, 2400)
    options = options_for(FOLDER, kind)
    dataset = open_dataset(options)
    shards = dataset.shards(200)
    CountingFileSystem.bytes_read.clear()
    again = open_dataset(options, known=known_input(job_of(dataset, shards), options))
    (row,) = again.read(again.shards(200)[-1].part_of(start=199, num_rows=1))
    assert row.id == "0-2399"
    assert 0 < bytes_read() <= len(files_of(kind, (2400,))[f"0.{kind}"]) * 2 / 12


@pytest.mark.parametrize("kind", WITHOUT_INDEX)
def test_other_files_or_other_options_are_looked_at_anew(kind) -> None:
    store(kind, 70)
    options = options_for(FOLDER, kind)
    dataset = open_dataset(options)
    job = job_of(dataset, dataset.shards(10))
    for other in (
        options_for(FOLDER, kind, limit=7),
        InputOptions(FOLDER, options.format, id_column=None, image_column=None, prompt="say"),
    ):
        assert known_input(job, other) is None
    store(kind, 69)
    known = known_input(job, options)
    assert known is not None
    changed = open_dataset(options, known=known)
    assert (changed.num_rows, bytes_read() > 0) == (69, True)
    assert changed.fingerprint != dataset.fingerprint


def test_a_job_that_does_not_say_what_was_found_knows_nothing() -> None:
    options = options_for(FOLDER, "jsonl")
    assert known_input(None, options) is None
    assert known_input({"job_fingerprint": "j"}, options) is None
