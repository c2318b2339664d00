"""Laws of jobs on several nodes, on a real cluster within one machine: its nodes fail, go and come."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_backend import MakeSpec
from job_files import ENVIRONMENT, check_rows

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NODES = """
import json, os, sys, fake_backend, ray
from dataclasses import replace
from pathlib import Path
from ray.cluster_utils import Cluster
from cogbatch.batch.job import run_job
from cogbatch.batch.spec import parse_spec

ray.cloudpickle.register_pickle_by_value(fake_backend)
small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
cluster = Cluster(True, head_node_args={**small, "num_gpus": 0, "include_dashboard": False})
os.environ["RAY_ADDRESS"] = cluster.address
good, other = (cluster.add_node(**small, num_gpus=1) for _ in range(2))
tree = json.loads(Path(sys.argv[1]).read_text())
results = {}


class Watch:
    def __init__(self, act):
        self.said, self.act, self.acted = [], act, False

    def say(self, line):
        self.said.append(line)

    def update(self, status):
        if status.rows >= 12 and not self.acted:
            self.acted = True
            self.act()

    def close(self):
        pass


def job(name, act, **changes):
    watch = Watch(act)
    output = {**tree["output"], "path": f"{tree['output']['path']}-{name}"}
    spec = parse_spec({**tree, **changes, "output": output})
    backend = replace(fake_backend.FAKE, open_engine=fake_backend.refuse_on_node)
    summary = run_job(spec, backend=backend, progress=watch)
    logs = list((Path(spec.output.path) / "logs").glob("began-*.txt"))
    begun = sum(len(log.read_text().split()) for log in logs)
    nodes = len(list((Path(spec.output.path) / "logs").glob("node-*")))
    results[name] = {"said": watch.said, "errors": summary.errors, "nodes": nodes, "begun": begun}


nothing = lambda: None
job("refused", nothing, model={"checkpoint": other.node_id})
job("lost", lambda: cluster.remove_node(other, allow_graceful=False), errors={"shard_attempts": 1})
data = Path(tree["input"]["path"])
lines = data.read_text().splitlines()
lines[20] = lines[20].replace("sleep 0.2", "await 2")  # or the job might end before the node is there
(data.parent / "await.jsonl").write_text("\\n".join(lines))
path = {"path": str(data.parent / "await.jsonl")}
job("joined", lambda: cluster.add_node(**small, num_gpus=1), input={**tree["input"], **path})
cluster.shutdown()
print(json.dumps(results))
"""
Results = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nodes")


@pytest.fixture
def results(make_spec: MakeSpec, folder: Path) -> Results:
    """Three jobs on one cluster, run once: what each said, and the files it left behind."""
    cluster = {"address": "auto", "min_workers": 1, "max_workers": 2, "gpus_per_worker": 1}
    spec = make_spec(["sleep 0.2"] * 60, cluster=cluster, output={"path": str(folder / "run")})
    if not (folder / "results.json").exists():
        Path(spec.input.path).rename(folder / "data.jsonl")
        tree = spec.model_dump(mode="json")
        tree["input"]["path"] = str(folder / "data.jsonl")
        (folder / "job.json").write_text(json.dumps(tree))
        command = [sys.executable, "-c", NODES, str(folder / "job.json")]
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (folder / "results.json").write_text(done.stdout.splitlines()[-1])
    loaded: Results = json.loads((folder / "results.json").read_text())
    for name, result in loaded.items():
        check_rows(
            spec.model_copy(
                update={"output": spec.output.model_copy(update={"path": f"{spec.output.path}-{name}"})}
            ),
            60,
        )
        assert result["errors"] == 0
    return loaded


def test_a_node_whose_gpu_fails_at_start_is_left_out_and_the_job_goes_on(results: Results) -> None:
    said = [line for line in results["refused"]["said"] if line.startswith("a node is left out")]
    assert len(said) == 1
    assert "CUDA error: no device is free" in said[0]
    assert (results["refused"]["nodes"], results["refused"]["begun"]) == (1, 60)


def test_losing_a_node_for_good_makes_no_error_row_even_with_one_attempt(results: Results) -> None:
    assert results["lost"]["nodes"] == 2
    assert 60 <= results["lost"]["begun"] <= 68, "at most its two shards in flight are redone"


def test_a_node_that_joins_while_the_job_runs_gets_a_worker(results: Results) -> None:
    assert (results["joined"]["nodes"], results["joined"]["begun"]) == (2, 60)
