"""The specs in jobs/ are ready: every key is known, and what they teach is what the code does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cogbatch.batch.spec import load_spec

JOBS = Path(__file__).parents[2] / "jobs"
SPECS = sorted(path.name for path in JOBS.glob("*.yaml") if path.name != "rayjob.yaml")


def test_there_is_a_spec_for_each_use() -> None:
    assert SPECS == ["caption.yaml", "questions.yaml", "spot.yaml"]


@pytest.mark.parametrize("name", SPECS)
def test_every_key_is_known(name: str) -> None:
    spec = load_spec(JOBS / name)
    assert (spec.cluster.address, spec.cluster.gpus_per_worker) == ("auto", 1)
    assert spec.cluster.min_workers < spec.cluster.max_workers
    assert spec.output.path.startswith(("/shared/runs/", "s3://")), "where all nodes see it"


@pytest.fixture
def rayjob() -> dict[str, Any]:
    value: dict[str, Any] = yaml.safe_load((JOBS / "rayjob.yaml").read_text())
    return value


def test_the_rayjob_runs_a_spec_on_the_cluster_that_it_brings(rayjob: dict[str, Any]) -> None:
    assert (rayjob["apiVersion"], rayjob["kind"]) == ("ray.io/v1", "RayJob")
    spec = rayjob["spec"]
    assert spec["entrypoint"] == "cogbatch run /job/job.yaml --address auto"
    assert spec["shutdownAfterJobFinishes"] is True
    cluster = spec["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"] is True
    (gpu,) = cluster["workerGroupSpecs"]
    assert gpu["minReplicas"] <= gpu["replicas"] <= gpu["maxReplicas"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-gpus"] == "0"


def test_every_pod_of_the_rayjob_is_complete(rayjob: dict[str, Any]) -> None:
    """One image, telemetry off, a GPU for workers only, and every mounted volume is declared."""
    cluster = rayjob["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    pods = [group["template"]["spec"] for group in groups]
    containers = [container for pod in pods for container in pod["containers"]]
    assert len({container["image"] for container in containers}) == 1
    for pod in pods:
        declared = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == declared
            assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in container["env"]
            assert container["resources"]["requests"] == container["resources"]["limits"]
    assert ["nvidia.com/gpu" in each["resources"]["limits"] for each in containers] == [False, True]
