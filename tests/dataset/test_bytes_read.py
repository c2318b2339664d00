"""A worker reads at most 1.5 times the input, however shards cut row groups, samples and long lines."""

from __future__ import annotations

import functools

import pytest

from cogbatch.dataset import InputOptions, open_dataset
from cogbatch.dataset.streams import close_last
from tests.dataset.counting import CountingFileSystem
from tests.dataset.inputs import KINDS, Item, every_row, folder_of, item_of, opened

NUM_ROWS, GROUP = 360, 130
FOLDER = "counting://bucket/data"


@functools.cache
def items() -> list[Item]:
    """About 11 MB, most of it in long rows: several buffers of an object store."""
    return [Item(f"{row}", bytes([row % 251]) * (30_000 + row), "why?") for row in range(NUM_ROWS)]


def store(kind: str) -> int:
    """Two files of the kind; returns their bytes."""
    fs = CountingFileSystem()
    fs.store.clear()
    half = NUM_ROWS // 2
    named = folder_of(kind, [items()[:half], items()[half:]], group=GROUP)
    for name, data in named.items():
        fs.pipe_file(f"/bucket/data/{name}", data)
    return sum(map(len, named.values()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("size", "workers"),
    [(7, 2), *[pytest.param(*case, marks=pytest.mark.slow) for case in [(1, 3), (100, 1)]]],
)
def test_a_worker_reads_each_byte_about_once(kind, size, workers) -> None:
    total = store(kind)
    dataset = opened(FOLDER, kind)
    shards = dataset.shards(size)
    for worker in range(workers):
        close_last()
        CountingFileSystem.bytes_read.clear()
        rows = [row for shard in shards[worker::workers] for row in dataset.read(shard)]
        assert all(item_of(row) == items()[int(row.id)] for row in rows)
        # The end of a gzip'd tar may be looked at twice, and gzip can only begin again.
        assert sum(CountingFileSystem.bytes_read.values()) <= (2.5 if kind == "tar.gz" else 1.5) * total


@pytest.mark.parametrize("kind", KINDS)
def test_opening_reads_at_most_the_input_once(kind) -> None:
    total = store(kind)
    CountingFileSystem.bytes_read.clear()
    opened(FOLDER, kind)
    assert sum(CountingFileSystem.bytes_read.values()) <= 1.01 * total


def test_columns_that_are_not_asked_for_are_not_read_from_parquet() -> None:
    total = store("parquet")
    CountingFileSystem.bytes_read.clear()
    dataset = open_dataset(InputOptions(FOLDER, id_column="id", image_column=None, prompt_column="prompt"))
    assert len(every_row(dataset, 7)) == NUM_ROWS
    assert sum(CountingFileSystem.bytes_read.values()) <= 0.05 * total


def test_the_first_rows_of_a_large_file_cost_no_full_pass() -> None:
    total = store("jsonl")
    CountingFileSystem.bytes_read.clear()
    assert opened(FOLDER, "jsonl", limit=5).num_rows == 5
    assert sum(CountingFileSystem.bytes_read.values()) <= 0.5 * total
