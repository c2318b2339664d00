"""Laws of the monitor: who is blamed, who is silent, what is counted once."""

from __future__ import annotations

from pathlib import Path

from cogbatch.batch.monitor import Monitor, WorkerId
from cogbatch.batch.tally import Kind, Tally, over_rate
from cogbatch.batch.task import TaskKey
from cogbatch.dataset.run_directory import RunDirectory

RUN = RunDirectory("nowhere")
ANN, BOB = WorkerId("node-a", 1, "actor 1", "host-a"), WorkerId("node-b", 2, "actor 2", "host-b")
S1, S2, S3 = (TaskKey(0, f"part-0-{n}-1.parquet") for n in range(3))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_shard_whose_worker_died_on_a_living_node_has_an_attempt() -> None:
    monitor = Monitor(RUN)
    monitor.begin(ANN, S1, [None])
    monitor.begin(ANN, S2, [None])
    monitor.end(ANN, S2, Tally(rows=4))
    assert list(monitor.close_pass(["node-a"])) == [S1]


def test_work_is_timed_from_the_first_shard_that_a_loaded_worker_takes() -> None:
    monitor = Monitor(RUN, clock=(clock := Clock()))
    monitor.load(ANN, [None])
    clock.now = 60.0
    assert monitor.snapshot().working_s == 0.0
    monitor.loaded(ANN)
    monitor.begin(ANN, S1, [None])
    clock.now = 75.0
    monitor.begin(BOB, S2, [None])
    assert monitor.snapshot().working_s == 15.0


def test_losing_a_node_blames_nobody() -> None:
    monitor = Monitor(RUN)
    monitor.begin(ANN, S1, [None])
    monitor.begin(BOB, S2, [None])
    assert list(monitor.close_pass(["node-b"])) == [S2]


def test_each_death_is_one_attempt_and_a_pass_forgets_the_last_one() -> None:
    monitor = Monitor(RUN)
    monitor.begin(ANN, S1, [None])
    monitor.begin(ANN._replace(pid=7), S1, [None])
    assert len(monitor.close_pass(["node-a"])[S1]) == 2
    assert monitor.close_pass(["node-a"]) == {}


def test_storage_failures_and_refusals_are_no_attempts() -> None:
    monitor = Monitor(RUN)
    monitor.begin(ANN, S1, [None])
    monitor.fail(ANN, S1, "OSError: disk full", blames=False)
    monitor.refuse(BOB, "no GPU")
    assert monitor.close_pass(["node-a", "node-b"]) == {}
    assert monitor.snapshot().refusals == {"node-b": "host-b: no GPU"}
    assert monitor.snapshot().failures == ("OSError: disk full",)


def test_parts_that_cannot_be_written_blame_nobody_and_are_counted_until_one_can() -> None:
    monitor = Monitor(RUN)
    for shard in (S1, S2):
        monitor.begin(ANN, shard, [None])
        monitor.unwritten(ANN, shard, "OSError: disk full")
    assert monitor.snapshot().unwritten == 2
    monitor.begin(BOB, S3, [None])
    monitor.end(BOB, S3, None)
    assert monitor.snapshot().unwritten == 2, "a shard given back proves nothing"
    monitor.end(BOB, S3, Tally(rows=1))
    assert monitor.snapshot().unwritten == 0
    assert monitor.close_pass(["node-a", "node-b"]) == {}


def test_dying_while_loading_counts_against_the_node_and_no_shard() -> None:
    monitor = Monitor(RUN)
    assert monitor.load(ANN, [None]) is None
    assert monitor.load(ANN._replace(pid=3), [None]) is None
    assert monitor.snapshot().refusals == {}
    reason = "2 workers died while loading the model (out of memory?)"
    assert monitor.load(ANN._replace(pid=4), [None]) == reason
    assert monitor.snapshot().refusals == {"node-a": f"host-a: {reason}"}
    assert monitor.close_pass(["node-a"]) == {}
    assert monitor.load(BOB, [None]) is None


def test_deaths_while_loading_add_up_over_passes_unless_the_node_was_lost() -> None:
    monitor = Monitor(RUN)
    for living in (["node-a"], ["node-b"], ["node-a"]):
        monitor.load(ANN, [None])
        assert (monitor.snapshot().loading, monitor.busy()) == (1, 1)
        assert monitor.snapshot().refusals == {}
        monitor.close_pass(living)
    assert list(monitor.snapshot().refusals) == ["node-a"]


def test_workers_that_refuse_are_counted_once_each_in_a_pass() -> None:
    """By which the driver tells one bad start from no good one."""
    monitor = Monitor(RUN)
    for worker in (ANN, ANN, BOB):
        monitor.refuse(worker, "no GPU")
    assert monitor.snapshot().refusing == 2
    monitor.close_pass(["node-a", "node-b"])
    assert monitor.snapshot().refusing == 0


def test_a_node_that_finishes_a_shard_is_not_left_out() -> None:
    monitor, other = Monitor(RUN), ANN._replace(pid=9, actor_id="actor 9")
    monitor.refuse(other, "a passing failure")
    monitor.load(ANN, [None])
    monitor.loaded(ANN)
    monitor.begin(ANN, S1, [None])
    monitor.end(ANN, S1, Tally(rows=1))
    assert monitor.snapshot().refusals == {}
    monitor.refuse(other, "still the same")
    assert monitor.snapshot().refusals == {}
    monitor.close_pass(["node-a"])
    monitor.refuse(other, "in the next pass too")
    assert monitor.snapshot().refusals == {"node-a": "host-a: in the next pass too"}


def test_a_crash_blames_what_its_worker_held_once_with_the_reason() -> None:
    monitor = Monitor(RUN)
    monitor.begin(ANN, S1, [None])
    monitor.crash(ANN, "the engine failed: CUDA error")
    assert monitor.close_pass(["node-a"]) == {S1: ["the engine failed: CUDA error"]}


def test_a_shard_written_twice_counts_once() -> None:
    monitor = Monitor(RUN)
    for worker in (ANN, BOB):
        monitor.begin(worker, S1, [None])
        monitor.end(worker, S1, Tally(rows=4, candidates=8))
    assert monitor.snapshot().tallies[0] == Tally(rows=4, candidates=8)


def test_rows_in_flight_count_once_for_the_worker_heard_last() -> None:
    clock = Clock()
    monitor = Monitor(RUN, clock=clock)
    monitor.begin(ANN, S1, [None])
    monitor.beat(ANN, {S1: Tally(rows=3)}, 10)
    clock.now = 5.0
    monitor.begin(BOB, S1, [None])
    monitor.beat(BOB, {S1: Tally(rows=1)}, 4)
    seen = monitor.snapshot()
    assert (seen.tallies[0].rows, seen.tokens) == (1, 14)


def test_a_silent_worker_is_named_once_and_only_while_it_holds_a_shard() -> None:
    clock = Clock()
    monitor = Monitor(RUN, clock=clock)
    monitor.begin(ANN, S1, ["handle of ann"])
    monitor.begin(BOB, S2, ["handle of bob"])
    monitor.end(BOB, S2, Tally())
    clock.now = 100.0
    assert (monitor.busy(), monitor.snapshot().workers) == (0, 0), "nobody waits for the dead"
    assert monitor.silent(99.0) == ["handle of ann"]
    assert monitor.silent(99.0) == []


def test_beats_pass_on_which_jobs_to_leave() -> None:
    monitor = Monitor(RUN)
    assert not monitor.beat(ANN, {}, 0)
    monitor.stop([1])
    monitor.stop([3])
    assert monitor.beat(ANN, {}, 0) == {1, 3}


def test_parts_of_the_same_name_are_counted_for_their_own_job() -> None:
    monitor, other = Monitor(RUN), S1._replace(job=1)
    monitor.begin(ANN, S1, [None])
    monitor.begin(ANN, other, [None])
    monitor.end(ANN, other, Tally(rows=4))
    monitor.beat(ANN, {S1: Tally(rows=1)}, 0)
    assert {job: tally.rows for job, tally in monitor.snapshot().tallies.items()} == {1: 4, 0: 1}
    assert list(monitor.close_pass(["node-a"])) == [S1]


def test_a_probe_is_seen_only_with_its_token(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.path.joinpath("probes").mkdir()
    run.write_probe("token", "host-1")
    assert Monitor(run).sees_probe("host-1", "token")
    assert not Monitor(run).sees_probe("host-1", "another")
    assert not Monitor(run).sees_probe("host-2", "token")


def test_the_error_rate_is_judged_after_a_thousand_rows_or_a_hundred_errors() -> None:
    assert not over_rate(Tally(rows=999, errors=99), 0.05)
    assert over_rate(Tally(rows=1000, errors=51), 0.05)
    assert not over_rate(Tally(rows=1000, errors=50), 0.05)
    assert over_rate(Tally(rows=100, errors=100), 0.05)
    assert not over_rate(Tally(rows=100, errors=100), 1.0)


def test_commonest_errors_come_first_with_an_example() -> None:
    tally = Tally()
    tally.add_error(Kind("image", "ImageError"), "a.png: truncated")
    for name in ("b", "c"):
        tally.add_error(Kind("read", "OSError"), f"{name}: gone")
    assert tally.commonest(1) == ["2 x read/OSError: b: gone"]
