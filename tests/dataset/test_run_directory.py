"""One directory, one job, one driver; what is on disk is the truth."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cogbatch.dataset.parts import write_part
from cogbatch.dataset.rows import Row
from cogbatch.dataset.run_directory import RunDirectory
from cogbatch.dataset.schema import record, rows_to_table
from cogbatch.dataset.shards import Shard
from cogbatch.errors import RunDirectoryError
from cogbatch.types import RequestOutput

JOB = {"job_fingerprint": "j1", "identity": {"generation": {"temperature": 0.8, "seed": 0}, "limit": None}}
OTHER = {"job_fingerprint": "j2", "identity": {"generation": {"temperature": 0.9, "seed": 0}, "limit": 5}}
SHARDS = (Shard(0, 0, 0, 3), Shard(1, 0, 3, 2))


def table(shard: Shard, *, job: str = "j1"):
    return rows_to_table(
        [
            record(Row("f", row, str(row)), RequestOutput(""), model_fingerprint="m", job_fingerprint=job)
            for row in range(shard.first_row, shard.first_row + shard.num_rows)
        ]
    )


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    run = RunDirectory(tmp_path / "run")
    with run.lock():
        run.start(JOB)
    return run


def test_a_new_job_is_written_and_the_same_one_resumes_with_the_first_grid(tmp_path) -> None:
    run = RunDirectory(tmp_path / "deep" / "run")
    with run.lock():
        first = run.start({**JOB, "shards": [shard.to_json() for shard in SHARDS]})
    assert tuple(Shard.from_json(shard) for shard in first["shards"]) == SHARDS
    with run.lock():
        assert run.start({**JOB, "shards": "another grid"}) == first == run.read_job()
    names = {path.name for path in run.path.iterdir()}
    assert names == {"job.json", "parts", "logs", "staging", "probes", "lock"}


def test_another_job_is_refused_key_by_key(run) -> None:
    with run.lock(), pytest.raises(RunDirectoryError, match="belongs to another job") as caught:
        run.start(OTHER)
    assert "generation.temperature: 0.8 -> 0.9, limit: null -> 5;" in str(caught.value)
    assert "seed" not in str(caught.value)
    assert run.read_job() == JOB


def test_a_directory_that_holds_something_else_is_refused_untouched(tmp_path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    foreign = r"holds something else than a run \(photo.jpg\)"
    with pytest.raises(RunDirectoryError, match=foreign), RunDirectory(tmp_path).lock():
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]
    with pytest.raises(RunDirectoryError, match="is a file"), RunDirectory(tmp_path / "photo.jpg").lock():
        pass
    with pytest.raises(RunDirectoryError, match=r"'nosuch://bucket/run': this address cannot be opened"):
        RunDirectory("nosuch://bucket/run")
    with pytest.raises(RunDirectoryError, match=r"'s3://\*\*\*@bucket/run': an address with a secret"):
        RunDirectory("s3://key:secret@bucket/run")


def test_an_empty_directory_and_one_of_a_driver_killed_at_once_can_be_used(tmp_path) -> None:
    (tmp_path / ".gitkeep").touch()
    with RunDirectory(tmp_path).lock():
        pass  # killed before job.json
    with RunDirectory(tmp_path).lock():
        assert RunDirectory(tmp_path).start(JOB) == JOB


def test_a_damaged_job_file_and_parts_without_a_job_are_refused(run) -> None:
    for content in ("{", "[]", "{}"):
        (run.path / "job.json").write_text(content)
        with pytest.raises(RunDirectoryError, match=r"job\.json"):
            run.start(JOB)
    (run.path / "job.json").unlink()
    write_part(run.parts, SHARDS[0].part_name, table(SHARDS[0]))
    with pytest.raises(RunDirectoryError, match=r"has parts but no job\.json"):
        run.start(JOB)


def test_a_second_driver_is_refused_with_the_first_ones_pid_and_host(run) -> None:
    first = rf"in use by another driver \(pid {os.getpid()} on "
    with run.lock(), pytest.raises(RunDirectoryError, match=first), run.lock():
        pass
    with run.lock():
        pass


def test_the_lock_of_a_killed_driver_is_free_at_once(run) -> None:
    code = f"""
import os, signal
from cogbatch.dataset.run_directory import RunDirectory
with RunDirectory({str(run.path)!r}).lock():
    print("locked", flush=True)
    signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as driver:
        assert driver.stdout.readline() == b"locked\n"
        with pytest.raises(RunDirectoryError, match=f"pid {driver.pid} on"), run.lock():
            pass
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    with run.lock():
        pass


def test_missing_shards_are_those_without_a_complete_part_of_this_job(run) -> None:
    assert run.missing(SHARDS) == SHARDS
    write_part(run.parts, SHARDS[0].part_name, table(SHARDS[0]))
    assert run.missing(SHARDS) == SHARDS[1:]
    write_part(run.parts, SHARDS[1].part_name, table(SHARDS[1], job="another"))
    assert run.missing(SHARDS) == SHARDS[1:]
    write_part(run.parts, SHARDS[1].part_name, table(SHARDS[1]))
    assert run.missing(SHARDS) == ()
    assert [footer.num_rows for footer in run.footers()] == [3, 2]
    whole = (run.parts / SHARDS[0].part_name).read_bytes()
    (run.parts / SHARDS[0].part_name).write_bytes(whole[:-10])
    assert run.missing(SHARDS) == SHARDS[:1]
    (run.path / "job.json").unlink()  # what the parts belong to is not known any more: nothing is redone
    with pytest.raises(RunDirectoryError, match=r"job\.json is gone, .*; restore it"):
        run.missing(SHARDS)


def test_staged_items_are_no_part_until_all_are_there_and_then_exactly_one(run) -> None:
    shard, job = SHARDS[0], {"job_fingerprint": "j1"}
    for item in shard.split()[1:]:
        write_part(run.staging(shard), item.part_name, table(item))
    first = shard.split()[0]
    write_part(run.staging(shard), first.part_name, table(first, job="another"))
    assert run.missing_staged(shard, **job) == (first,)
    assert run.missing(SHARDS) == SHARDS
    assert run.commit_staged(shard, **job) is None
    write_part(run.staging(shard), first.part_name, table(first))
    assert run.commit_staged(shard, **job).num_rows == 3
    assert pq.read_table(run.parts / shard.part_name).equals(table(shard))
    assert run.missing(SHARDS) == SHARDS[1:]
    assert list((run.path / "staging").iterdir()) == []


def test_start_removes_the_staging_of_finished_parts_and_no_other(run) -> None:
    """A driver killed between the part and the removal of its items."""
    for shard in SHARDS:
        item = shard.split()[0]
        write_part(run.staging(shard), item.part_name, table(item))
    write_part(run.parts, SHARDS[0].part_name, table(SHARDS[0]))
    half = run.staging(SHARDS[1]) / ".part-0-4-1.parquet.ab.tmp"
    half.write_bytes(b"half")
    run.start(JOB)
    assert [folder.name for folder in (run.path / "staging").iterdir()] == ["part-0-3-2"]
    assert not half.exists()
    assert len(run.missing_staged(SHARDS[1], job_fingerprint="j1")) == 1


def test_a_probe_is_read_back_and_needs_the_drivers_storage(run, tmp_path) -> None:
    worker = pickle.loads(pickle.dumps(run))
    assert run.read_probe("w1") is None
    worker.write_probe("token", "w1")
    assert run.read_probe("w1") == "token"
    with pytest.raises(RunDirectoryError, match="must see the same storage"):
        RunDirectory(tmp_path / "elsewhere").write_probe("token", "w1")
    with pytest.raises(ValueError, match="plain file name"):
        run.write_probe("token", "../w1")


def test_start_removes_what_killed_writers_left(run) -> None:
    (run.parts / ".part-0-0-3.parquet.ab.tmp").write_bytes(b"half")
    run.write_probe("old", "w1")
    run.start(JOB)
    assert list(run.parts.iterdir()) == []
    assert run.read_probe("w1") is None


def test_a_finished_run_has_a_summary_and_nothing_staged(run) -> None:
    shard = SHARDS[0]  # split by a driver that was killed, then written whole by the next one
    (run.staging(shard) / shard.split()[0].part_name).write_bytes(b"an item")
    run.finish({"rows": 3})
    assert list((run.path / "staging").iterdir()) == []
    assert (run.path / "summary.json").read_text() == '{\n  "rows": 3\n}\n'


def test_a_relative_path_means_the_same_after_a_change_of_directory(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert RunDirectory("run").path == Path(tmp_path) / "run"


def test_a_path_below_home_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert RunDirectory("~/runs/a").path == tmp_path / "runs" / "a"
