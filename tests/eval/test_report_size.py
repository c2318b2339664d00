"""The report stays small enough to send and to open, whatever it is about."""

from __future__ import annotations

from pathlib import Path

import pytest
from parsed_page import Seen
from small_run import MakeRun, write_run

from cogbatch.eval.report import write_report

LIMIT = 20_000_000  # bytes


def test_items_get_the_room_that_the_rest_of_the_page_leaves(make_run: MakeRun) -> None:
    run = make_run([["x" * 500_000]] * 24, generation={"note": "y" * 12_000_000})
    page = write_report(run, max_items=40).read_text()
    assert page.count("y" * 12_000_000) == 1
    assert 12 <= page.count("<article ") <= 15
    assert "evenly spaced, as the page would be too large" in page
    assert len(page) < LIMIT


@pytest.mark.slow
def test_many_runs_are_compared_without_a_drawing_for_each(tmp_path: Path) -> None:
    written = [float(second) for second in range(10)]
    runs = [
        write_run(tmp_path / f"{n}", [["a", "b"]] * 10, name=f"r{n}", shard_size=1, written_s=written)
        for n in range(51)
    ]
    few = write_report(*runs[:2], max_items=1).read_text()
    many = write_report(*runs, max_items=1).read_text()
    assert few.count("Throughput over time: ") == 2
    assert "Throughput over time: " not in many
    assert "Throughput is drawn for up to 50 runs" in Seen(many).text
    assert len(many) / 51 < 10_000, "so that 1,900 runs have room"
