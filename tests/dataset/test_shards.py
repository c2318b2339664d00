"""Shards cover every row once, whatever the files, row groups, shard size and limit."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogbatch.dataset.shards import Shard, Span, auto_shard_size, cut, first_rows, grid_to_json, stored_shards
from cogbatch.errors import DatasetError

FILES = st.lists(st.lists(st.integers(0, 40), max_size=4), min_size=1, max_size=5)  # rows of groups of files
SIZES = st.one_of(st.just("auto"), st.integers(1, 50))


def spans_of(files: list[list[int]]) -> list[Span]:
    return [
        Span(file_index, sum(groups[:group]), num_rows, group)
        for file_index, groups in enumerate(files)
        for group, num_rows in enumerate(groups)
    ]


@given(files=FILES, size=SIZES, limit=st.none() | st.integers(1, 100))
def test_shards_cover_the_first_rows_once_in_order_within_row_groups(files, size, limit) -> None:
    every = [(f, row) for f, groups in enumerate(files) for row in range(sum(groups))]
    shards = tuple(cut(first_rows(spans_of(files), limit), size))
    covered = [(s.file_index, s.first_row + row) for s in shards for row in range(s.num_rows)]
    assert covered == every[:limit]
    assert [s.index for s in shards] == list(range(len(shards)))
    assert len({s.part_name for s in shards}) == len(shards)
    for shard in shards:
        group_start = sum(files[shard.file_index][: shard.row_group])
        assert shard.first_row == group_start + shard.skip_rows
        assert shard.skip_rows + shard.num_rows <= files[shard.file_index][shard.row_group]
        if size != "auto":
            assert shard.num_rows <= size


@given(st.integers(1, 10**8))
def test_auto_size_is_within_8_and_512_and_makes_at_most_100_000_shards_of_one_file(num_rows) -> None:
    size = auto_shard_size(num_rows)
    assert 8 <= size <= 512
    assert -(-num_rows // size) <= 100_000 or num_rows > 512 * 100_000


@pytest.mark.parametrize(
    ("num_rows", "size"),
    [(1, 8), (64, 8), (128, 11), (1_024, 32), (32_000, 32), (100_000, 100), (10**6, 512)],
)
def test_auto_size_is_small_for_few_rows_and_makes_about_1_000_shards_of_many(num_rows, size) -> None:
    assert auto_shard_size(num_rows) == size


@given(shard=st.builds(Shard, *[st.integers(1, 10**6)] * 3, st.integers(1, 30)))
def test_split_gives_every_row_once_and_json_gives_the_shard_back(shard) -> None:
    items = shard.split()
    rows = range(shard.first_row, shard.first_row + shard.num_rows)
    assert [item.first_row for item in items] == list(rows)
    assert [item.skip_rows for item in items] == list(range(shard.num_rows))
    kept = {(item.num_rows, item.index, item.file_index) for item in items}
    assert kept == {(1, shard.index, shard.file_index)}
    assert Shard.from_json(json.loads(json.dumps(shard.to_json()))) == shard


def test_part_name_tells_file_first_row_and_rows() -> None:
    assert Shard(index=9, file_index=2, first_row=640, num_rows=32).part_name == "part-2-640-32.parquet"


def test_more_than_100_000_shards_are_refused_with_advice() -> None:
    with pytest.raises(DatasetError, match=r"100001 shards .* larger shard_size"):
        tuple(cut([Span(0, 0, 100_001)], 1))
    assert len(tuple(cut([Span(0, 0, 100_000)], 1))) == 100_000


@pytest.mark.parametrize("size", [0, -3, True])
def test_a_shard_size_below_1_is_a_value_error(size) -> None:
    with pytest.raises(ValueError, match='expected "auto" or at least 1'):
        tuple(cut([Span(0, 0, 5)], size))


def test_a_shard_from_other_keys_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="a shard has the keys"):
        Shard.from_json({"index": 0})


@given(
    st.lists(
        st.builds(Shard, st.just(0), *[st.integers(1, 9)] * 3, st.none() | st.integers(0, 9)), min_size=1
    )
)
def test_the_grid_of_a_job_is_read_as_it_was_written_also_as_first_versions_wrote_it(
    shards: list[Shard],
) -> None:
    shards = [replace(shard, index=index) for index, shard in enumerate(shards)]
    for grid in (grid_to_json(shards), [shard.to_json() for shard in shards]):
        assert stored_shards(json.loads(json.dumps({"shards": grid})), where="job.json") == tuple(shards)
