"""Laws of a sweep's table: its numbers worked out by hand, its front, its cost, and what the files say."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from small_run import write_run

from cogbatch.eval import sweep_files
from cogbatch.eval.stored_sweep import PointRun, StoredSweep
from cogbatch.eval.sweep_table import SweepTable, tabulate
from cogbatch.types import JudgeOptions, RequestError

ERROR = RequestError("generate", "ValueError", "no")
REFERENCES = {"reference": ["a b", "c", "d"]}
JUDGE = JudgeOptions(references="reference", metric="exact")


def point(folder: Path, name: str, outputs: Any, settings: Mapping[str, Any], **keys: Any) -> PointRun:
    return PointRun(name, str(write_run(folder / name, outputs, carried=REFERENCES, **keys)), settings)


@pytest.fixture
def table(tmp_path: Path) -> SweepTable:
    """plain: right in 2/2 and 1/2, and an error. chosen: right in 1/2, 1/2 and 2/2, by a selector."""
    runs = (
        point(tmp_path, "plain", [["a b", "a b"], ["c", "x"], ERROR], {"a.k|x": 1}, seconds=[1, 3, 5]),
        point(
            tmp_path,
            "chosen",
            [["a b", "y"], ["c", "z"], ["d", "d"]],
            {"a.k|x": 2.5},
            seconds=[3, 3, 6],
            generation={"selector": "dpp"},
        ),
        PointRun("gone", str(tmp_path / "gone"), {"a.k|x": None}, "no worker can start: a | b"),
    )
    return tabulate(StoredSweep("small", runs, JUDGE))


def test_metrics_are_means_over_items_without_error(table: SweepTable) -> None:
    plain, chosen, gone = table.points
    assert (plain.items, plain.errors, chosen.items, chosen.errors) == (3, 1, 3, 0)
    assert (plain.mean("correct"), chosen.mean("correct")) == (0.75, pytest.approx(2 / 3))
    assert (plain.mean("unique_rate"), chosen.mean("unique_rate")) == (0.75, pytest.approx(5 / 6))
    assert (plain.mean("pass@1"), plain.mean("pass@2")) == (0.75, 1.0)
    assert plain.averages["correct"].num_items == 2
    assert gone.averages == {}
    assert table.judge == "exact against reference"


def test_where_candidates_were_chosen_there_is_no_pass_at_k_and_the_reason_instead(table: SweepTable) -> None:
    plain, chosen, _ = table.points
    assert chosen.mean("pass@1") is None
    assert "selector 'dpp'" in str(chosen.no_pass_at_k)
    assert plain.no_pass_at_k is None


def test_cost_adds_up_over_all_rows_and_its_mean_leaves_errors_out(table: SweepTable) -> None:
    plain, chosen, _ = table.points
    assert (plain.engine_seconds, chosen.engine_seconds) == (9.0, 12.0)
    assert (plain.mean("seconds_per_item"), chosen.mean("seconds_per_item")) == (2.0, 4.0)


def test_the_front_is_of_the_axes_and_lower_may_be_better(table: SweepTable) -> None:
    assert (table.quality, table.diversity) == ("correct", "vendi_score")
    assert [one.on_front for one in table.points] == [True, True, False]
    runs = tuple(one.run for one in table.points)
    found = tabulate(StoredSweep("s", runs, JUDGE, quality="correct", diversity="seconds_per_item"))
    assert [one.on_front for one in found.points] == [True, False, False]
    assert sweep_files.lines(found)[1].split() == ["point", "correct", "seconds_per_item"]


def test_without_a_judge_quality_is_what_the_model_thinks(table: SweepTable) -> None:
    found = tabulate(StoredSweep("s", tuple(one.run for one in table.points)))
    assert (found.quality, found.judge) == ("logprob_per_token", None)
    assert "correct" not in found.metrics
    assert found.points[1].no_pass_at_k is None


def test_parquet_and_csv_have_every_number_of_every_point(table: SweepTable, tmp_path: Path) -> None:
    sweep_files.write_table(table, tmp_path)
    rows = pq.read_table(tmp_path / "table.parquet").to_pylist()
    assert rows == sweep_files.records(table)
    assert [row["name"] for row in rows] == ["plain", "chosen", "gone"]
    assert [row["a.k|x"] for row in rows] == [1.0, 2.5, None]
    assert (rows[0]["correct_low"], rows[0]["correct_high"], rows[0]["correct_items"]) == (0.5, 1.0, 2)
    assert rows[2]["failure"] == "no worker can start: a | b"
    with (tmp_path / "table.csv").open() as file:
        written = list(csv.DictReader(file))
    assert list(written[0]) == list(rows[0])
    assert [row["correct"] and float(row["correct"]) for row in written] == [0.75, pytest.approx(2 / 3), ""]


def test_markdown_marks_the_best_and_the_front_and_says_what_failed(table: SweepTable) -> None:
    lines = sweep_files.markdown(table).splitlines()
    (plain,) = [line for line in lines if line.startswith("| plain ★")]
    assert "**0.750 ± 0.250**" in plain
    assert "**2.000 ± 1.000**" in plain, "the lower cost"
    assert plain.endswith("| 1 of 3 |")
    gone, _ = [line for line in lines if line.startswith("| gone")]
    assert gone == "| gone | – | – | – | – | failed |"
    assert "gone failed: no worker can start: a \\| b" in lines
    assert [line for line in lines if line.startswith("chosen has no pass@k: ")]
    main = [line.replace("\\|", "") for line in lines[: lines.index("## Every other metric")] if "|" in line]
    assert {line.count("|") for line in main} == {7}


def test_settings_of_several_kinds_become_one_column_of_json() -> None:
    values = ["a", 1, None, {"share": 2}, True]
    runs = [PointRun(f"p{n}", "nowhere", {"key": value}, "failed") for n, value in enumerate(values)]
    found = sweep_files.columns_of(tabulate(StoredSweep("s", tuple(runs))))
    assert found["key"] == ['"a"', "1", None, '{"share": 2}', "true"]


def test_the_same_parts_give_the_same_table(table: SweepTable) -> None:
    again = tabulate(StoredSweep("small", tuple(one.run for one in table.points), JUDGE))
    assert again == table


def test_progress_is_that_of_the_rows_of_all_points(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, [["a"]] * 500, images=[None] * 500, shard_size=500) for name in "ab"]
    points = tuple(PointRun(path.parent.name, str(path), {}) for path in runs)
    told: list[tuple[int, int]] = []
    tabulate(StoredSweep("s", points), on_progress=lambda done, total: told.append((done, total)))
    assert told == [(500, 1000), (1000, 1000)]
