"""Laws of speed over time: pauses are cut out, and nothing is said that the parts do not say."""

from __future__ import annotations

from itertools import pairwise

import pytest
from small_run import MakeRun

from cogbatch.dataset.parts import PartFooter
from cogbatch.eval.runs import open_run
from cogbatch.eval.timeline import Pause, Timeline, timeline

START_S = 1_000_000.0
JOB = {"started": "1970-01-12T13:46:40+00:00"}  # START_S


def line(*written_s: float | None, job: dict[str, str] = JOB) -> Timeline | None:
    """Of parts with 10 rows each, written so many seconds after the start."""
    parts = [
        PartFooter(str(number), 10, 0, 0, 0, "j", "m", written_s=when and START_S + when)
        for number, when in enumerate(written_s)
    ]
    return timeline(job, parts)


def test_even_work_has_one_speed() -> None:
    found = line(*range(5, 85, 5))  # 16 parts, 80 s
    assert found is not None
    assert (found.working_s, found.mean_rows_per_s, found.pauses) == (80, 2, ())
    assert (sum(found.rows), len(found.rows)) == (160, 4)
    assert found.edges_s == (0, 20, 40, 60, 80)


def test_the_order_of_parts_in_the_input_does_not_matter() -> None:
    assert line(30, 10, 20) == line(10, 20, 30)


def test_a_pause_is_cut_out_with_the_part_that_ends_it() -> None:
    found = line(10, 20, 30, 10_030, 10_040, 10_050)
    assert found is not None
    assert found.pauses == (Pause(at_s=30, length_s=10_000),)
    assert (found.working_s, sum(found.rows), found.mean_rows_per_s) == (50, 50, 1)


def test_long_parts_are_no_pauses() -> None:
    found = line(*range(600, 6600, 600))
    assert found is not None
    assert (found.pauses, found.working_s) == ((), 6000)


def test_bins_are_even_and_hold_every_row_that_counts() -> None:
    found = line(*(3 * number + number % 2 for number in range(1, 400)))
    assert found is not None
    widths = [end - start for start, end in pairwise(found.edges_s)]
    assert len(widths) == 40
    assert widths == pytest.approx([widths[0]] * 40)
    assert sum(found.rows) == 3990
    assert sum(rate * widths[0] for rate in found.rows_per_s) == pytest.approx(3990)


def test_parts_that_do_not_say_when_are_counted_as_unknown() -> None:
    found = line(10, None, 20, float("nan"))
    assert found is not None
    assert (found.unknown_rows, sum(found.rows)) == (20, 20)
    assert line(None, None) is None
    assert line(10) is None
    assert line(10, 10) is None


def test_a_job_without_a_start_begins_with_its_first_part() -> None:
    found = line(10, 20, 30, job={})
    assert found is not None
    assert found.working_s == 20


def test_a_run_says_when_its_parts_were_written(make_run: MakeRun) -> None:
    run = open_run(make_run([["a"]] * 6, written_s=[10, 20, 30]))
    found = timeline({}, run.parts)
    assert found is not None
    assert (found.working_s, found.mean_rows_per_s) == (20, 0.3)
