"""Laws of a driver that loses its lock while it runs, as real processes: it stops, another goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fake_backend import MakeSpec
from job_files import ENVIRONMENT, began, check_rows, driver_of, wait_for_worker

from cogbatch.batch.spec import JobSpec
from cogbatch.dataset.object_path import ObjectPath
from cogbatch.dataset.run_directory import RunDirectory
from cogbatch.dataset.run_lock import Holder
from tests.s3 import s3_server

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

ITEMS = 120
IN_FLIGHT = 2 * 2 * 4  # items: workers x shards each x items of a shard
LOST = "this driver has lost its lock: "


@contextmanager
def driver(spec: JobSpec, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The job in a process of its own, killed in the end."""
    process = subprocess.Popen(
        driver_of(spec, folder),
        env={**os.environ, "PYTHONPATH": ENVIRONMENT["PYTHONPATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def end_of(process: subprocess.Popen[str], *, timeout_s: float = 300.0) -> tuple[int, str]:
    """Its exit code and what it said."""
    _, said = process.communicate(timeout=timeout_s)
    return process.returncode, said


def goes_on(spec: JobSpec, folder: Path) -> None:
    """Another driver ends the job: every row is there once, and only what was in flight was done twice."""
    with driver(spec, folder) as second:
        code, said = end_of(second)
        assert code == 0, said
    check_rows(spec, ITEMS)
    assert began(spec).total() - ITEMS <= IN_FLIGHT


@pytest.fixture
def on_s3(make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[JobSpec]:
    with s3_server() as environment:
        for name, value in {**environment, "COGBATCH_CACHE": str(tmp_path / "cache")}.items():
            monkeypatch.setenv(name, value)
        spec = make_spec(["sleep 0.2"] * ITEMS, output={"path": "s3://bucket/run"})
        yield spec


def taken_over(lock: ObjectPath) -> None:
    holder = Holder("there", 7, "1999", "another machine", "its token")
    (lock / "00000009").write_bytes(holder.to_json())


def deleted(lock: ObjectPath) -> None:
    for _ in range(60):  # a beat that was on its way writes it once more
        lock.remove_tree()
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("lose", "reason"),
    [(taken_over, "pid 7 on there since 1999 took it over"), (deleted, "s3://bucket/run/lock was deleted")],
)
def test_on_s3_a_driver_stops_when_its_lock_is_taken_over_or_deleted(
    on_s3: JobSpec, tmp_path: Path, lose: Callable[[ObjectPath], None], reason: str
) -> None:
    run = RunDirectory(on_s3.output.path)
    assert isinstance(run.path, ObjectPath)
    with driver(on_s3, tmp_path) as first:
        wait_for_worker(on_s3, items=8)
        lose(run.path / "lock")
        code, said = end_of(first)
    assert code == 1
    assert f"{run.path}: {LOST}{reason}" in said
    if lose is taken_over:  # it gives the lock back
        holder = Holder("there", 7, "1999", "another machine", "its token", released=True)
        (run.path / "lock" / "00000009").write_bytes(holder.to_json())
    goes_on(on_s3, tmp_path)


def test_on_s3_a_driver_that_was_frozen_finds_another_at_work_and_stops(
    on_s3: JobSpec, tmp_path: Path
) -> None:
    """Frozen with its workers at work, as a machine that sleeps; both drivers are alive in the end."""
    with driver(on_s3, tmp_path) as first:
        wait_for_worker(on_s3, items=8)
        first.send_signal(signal.SIGSTOP)
        try:
            with driver(on_s3, tmp_path) as second:
                while ObjectPath(f"{on_s3.output.path}/lock").names() != ["00000002"]:
                    assert second.poll() is None, end_of(second)
                    time.sleep(0.5)
                first.send_signal(signal.SIGCONT)
                code, said = end_of(first)
                assert code == 1
                assert LOST in said
                assert f"pid {second.pid} on " in said
                code, said = end_of(second)
                assert code == 0, said
                assert "is silent: its lock is taken over" in said
        finally:
            first.send_signal(signal.SIGCONT)
    check_rows(on_s3, ITEMS)


def test_on_disk_a_driver_stops_when_its_lock_is_deleted_and_the_next_one_goes_on(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    spec = make_spec(["sleep 0.2"] * ITEMS)
    with driver(spec, tmp_path) as first:
        wait_for_worker(spec, items=8)
        (Path(spec.output.path) / "lock").unlink()
        code, said = end_of(first)
    assert code == 1
    assert f"{LOST}{spec.output.path}/lock was deleted or replaced" in said
    goes_on(spec, tmp_path)
