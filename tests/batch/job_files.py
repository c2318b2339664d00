"""What job tests read from the files a job leaves behind, and jobs with a driver process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from cogbatch.batch.spec import JobSpec
from cogbatch.dataset.parts import list_parts, read_part
from cogbatch.dataset.run_directory import RunDirectory

DRIVER = """
import json, sys, fake_backend, ray
from cogbatch.batch.job import run_job
from cogbatch.batch.progress import open_progress
from cogbatch.batch.spec import parse_spec
ray.cloudpickle.register_pickle_by_value(fake_backend)
spec = parse_spec(json.load(open(sys.argv[1])))
summary = run_job(spec, backend=fake_backend.FAKE, progress=open_progress())
print(f"{summary.rows} rows, {summary.errors} errors")
"""
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}


def rows_of(spec: JobSpec) -> dict[str, dict[str, object]]:
    """All rows by id; fails when one is there twice."""
    rows: dict[str, dict[str, object]] = {}
    for name in list_parts(spec.output.path):
        for row in read_part(RunDirectory(spec.output.path).parts, name).to_pylist():
            assert row["id"] not in rows, f"{row['id']} twice"
            rows[row["id"]] = row
    return rows


def check_rows(spec: JobSpec, count: int, *, errors: tuple[str, ...] = ()) -> None:
    """All rows i0.. are there once, these ids as errors, the others with an undisturbed run's candidates."""
    rows = rows_of(spec)
    assert set(rows) == {f"i{n}" for n in range(count)}
    assert {name for name, row in rows.items() if row["error"]} == set(errors)
    seed = spec.generation.seed
    for name in rows.keys() - set(errors):
        texts = [candidate["text"] for candidate in rows[name]["candidates"]]
        assert texts == [f"{name}/{seed}/{k}" for k in range(spec.generation.num_candidates)]


def began(spec: JobSpec) -> Counter[str]:
    """How often each item was begun by a worker."""
    logs = RunDirectory(spec.output.path).logs.glob("began-*.txt")
    return Counter(line for log in logs for line in log.read_text().split())


def driver_of(spec: JobSpec, folder: Path, *, program: str = DRIVER) -> list[str]:
    """The command that runs the job with the fake backend in a process, and on a Ray, of its own."""
    text = folder / "job.json"
    text.write_text(spec.model_dump_json())
    return [sys.executable, "-c", program, str(text)]


def start_driver(spec: JobSpec, folder: Path, *, program: str = DRIVER) -> subprocess.Popen[bytes]:
    """The same, started."""
    command = driver_of(spec, folder, program=program)
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for_worker(spec: JobSpec, *, items: int, timeout_s: float = 120.0) -> int:
    """Waits until so many items were begun; the pid of the worker that began the last of them."""
    logs = RunDirectory(spec.output.path).logs
    deadline = time.monotonic() + timeout_s
    while began(spec).total() < items:
        assert time.monotonic() < deadline, "no worker works"
        time.sleep(0.05)
    last = max(logs.glob("began-*.txt"), key=lambda log: log.stat().st_mtime_ns)
    return int(last.stem.removeprefix("began-"))
