"""Laws of room: a worker fits or the reason names what is needed, what is there and what to change."""

from __future__ import annotations

import pytest

from cogbatch.batch.room import fits, no_room
from cogbatch.batch.spec import ClusterSpec

SMALL, BIG = {"CPU": 4.0, "memory": 1e9}, {"CPU": 8.0, "GPU": 1.0}
ONE_GPU = ClusterSpec(gpus_per_worker=1, cpus_per_worker=2)


def test_a_worker_fits_where_all_it_needs_is() -> None:
    assert fits(BIG, ONE_GPU)
    assert not fits(SMALL, ONE_GPU)
    assert not fits({"GPU": 4.0, "CPU": 1.0}, ONE_GPU)
    assert fits(SMALL, ClusterSpec(cpus_per_worker=4))
    assert not fits(SMALL, ClusterSpec(cpus_per_worker=5))


def test_one_node_with_room_is_enough() -> None:
    assert no_room([SMALL, BIG], ONE_GPU) is None


def test_the_reason_names_need_nodes_and_key() -> None:
    assert no_room([SMALL, SMALL], ONE_GPU) == (
        "no node has 1 GPU and 2 CPU; this cluster has 2 x 4 CPU: lower cluster.gpus_per_worker"
    )
    reason = no_room([BIG], ClusterSpec(gpus_per_worker=1, cpus_per_worker=16))
    assert "1 x 1 GPU and 8 CPU: lower cluster.cpus_per_worker" in str(reason)


@pytest.mark.parametrize(
    ("types", "match"),
    [
        ([], "has 1 x 4 CPU: lower"),
        ([SMALL], "has 1 x 4 CPU and no node type that fits: lower"),
        ([SMALL, BIG], "2 CPU yet; this cluster has 1 x 4 CPU, and a node type that fits"),
    ],
)
def test_what_an_autoscaler_could_start_is_said(types: list[dict[str, float]], match: str) -> None:
    assert match in str(no_room([SMALL], ONE_GPU, node_types=types))
