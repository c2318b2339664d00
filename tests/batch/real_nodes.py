"""The demo's model on two simulated nodes that share only the run directory. Prints one JSON object."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import node_programs
import ray

from cogbatch.batch.backend import ReadyModel, Say, WorkerPlan, cogvlm_backend
from cogbatch.batch.job import run_job
from cogbatch.batch.spec import ModelSpec, load_spec
from cogbatch.checkpoint.convert import convert

DEMO = Path(__file__).parents[2] / "jobs" / "demo"


def run(home: Path) -> dict[str, object]:
    """Runs it; the nodes are told of paths that only the driver has."""
    real = cogvlm_backend()
    models: list[ReadyModel] = []

    def prepare(spec: ModelSpec, say: Say) -> ReadyModel:
        models.append(ready := real.prepare(spec, say))
        elsewhere = tuple(replace(folder, path=f"/elsewhere{folder.path}") for folder in ready.folders)
        return replace(ready, path=f"/elsewhere{ready.path}", folders=elsewhere)

    def offer(plan: WorkerPlan) -> AbstractContextManager[None]:
        return real.offer(replace(plan, model=models[0]))

    convert(DEMO / "checkpoint", home / "model", version="base")  # the tokenizer is another directory
    values = {
        "model.checkpoint": home / "model",
        "model.tokenizer": DEMO / "tokenizer",
        "input.path": DEMO / "data" / "*.parquet",
        "output.path": home / "run",
        "output.shard_size": 4,
        "input.limit": 32,
        "generation.num_candidates": 2,
        "generation.max_new_tokens": 8,
        "cluster.address": "auto",
        "cluster.min_workers": 2,
    }
    spec = load_spec(DEMO / "job.yaml", overrides=[f"{key}={value}" for key, value in values.items()])
    cluster, _ = node_programs.start_nodes(home, "ab", num_cpus=1)
    try:
        summary = run_job(spec, backend=replace(real, prepare=prepare, offer=offer))
    finally:
        ray.shutdown()
        cluster.shutdown()
    copied = {name: node_programs.names_of_copies(home / name) for name in "ab"}
    keys = sorted(f"weights-{folder.key}" for folder in models[0].folders)
    return {"rows": summary.rows, "errors": summary.errors, "copied": copied, "keys": keys}


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]))))
