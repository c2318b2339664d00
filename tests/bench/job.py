"""What a job costs beside its engines, as ratios in one run: `make bench-job`. Not a test: noisy machines.

Each figure is taken in a process, and on a local Ray, of its own. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cogbatch.batch.backend import Backend
from cogbatch.batch.spec import JobSpec, parse_spec
from tests.bench import demo_rate, driver_cost
from tests.bench.sleepers import InSteps, Noted, OneByOne, notes, sleeping

ROOT = Path(__file__).parents[2]
WORKERS, ITEM_S, SHARD_SIZE = 8, 0.05, 32
Result = dict[str, Any]


def spec_of(folder: Path, prompts: Sequence[object], *, workers: int, shard_size: int) -> JobSpec:
    """A job over text prompts, which say how long an engine sleeps."""
    data = folder / "data.jsonl"
    lines = (json.dumps({"id": str(n), "prompt": str(prompt)}) for n, prompt in enumerate(prompts))
    data.write_text("\n".join(lines) + "\n")
    return parse_spec(
        {
            "model": {"checkpoint": "m"},
            "input": {"path": str(data), "id_column": "id", "image_column": None, "prompt_column": "prompt"},
            "output": {"path": str(folder / "run"), "shard_size": shard_size},
            "cluster": {"min_workers": workers, "max_workers": workers},
        }
    )


def run(spec: JobSpec, backend: Backend) -> float:
    """Wall seconds of the job, Ray not counted: as its own progress counts."""
    from cogbatch.batch.job import run_job

    return run_job(spec, backend=backend).seconds


def worked(spec: JobSpec) -> list[dict[str, float]]:
    """The notes of all workers of a run."""
    return notes(Path(spec.output.path) / "logs")


def busy(folder: Path, shards_per_worker: int = 12) -> Result:
    """Share of the time from a worker's first item to its last in which it sleeps, as its items ask."""
    items = WORKERS * shards_per_worker * SHARD_SIZE
    spec = spec_of(folder, [ITEM_S] * items, workers=WORKERS, shard_size=SHARD_SIZE)
    run(spec, sleeping(OneByOne))
    workers = worked(spec)
    asleep = sum(note["items"] * ITEM_S for note in workers)
    end = max(note["last"] for note in workers)
    return {
        "workers": len(workers),
        "shards": items // SHARD_SIZE,
        "busy_share": round(asleep / sum(note["last"] - note["first"] for note in workers), 4),
        "busy_share_until_the_job_ends": round(asleep / sum(end - note["first"] for note in workers), 4),
    }


def driver(folder: Path, shards: int) -> Result:
    """Cost of shards of one item without work."""
    import ray.data  # what importing takes is no shard's cost

    assert ray.data
    spec = spec_of(folder, [0] * shards, workers=driver_cost.WORKERS, shard_size=1)
    return driver_cost.cost_of(shards, lambda: run(spec, sleeping(OneByOne)))


def ray_alone(folder: Path, shards: int) -> Result:
    """The same of Ray Data with nothing of ours."""
    del folder
    return driver_cost.ray_alone(shards)


def again(folder: Path, parts: int = 10_000) -> Result:
    """A finished job started again, against a listing and the footers read in parallel."""
    import pyarrow.parquet as pq

    spec = spec_of(folder, [0] * parts, workers=1, shard_size=1)
    finish_by_hand(spec)
    names = Path(spec.output.path) / "parts"

    def footers() -> None:
        with ThreadPoolExecutor(16) as pool:
            paths = [names / name for name in os.listdir(names)]  # noqa: PTH208 - a listing, no more
            assert sum(pool.map(lambda path: pq.read_metadata(path).num_rows, paths)) == parts

    listing_s, job_s = [], []
    for _ in range(3):
        begin = time.perf_counter()
        footers()
        listing_s.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        run(spec, sleeping(OneByOne))
        job_s.append(time.perf_counter() - begin)
    return {
        "parts": parts,
        "seconds": round(min(job_s), 2),
        "listing_and_footers_s": round(min(listing_s), 2),
        "ratio": round(min(job_s) / min(listing_s), 2),
        "heavy_imports": sorted({"ray", "torch", "transformers"} & set(sys.modules)),
    }


def finish_by_hand(spec: JobSpec) -> None:
    """Leaves a finished run of one-row shards: the same part under every name."""
    from cogbatch.batch.job import check_job, describe
    from cogbatch.dataset.parts import write_part
    from cogbatch.dataset.rows import Row
    from cogbatch.dataset.run_directory import RunDirectory
    from cogbatch.dataset.schema import record, rows_to_table
    from cogbatch.types import RequestOutput

    backend, directory = sleeping(OneByOne), RunDirectory(spec.output.path)
    dataset, shards = check_job(spec, backend)
    model = backend.prepare(spec.model, print)
    with directory.lock():
        job = directory.start(describe(spec, model, dataset, shards, stored={}))
        row = record(
            Row("f", 0, "0"),
            RequestOutput(""),
            model_fingerprint="m",
            job_fingerprint=job["job_fingerprint"],
        )
        write_part(directory.parts, shards[0].part_name, rows_to_table([row]))
        parts = Path(str(directory.parts))
        for shard in shards[1:]:
            shutil.copyfile(parts / shards[0].part_name, parts / shard.part_name)


def edges(folder: Path, shard_size: int, items: int = 2048) -> Result:
    """One worker over shards against one endless stream through the same engine."""
    rng = random.Random(0)
    prompts = [rng.randint(5, 25) for _ in range(items)]
    spec = spec_of(folder, prompts, workers=1, shard_size=shard_size)
    run(spec, sleeping(InSteps))
    (note,) = worked(spec)
    from cogbatch.types import GenerationRequest

    bare = Noted(InSteps(), folder)
    requests = (GenerationRequest(str(n), None, str(prompt)) for n, prompt in enumerate(prompts))
    for _ in bare.generate(requests):
        pass
    (stream,) = notes(folder)
    loss = 1 - stream["spent_s"] / note["spent_s"]
    return {"shard_size": shard_size, "items": items, "loss": round(loss, 4)}


PIECES: dict[str, Callable[..., Result]] = {
    "busy": busy,
    "driver": driver,
    "ray-alone": ray_alone,
    "again": again,
    "edges": edges,
    "demo-job": demo_rate.job,
    "demo-bare": demo_rate.bare,
}


def start(piece: str, *arguments: str, folder: Path | None = None) -> subprocess.Popen[str]:
    """The piece in a process of its own; its last line is its result."""
    where = [] if folder is None else ["--folder", str(folder)]
    command = [sys.executable, "-m", "tests.bench.job", "--piece", piece, *where, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def measure(piece: str, *arguments: str, folder: Path | None = None) -> Result:
    """The same to its end."""
    process = start(piece, *arguments, folder=folder)
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{piece} {' '.join(arguments)} failed")
    print(f"{piece} {' '.join(arguments)}: {out.splitlines()[-1]}", file=sys.stderr)
    result: Result = json.loads(out.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true", help="10,000 shards, not 3,000 (some minutes).")
    parser.add_argument("--counts", type=int, nargs="*", help="Numbers of shards instead.")
    parser.add_argument("--scenes", type=int, default=1024, help="Of the demo.")
    parser.add_argument(
        "--only", choices=["busy", "driver", "again", "edges", "demo"], nargs="*", help="Only these."
    )
    parser.add_argument("--piece", choices=[*PIECES], help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.piece:
        with tempfile.TemporaryDirectory() as own:
            given = [options.count] if options.count is not None else []
            print(json.dumps(PIECES[options.piece](options.folder or Path(own), *given)))
        return
    wanted = options.only or ["busy", "driver", "again", "edges", "demo"]
    result: Result = {}
    for piece in wanted:
        if piece == "driver":
            counts = options.counts or [100, 1_000, 10_000 if options.large else 3_000]
            rows, rays = (
                [measure(name, "--count", str(count)) for count in counts] for name in (piece, "ray-alone")
            )
            result[piece] = driver_cost.compared(rows, rays)
        elif piece == "edges":
            result[piece] = [measure(piece, "--count", str(size)) for size in (32, 512)]
        elif piece == "demo":
            result[piece] = [
                demo_rate.compared(measure, start, scenes=options.scenes, workers=workers)
                for workers in (2, 1)
            ]
        else:
            result[piece] = measure(piece)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
