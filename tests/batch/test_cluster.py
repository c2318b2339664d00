"""Laws of joining a cluster, each in a process of its own: the one Ray of the other tests is not joined."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_backend import MakeSpec

pytestmark = pytest.mark.ray

LONELY = """
import sys, ray, psutil
from pathlib import Path
from cogbatch.batch.cluster import connected
from cogbatch.batch.spec import ClusterSpec
from cogbatch.errors import JobError
psutil.PROCFS_PATH = sys.argv[1]
try:
    with connected(ClusterSpec(address=sys.argv[2]), log=Path(sys.argv[1]) / "ray.log"):
        print("connected")
except JobError as err:
    print(err)
"""

GROWING = """
import json, os, sys, fake_backend, ray
from pathlib import Path
from ray.cluster_utils import Cluster
from cogbatch.batch.job import run_job
from cogbatch.batch.spec import parse_spec

ray.cloudpickle.register_pickle_by_value(fake_backend)
small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
cluster = Cluster(True, head_node_args={**small, "num_gpus": 0, "include_dashboard": False})
os.environ["RAY_ADDRESS"] = cluster.address
nodes, said = [], []

class Watch:
    def say(self, line):
        said.append(line)
        if line.startswith("waiting for a worker"):
            nodes.extend(cluster.add_node(**small, num_gpus=1) for _ in range(2))

    def update(self, status):
        if status.rows >= 16 and len(nodes) == 2:
            cluster.remove_node(nodes.pop(), allow_graceful=False)

    def close(self):
        pass

spec = parse_spec(json.loads(Path(sys.argv[1]).read_text()))
summary = run_job(spec, backend=fake_backend.FAKE, progress=Watch())
cluster.shutdown()
print(json.dumps({"said": said, "rows": summary.rows, "errors": summary.errors, "nodes": len(nodes)}))
"""


def run(program: str, *arguments: Path | str, **environment: str) -> str:
    """What the program prints in a process of its own."""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    env = {**os.environ, "PYTHONPATH": path, **environment}
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_auto_without_a_cluster_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    """Ray looks for a cluster in its folder and among all processes: here it finds neither."""
    (tmp_path / "1").mkdir()
    said = run(LONELY, tmp_path, "auto", RAY_TMPDIR=str(tmp_path), RAY_ADDRESS="")
    assert "belongs to no running Ray cluster; start one (ray start --head) or use --address local" in said


def test_a_ray_that_does_not_start_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    """Paths of sockets must be short."""
    said = run(LONELY, tmp_path, "local", RAY_TMPDIR=str(tmp_path / ("x" * 120)), RAY_ADDRESS="")
    assert said.startswith("Ray could not start on this machine: ")
    assert said.endswith("run the same command again\n")


@pytest.mark.slow
def test_auto_waits_aloud_for_a_node_and_losing_one_blames_nobody(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    cluster = {"address": "auto", "min_workers": 2, "max_workers": 2, "gpus_per_worker": 1}
    spec = make_spec(["sleep 0.1"] * 60, cluster=cluster, errors={"shard_attempts": 1})
    job = tmp_path / "job.json"
    job.write_text(spec.model_dump_json())
    result = json.loads(run(GROWING, job).splitlines()[-1])
    waiting = "waiting for a worker: no node has 1 GPU and 1 CPU; this cluster has 1 x 1 CPU: lower"
    assert sum(line.startswith(waiting) for line in result["said"]) == 1
    assert (result["rows"], result["errors"], result["nodes"]) == (60, 0, 1)
