"""Laws of reading a run directory from outside: it says what the parts say, and disturbs no driver."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from cogbatch.batch.found_runs import find_runs, sweep_status
from cogbatch.batch.status import run_status
from cogbatch.dataset.parts import write_part
from cogbatch.dataset.rows import Row
from cogbatch.dataset.run_directory import RunDirectory
from cogbatch.dataset.run_lock import Holder
from cogbatch.dataset.schema import record, rows_to_table
from cogbatch.dataset.shards import Shard, grid_to_json
from cogbatch.errors import RunDirectoryError
from cogbatch.types import Candidate, RequestError, RequestOutput

LONG = tuple(Shard(number, 0, 10 * number, 10) for number in range(8))
SHARDS = LONG[:4]
JOB: dict[str, object] = {
    "job_fingerprint": "j1",
    "spec": {"name": "captions"},
    "shards": grid_to_json(SHARDS),
}
HOLD = """
import sys, time
from cogbatch.dataset.run_directory import RunDirectory
with RunDirectory(sys.argv[1]).lock():
    print("held", flush=True)
    time.sleep(600)
"""
BAD = RequestError("image", "ImageError", "gone.png: no such file")


def begin(path: Path, shards: Sequence[Shard] = SHARDS) -> RunDirectory:
    """A run that was started and left."""
    run = RunDirectory(path)
    with run.lock():
        run.start(JOB | {"shards": grid_to_json(shards)})
    return run


def write(run: RunDirectory, shard: Shard, *, at_s: float, errors: int = 0, job: str = "j1") -> None:
    """A part of two candidates of three tokens a row, its first rows errors, written at that time."""
    answers = tuple(Candidate(index, "a", (5, 5, 2), -0.5, 3, "stop", lane=index) for index in range(2))
    outputs = [RequestOutput("", error=BAD)] * errors + [RequestOutput("", answers)] * (10 - errors)
    rows = [
        record(Row("f", row, str(row)), output, model_fingerprint="m", job_fingerprint=job)
        for row, output in enumerate(outputs, shard.first_row)
    ]
    write_part(run.parts, shard.part_name, rows_to_table(rows))
    os.utime(Path(str(run.parts)) / shard.part_name, (at_s, at_s))


@contextmanager
def driver(run: RunDirectory) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the run."""
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(run.path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        yield holder
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_what_is_done_is_what_the_parts_of_this_job_say(tmp_path: Path) -> None:
    run = begin(tmp_path / "run")
    now = time.time()
    write(run, SHARDS[0], at_s=now - 40, errors=3)
    write(run, SHARDS[1], at_s=now - 20)
    write(run, SHARDS[2], at_s=now, job="another")
    (Path(str(run.parts)) / SHARDS[3].part_name).write_bytes(b"PAR1 truncated")
    found = run_status(run.path)
    assert (found.name, found.state, found.rows, found.rows_total) == ("captions", "stopped", 20, 40)
    assert (found.errors, found.candidates, found.tokens) == (3, 34, 102)
    assert (found.shards, found.shards_total) == (2, 4)
    assert [(kind.count, kind.stage) for kind in found.error_kinds] == [(3, "image")]
    assert "  3 x image/ImageError, for example: gone.png: no such file" in found.lines()
    assert found.damaged == (SHARDS[3].part_name,)
    assert f"damaged, to be done again: {run.parts / SHARDS[3].part_name}" in found.lines()


def test_speed_is_that_between_the_oldest_and_the_newest_of_the_latest_parts(tmp_path: Path) -> None:
    run = begin(tmp_path / "run", shards=LONG)
    now = time.time()
    assert run_status(run.path).items_per_s is None
    write(run, LONG[0], at_s=now - 10_000)  # before a night's rest
    for shard, ago_s in zip(LONG[1:4], (30, 29, 20), strict=True):
        write(run, shard, at_s=now - ago_s)
    assert run_status(run.path).items_per_s is None, "three parts have no speed"
    write(run, LONG[4], at_s=now - 10)
    found = run_status(run.path)
    assert found.items_per_s == pytest.approx(30 / 20)
    assert found.eta_s is None, "nobody works"
    with driver(run):
        assert run_status(run.path).eta_s == pytest.approx(10 * (len(LONG) - 5) / 1.5)


def test_a_burst_of_parts_and_a_copied_run_have_no_speed(tmp_path: Path) -> None:
    run = begin(tmp_path / "run", shards=LONG)
    now = time.time()
    for number, shard in enumerate(LONG[:6]):
        write(run, shard, at_s=now - number / 100)
    assert run_status(run.path).items_per_s is None


def test_the_speed_of_a_finished_run_is_that_of_its_summary(tmp_path: Path) -> None:
    run = begin(tmp_path / "run")
    for number, shard in enumerate(SHARDS):
        write(run, shard, at_s=1_000 + 10 * number)
    run.finish({"items_per_s": 0.0})
    assert run_status(run.path).items_per_s is None, "a sweep has no speed of one point"
    run.finish({"items_per_s": 2.5})
    found = run_status(run.path)
    assert found.items_per_s == 2.5
    assert "2.50 items/s when it last worked" in found.lines()


def test_the_last_activity_is_the_newest_write_of_any_kind(tmp_path: Path) -> None:
    run = begin(tmp_path / "run")
    for path in (tmp_path / "run").rglob("*"):
        os.utime(path, (1_000, 1_000))
    os.utime(tmp_path / "run" / "lock", (2_000, 2_000))
    found = run_status(run.path, now_s=2_065)
    assert (found.last_activity, found.silent_s) == ("1970-01-01T00:33:20+00:00", 65)
    assert "last written: 1970-01-01T00:33:20+00:00, 1:05 ago" in found.lines()


def test_a_living_driver_is_named_and_a_killed_one_is_not_taken_for_living(tmp_path: Path) -> None:
    run = begin(tmp_path / "run")
    with driver(run) as holder:
        found = run_status(run.path)
        assert found.state == "running"
        assert found.driver is not None
        assert found.driver.startswith(f"pid {holder.pid} on ")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        found = run_status(run.path)
        assert (found.state, (found.driver or "")[:22]) == ("stopped", "none (the last was pid")
        assert "start the same job again: it does only what is missing" in found.lines()


def test_a_driver_that_gave_the_run_back_is_not_running_though_its_process_is(tmp_path: Path) -> None:
    """A notebook: this process held the lock in begin, and lives."""
    assert run_status(begin(tmp_path / "run").path).state == "stopped"


def test_a_run_is_finished_when_all_rows_are_there(tmp_path: Path) -> None:
    run = begin(tmp_path / "run")
    for shard in SHARDS:
        write(run, shard, at_s=time.time())
    found = run_status(run.path)
    assert (found.state, found.eta_s) == ("finished", None)
    with driver(run):
        assert run_status(run.path).state == "running", "for example retry-failed"


def test_a_driver_on_another_machine_is_neither_running_nor_stopped(tmp_path: Path) -> None:
    run = begin(tmp_path / "run")
    (tmp_path / "run" / "lock").write_text("pid 7 on elsewhere since 2026-01-01T00:00:00+00:00\n")
    found = run_status(run.path)
    assert found.state == "unknown"
    assert "pid 7 on elsewhere since 2026-01-01T00:00:00+00:00; on another machine" in (found.driver or "")


def test_looking_leaves_the_run_as_it_was_and_free_for_a_driver(tmp_path: Path) -> None:
    run = begin(tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    run_status(run.path)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before
    with run.lock():
        run_status(run.path)


@pytest.mark.parametrize(
    ("released", "silent_s", "state"),
    [(False, 4.0, "running"), (False, 40.0, "stopped"), (True, 4.0, "stopped")],
)
def test_on_an_object_store_a_driver_lives_while_its_lock_beats(
    released: bool, silent_s: float, state: str
) -> None:
    run = RunDirectory(f"memory://status-{released}-{silent_s}/run")
    run.start(JOB)
    holder = Holder("elsewhere", 7, "2026-01-01T00:00:00+00:00", "another", "token", released=released)
    (run.path / "lock" / "00000001").write_bytes(b"{}")  # an earlier one
    (run.path / "lock" / "00000002").write_bytes(holder.to_json())
    found = run_status(run.path, now_s=time.time() + silent_s)
    assert found.state == state
    assert "pid 7 on elsewhere" in (found.driver or "")


def test_a_folder_of_runs_is_listed_by_name_and_other_things_are_not(tmp_path: Path) -> None:
    for name in ("b", "a"):
        begin(tmp_path / name)
    (tmp_path / "photos").mkdir()
    (tmp_path / "job.yaml").touch()
    assert [Path(run.path).name for run in find_runs(tmp_path)] == ["a", "b"]
    assert [Path(run.path).name for run in find_runs(tmp_path / "a")] == ["a"]
    assert find_runs(tmp_path)[0].line().endswith("a  stopped  0/40 items  0 errors")


def test_a_sweep_is_its_points(tmp_path: Path) -> None:
    begin(tmp_path / "alone")
    sweep = tmp_path / "sweep"
    for name in ("hot", "cold"):
        begin(sweep / "points" / name)
        (sweep / "points" / f"{name}.yaml").touch()
    (sweep / "sweep.json").write_text("{}")
    for shard in SHARDS:
        write(RunDirectory(sweep / "points" / "hot"), shard, at_s=time.time())
    assert [Path(run.path).name for run in find_runs(tmp_path)] == ["alone", "cold", "hot"]
    found = sweep_status(sweep)
    assert found is not None
    first, cold, hot = found.lines()
    assert first == f"{sweep}: a sweep, stopped, 1 of 2 points finished, 40 of 80 rows, 0 errors"
    assert "cold  stopped  0/40" in cold
    assert "hot  finished  40/40" in hot
    assert [point["state"] for point in found.to_json()["points"]] == ["stopped", "finished"]
    assert sweep_status(tmp_path / "alone") is None


SHARD = SHARDS[0].to_json()
GRIDS: list[object] = [
    *[None, 7, "grid", {}, {"a": 1}, [], [7], [None], [[1, 2]], ["s"], [{}], [{"num_rows": 10}]],
    [{**SHARD, "colour": 1}],
    *[
        {**grid_to_json(SHARDS), **other}
        for other in ({"num_rows": [10]}, {"first_row": None}, {"num_rows": "1234"})
    ],
]
ROWS: list[object] = ["10", None, -1, 0, True, 1.5, []]
OTHERS: list[tuple[str, object]] = [
    *[("job_fingerprint", None), ("spec", None), ("spec", ["captions"]), ("identity", "j")],
    *[("shards", grid) for grid in GRIDS],
    *[("shards", [{**SHARD, "num_rows": rows}]) for rows in ROWS],
]
OTHER_SHAPES = [
    *["", "{", "[]", "null", "7", '"job"', "{}", "[" * 100_000, '{"job_fingerprint": 7}'],
    *[json.dumps({**JOB, key: value}) for key, value in OTHERS],
    json.dumps({key: value for key, value in JOB.items() if key != "shards"}),
]


@pytest.mark.parametrize("text", OTHER_SHAPES, ids=range(len(OTHER_SHAPES)))
def test_a_job_of_another_shape_is_one_line_that_names_it_and_hides_no_other_run(
    tmp_path: Path, text: str
) -> None:
    for name in ("a", "b", "c"):
        begin(tmp_path / name)
    (tmp_path / "b" / "job.json").write_text(text)
    with pytest.raises(
        RunDirectoryError, match=r"b/job\.json.*(cannot be read|no job of ours|not an object)"
    ):
        run_status(tmp_path / "b")
    lines = [run.line() for run in find_runs(tmp_path)]
    assert [line.split()[1] for line in lines] == ["stopped", "unreadable:", "stopped"]
    assert "b/job.json" in lines[1]
    assert "\n" not in lines[1]
    assert json.loads(json.dumps([run.to_json()["state"] for run in find_runs(tmp_path)]))[1] == "unreadable"


def test_no_damage_to_the_files_of_a_run_hides_the_others(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d", "e"):
        write(begin(tmp_path / name), SHARDS[0], at_s=time.time(), errors=3)
    (tmp_path / "b" / "job.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "c" / "job.json").unlink()
    (tmp_path / "c" / "job.json").mkdir()
    (tmp_path / "d" / "lock").write_bytes(b"\xff\xfe\x00")
    part = tmp_path / "e" / "parts" / SHARDS[0].part_name
    data = bytearray(part.read_bytes())
    footer_bytes = int.from_bytes(data[-8:-4], "little") + 8
    data[4:-footer_bytes] = b"\0" * (len(data) - 4 - footer_bytes)
    part.write_bytes(data)
    states = {Path(run.path).name: run.to_json()["state"] for run in find_runs(tmp_path)}
    assert states == {"a": "stopped", "b": "unreadable", "c": "unreadable", "d": "unknown", "e": "unreadable"}


def test_a_place_without_a_run_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"has no job\.json; expected a run directory"):
        run_status(tmp_path)
    with pytest.raises(RunDirectoryError, match="no such folder"):
        find_runs(tmp_path / "nowhere")
