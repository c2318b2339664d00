"""The demo end to end: the workers of a job against as many bare engines, each with its share of the shards,
in processes of their own: pieces of tests.bench.job. Both in turn, because machines are noisy.

A rate is that of the time between the first request that any engine took and the last output that any gave.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cogbatch.batch.backend import Backend, cogvlm_backend
from cogbatch.batch.spec import JobSpec, load_spec
from jobs.demo.table import scene_table, write
from tests.bench.sleepers import Noted, notes

ROOT = Path(__file__).parents[2]
SEED = 20_000  # scenes that no other figure is about
ROUNDS = 3
Result = dict[str, Any]


def compared(
    measure: Callable[..., Result], start: Callable[..., Any], *, scenes: int, workers: int
) -> Result:
    """Rates of both and their ratio: the middle one of the rounds.

    Args:
        measure: runs a piece in a process of its own to its end; start: begins it.
    """
    rounds = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write(scene_table(num_scenes=scenes, seed=SEED), folder / "scenes.parquet", row_group_size=256)
            count = ("--count", str(workers))
            engines: list[subprocess.Popen[str]] = [
                start("demo-bare", *count, folder=folder) for _ in range(workers)
            ]
            if any(engine.wait() for engine in engines):
                raise SystemExit("demo-bare failed")
            bare = rate(folder)
            job = measure("demo-job", *count, folder=folder)["items_per_s"]
            rounds.append({"bare": round(bare, 2), "job": job, "job_over_bare": round(job / bare, 3)})
    middle = statistics.median(one["job_over_bare"] for one in rounds)
    return {"scenes": scenes, "workers": workers, "rounds": rounds, "job_over_bare": middle}


def job(folder: Path, workers: int) -> Result:
    """The demo's own job."""
    from cogbatch.batch.job import run_job

    spec = spec_of(folder, workers)
    summary = run_job(spec, backend=noted_cogvlm())
    return {"items_per_s": round(rate(Path(spec.output.path) / "logs"), 2), "shards": summary.shards}


def bare(folder: Path, workers: int) -> Result:
    """One of the processes; all begin when all are ready."""
    from cogbatch.batch.job import check_job, job_plan, worker_plan
    from cogbatch.dataset.run_directory import RunDirectory
    from cogbatch.types import GenerationRequest

    spec, backend = spec_of(folder, workers), cogvlm_backend()
    dataset, shards = check_job(spec, backend)
    model = backend.prepare(spec.model, print)
    plan = worker_plan([job_plan(spec, RunDirectory(folder), dataset, {"job_fingerprint": "j"})], spec, model)
    engine = Noted(backend.open_engine(replace(plan, num_threads=1), lambda _: None), folder)
    place = next(number for number in range(workers) if _first(folder / f"ready-{number}"))
    while len(list(folder.glob("ready-*"))) < workers:
        time.sleep(0.01)
    rows = (row for shard in shards[place::workers] for row in dataset.read(shard))
    params = spec.generation
    requests = (GenerationRequest(row.id, row.image, row.prompt, params=params) for row in rows)
    return {"items": sum(1 for _ in engine.generate(requests))}


def rate(folder: Path) -> float:
    """Items a second of all engines that left notes in a folder."""
    found = notes(folder)
    return sum(note["items"] for note in found) / (
        max(note["last"] for note in found) - min(note["first"] for note in found)
    )


def spec_of(folder: Path, workers: int) -> JobSpec:
    """The demo's own job over the scenes in a folder."""
    os.chdir(ROOT)
    overrides = [
        f"output.path={folder / 'run'}",
        f"input.path={folder / 'scenes.parquet'}",
        f"cluster.max_workers={workers}",
    ]
    return load_spec("jobs/demo/job.yaml", overrides=overrides)


def noted_cogvlm() -> Backend:
    """CogVLM whose workers note when they were at work."""
    backend = cogvlm_backend()

    def open_engine(plan: Any, on_progress: Any) -> Noted:
        return Noted(backend.open_engine(plan, on_progress), Path(plan.home) / "logs")

    return replace(backend, open_engine=open_engine)


def _first(file: Path) -> bool:
    """Whether this process is the one that made the file."""
    try:
        file.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
