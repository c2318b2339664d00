"""Every format gives the same rows, whichever way it is cut; damage costs the rows that it hits."""

from __future__ import annotations

import itertools
import json
import pickle
import tracemalloc

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cogbatch.dataset import InputOptions, Shard, open_dataset
from cogbatch.dataset.row_index import STRIDE
from cogbatch.errors import DatasetError
from tests.dataset.inputs import KINDS, Item, encoded, every_row, item_of, opened, write_folder

QUICK = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def items(number: int, num_rows: int) -> list[Item]:
    return [Item(f"{number}/{row}", b"%d" % row * (row % 700), f"what is {row}?") for row in range(num_rows)]


@pytest.mark.parametrize("kind", KINDS)
@QUICK
@given(
    files=st.lists(st.integers(0, 3 * STRIDE), min_size=1, max_size=3).filter(any),
    group=st.integers(1, 90),
    size=st.integers(1, 120),
    limit=st.none() | st.integers(1, 300),
    data=st.data(),
)
def test_every_row_is_read_once_and_any_shard_alone_is_the_slice_of_all(
    tmp_path_factory, kind, files, group, size, limit, data
) -> None:
    written = [items(number, num_rows) for number, num_rows in enumerate(files)]
    folder = write_folder(tmp_path_factory.mktemp("input"), kind, written, group=group)
    dataset = pickle.loads(pickle.dumps(opened(folder, kind, limit=limit)))
    rows = every_row(dataset, size)
    assert [item_of(row) for row in rows] == list(itertools.chain(*written))[:limit]
    places = [(f"{number}.{kind}", row) for number, num in enumerate(files) for row in range(num)][:limit]
    assert [(row.input_file, row.input_row) for row in rows] == places
    shards = dataset.shards(size)
    order = data.draw(st.permutations(range(len(shards))))
    starts = [sum(shard.num_rows for shard in shards[:number]) for number in range(len(shards))]
    for number in order[:5]:
        shard = Shard.from_json(json.loads(json.dumps(shards[number].to_json())))
        alone = rows[starts[number] : starts[number] + shard.num_rows]
        assert list(dataset.read(shard)) == alone
        assert [row for item in shard.split() for row in dataset.read(item)] == alone


@pytest.mark.parametrize("kind", KINDS)
def test_two_readers_of_one_file_at_once_do_not_disturb_each_other(tmp_path, kind) -> None:
    written = items(0, 100)
    dataset = opened(write_folder(tmp_path, kind, [written]), kind)
    first, second = dataset.shards(50)
    pairs = list(zip(dataset.read(first), dataset.read(second), strict=True))
    assert [item_of(row) for row, _ in pairs] + [item_of(row) for _, row in pairs] == written


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "jsonl.gz", "csv.gz"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.99])
def test_a_file_that_is_cut_off_ends_in_one_error_row_that_says_where(tmp_path, kind, share) -> None:
    written = [Item(f"{row}", row.to_bytes(2) * 900, "why?") for row in range(200)]
    whole = encoded(written, kind)
    end = len(whole) if kind != "tar" else whole.rindex(b"why?")
    (tmp_path / f"0.{kind}").write_bytes(whole[: int(end * share)])
    rows = every_row(opened(tmp_path, kind))
    assert [item_of(row) for row in rows] == [*written[: len(rows) - 1], None]
    error = rows[-1].error
    assert error
    assert error.stage == "read"
    assert f"0.{kind} is damaged or cut off at " in error.message
    alone = opened(tmp_path, kind).shards(1)[-1]
    assert list(opened(tmp_path, kind).read(alone)) == [rows[-1]]


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_cut_off_file_of_columns_is_refused_at_the_start(tmp_path, kind) -> None:
    write_folder(tmp_path, kind, [items(0, 200)], group=20)
    path = tmp_path / f"0.{kind}"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match=rf"0\.{kind} is not a readable") as caught:
        opened(tmp_path, kind)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_shrinks_after_the_start_gives_error_rows_and_no_fewer(tmp_path, kind) -> None:
    written = [Item(f"{row}", bytes([row]) * 2000, "why?") for row in range(120)]
    dataset = opened(write_folder(tmp_path, kind, [written], group=10), kind)
    path = tmp_path / f"0.{kind}"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    rows = every_row(dataset)
    assert [row.input_row for row in rows] == list(range(120))
    assert rows[-1].error
    assert rows[-1].error.stage == "read"
    assert f"0.{kind}" in rows[-1].error.message
    good = [item for row in rows if (item := item_of(row))]
    assert good == written[: len(good)]
    assert len(good) < 120


@pytest.mark.parametrize(("kind", "limit"), [("jsonl.gz", 100_000), ("csv.gz", 100_000)])
def test_a_gzip_file_of_more_than_100_000_rows_is_refused_unless_the_limit_is_less(
    tmp_path, kind, limit
) -> None:
    path = tmp_path / f"0.{kind}"
    path.write_bytes(encoded([Item("x")] * (limit + 1), kind))
    with pytest.raises(DatasetError, match=rf"more than 100000 rows, .* first: gunzip 0\.{kind}"):
        opened(path, kind)
    assert opened(path, kind, limit=limit).num_rows == limit


def test_a_file_beside_its_decompressed_copy_is_refused(tmp_path) -> None:
    for kind in ("jsonl", "jsonl.gz"):
        write_folder(tmp_path, kind, [items(0, 3)])
    with pytest.raises(DatasetError, match=r"0\.jsonl\.gz is there and decompressed too; remove one"):
        opened(tmp_path, "jsonl")


def test_a_damaged_page_costs_the_rows_from_it_to_the_end_of_its_row_group(tmp_path) -> None:
    written = [Item(f"{row}", bytes([row]) * 40_000, "why?") for row in range(90)]
    write_folder(tmp_path, "parquet", [written], group=30)
    path = tmp_path / "0.parquet"
    column = pq.read_metadata(path).row_group(1).column(1)
    data = bytearray(path.read_bytes())
    middle = column.data_page_offset + column.total_compressed_size // 2
    data[middle : column.data_page_offset + column.total_compressed_size] = b"\xff" * (
        column.total_compressed_size - column.total_compressed_size // 2
    )
    path.write_bytes(data)
    rows = every_row(opened(tmp_path, "parquet"), 7)
    good = [row.error is None for row in rows]
    assert good[:30] == good[60:] == [True] * 30
    assert not any(good[50:60])
    assert [item_of(row) for row in rows if row.error is None and row.input_row < 30] == written[:30]
    bad = next(row for row in rows if row.error)
    assert "0.parquet, row group 1: not readable from row" in bad.error.message


@pytest.mark.slow
def test_100_000_shards_of_a_large_file_are_placed_at_under_1_kb_each(tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"id": {row}}}\n' for row in range(800_000)))
    dataset = open_dataset(InputOptions(str(path), id_column="id", image_column=None, prompt="Describe."))
    tracemalloc.start()
    shards = dataset.shards(8)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(shards) == len({shard.part_name for shard in shards}) == 100_000
    assert used <= 1000 * len(shards)
    assert len(pickle.dumps(dataset)) < 1_000_000
    assert [row.id for row in dataset.read(shards[-1])] == [str(row) for row in range(799_992, 800_000)]
