"""Items of a run found by name, and how little of its parts is read for that."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
from small_run import MakeRun

from cogbatch.errors import RunDirectoryError
from cogbatch.eval.find import draw_items, find_items
from cogbatch.eval.runs import Run, open_run


def test_all_items_with_an_id_are_found_in_input_order_up_to_the_bound(make_run: MakeRun) -> None:
    run = open_run(make_run([["a"]] * 7, ids=["x", "y", "x", "z", "x", "x", "y"]))
    found = find_items(run, "x", max_items=3)
    assert [item.identity for item in found.items] == [("rows.jsonl", row) for row in (0, 2, 4)]
    assert found.count == 4


def test_a_place_in_the_input_is_one_item_whatever_its_id(make_run: MakeRun) -> None:
    run = open_run(make_run([["a"]] * 5, ids=["x"] * 5))
    (item,) = find_items(run, "rows.jsonl:3", max_items=9).items
    assert (item.id, item.input_row) == ("x", 3)


def test_an_id_that_only_looks_like_a_place_is_an_id(make_run: MakeRun) -> None:
    run = open_run(make_run([["a"]] * 3, ids=["a", "other.jsonl:1", "c"]))
    assert find_items(run, "other.jsonl:1", max_items=1).items[0].input_row == 1


def test_a_row_that_is_not_done_is_told_from_an_unknown_id(make_run: MakeRun) -> None:
    run = open_run(make_run([["a"]] * 6, done=2))
    with pytest.raises(ValueError, match=r"row 4 of rows\.jsonl is not in a part"):
        find_items(run, "rows.jsonl:4", max_items=1)


def test_an_unknown_id_is_answered_with_the_nearest(make_run: MakeRun) -> None:
    run = open_run(make_run([["a"]] * 4, ids=["cat-01", "dog-02", "dog-12", "zebra"]))
    with pytest.raises(ValueError, match=r"no item 'dog-22' among the 4 .* 'dog-02', 'dog-12', 'cat-01';"):
        find_items(run, "dog-22", max_items=1)


def test_only_the_ids_of_other_parts_are_read(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_run(make_run([["a"]] * 6))
    read: list[tuple[str, tuple[str, ...]]] = []
    plain = pq.ParquetFile.read

    def watched(file: pq.ParquetFile, columns: list[str], **options: object) -> object:
        names = file.schema_arrow.names
        read.append((str(file.metadata.num_rows), tuple(columns)))
        assert "candidates.list.element.token_ids" not in columns
        assert set(names) > set(columns) or len(columns) > 1
        return plain(file, columns, **options)

    monkeypatch.setattr(pq.ParquetFile, "read", watched)
    find_items(run, "item-3", max_items=1)
    assert [columns for _, columns in read[:3]] == [("id",)] * 3
    assert len(read) == 4, "and the rows of one part"
    read.clear()
    find_items(run, "rows.jsonl:3", max_items=1)
    assert len(read) == 1


def test_some_rows_are_the_items_at_these_places(make_run: MakeRun) -> None:
    run = open_run(make_run([[str(number)] for number in range(7)], shard_size=3))
    everything = list(run.items())
    assert list(run.some([6, 0, 4, 4])) == [everything[0], everything[4], everything[6]]


def test_items_are_drawn_by_the_seed_and_never_twice(make_run: MakeRun) -> None:
    run = open_run(make_run([["a"]] * 9))

    def rows(of: Run, number: int, seed: int) -> list[int]:
        return [item.input_row for item in draw_items(of, number, seed=seed)]

    assert rows(run, 4, 1) == rows(run, 4, 1) != rows(run, 4, 3)
    assert rows(run, 99, 0) == list(range(9))


def test_a_part_that_vanished_is_one_line(make_run: MakeRun) -> None:
    path = make_run([["a"]] * 4)
    run = open_run(path)
    next(iter((path / "parts").iterdir())).unlink()
    with pytest.raises(RunDirectoryError, match="cannot be read"):
        find_items(run, "item-9", max_items=1)


def test_a_name_that_is_no_utf_8_is_no_id(make_run: MakeRun) -> None:
    with pytest.raises(ValueError, match=r"no item .* the nearest ids are 'item-0'"):
        find_items(open_run(make_run([["a"]])), "item-\udcff", max_items=1)
