"""What runs on simulated nodes that share nothing: each has a cache of its own. Prints one JSON object."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cogbatch.batch.sending import offered, receive
from cogbatch.batch.weights import ensure_folder
from cogbatch.checkpoint.copies import Source
from cogbatch.checkpoint.folder import ProvenFolder, differing_files, prove_folder
from cogbatch.errors import CheckpointError

OFFER = "offer"
STORE_BYTES = 80 * 2**20  # Ray's least, about


def start_nodes(home: Path, names: str, *, num_cpus: int = 2) -> tuple[Cluster, dict[str, Any]]:
    """A cluster whose head does no work, and nodes by name, each with $COGBATCH_CACHE in home/<name>."""
    small = {"object_store_memory": STORE_BYTES, "num_gpus": 0}
    head = {**small, "num_cpus": 0, "include_dashboard": False}
    cluster = Cluster(True, connect=True, head_node_args=head)
    nodes = {
        name: cluster.add_node(**small, num_cpus=num_cpus, env_vars={"COGBATCH_CACHE": str(home / name)})
        for name in names
    }
    return cluster, nodes


def ensure(folder: ProvenFolder, pause_s: float = 0.0) -> str:
    """What a worker does: the path it may load from, or why it must not. Notes every copy in its cache."""
    cache = Path(os.environ["COGBATCH_CACHE"])

    def copy(into: Path) -> None:
        with (cache / "copies").open("a") as log:
            log.write("copied\n")
        receive(OFFER, folder, into, on_progress=lambda: time.sleep(pause_s))

    try:
        return str(ensure_folder(folder, [Source("the driver", copy)]))
    except CheckpointError as err:
        return f"refused: {err}"


def on(node: Any, *arguments: Any) -> Any:
    """Starts `ensure` there."""
    there = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
    return ray.remote(ensure).options(scheduling_strategy=there, max_retries=0).remote(*arguments)


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def names_of_copies(cache: Path) -> list[str]:
    """Of the folders that a cache has whole."""
    return sorted(path.name for path in (cache / "models").glob("weights-*") if path.is_dir())


def copies(home: Path, name: str) -> int:
    return len((home / name / "copies").read_text().split())


def share_nothing(home: Path) -> dict[str, Any]:
    """One life of a model of 100 MB on three nodes whose object stores hold 80."""
    master = home / "master"
    master.mkdir()
    for index in range(2):
        (master / f"weights-{index}").write_bytes(os.urandom(50_000_000 + index))
    (master / "config.json").write_text("{}")
    true = prove_folder(master, [path.name for path in master.iterdir()])
    folder = replace(true, path=str(home / "only-the-driver-has-it"))
    said: dict[str, Any] = {}
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # nodes cannot import from tests
    cluster, nodes = start_nodes(home, "abc")
    try:
        said["without an offer"] = ray.get(on(nodes["a"], folder))
        (home / "a" / "copies").unlink()
        with offered([true], OFFER, patience_s=2.0):
            sender = ray.get_actor(OFFER, namespace="cogbatch")
            # Two workers of a and of b at once; c is killed in the middle, and its copy with it.
            dead = on(nodes["c"], folder, 2.0)
            running = [on(nodes[name], folder) for name in "aabb"]
            while not list((home / "c").glob("models/.weights-*.partial-*/weights-0")):
                time.sleep(0.02)
            cluster.remove_node(nodes.pop("c"), allow_graceful=False)
            said["paths"] = ray.get(running)
            said["equal"] = [differing_files(true, Path(path)) for path in said["paths"]]
            said["copies"] = {name: copies(home, name) for name in "ab"}
            said["chunks"] = ray.get(sender.puts.remote(true.key))
            try:
                said["dead"] = ray.get(dead)
            except ray.exceptions.RayError:
                said["dead"] = "died"
            said["left by the dead"] = names_of_copies(home / "c")
            # A flipped byte in a's copy is found and mended; b's is not touched.
            flip(Path(said["paths"][0]) / "weights-1")
            said["mended"] = ray.get([on(nodes["a"], folder), on(nodes["b"], folder)])
            said["equal again"] = differing_files(true, Path(said["mended"][0]))
            said["copies again"] = {name: copies(home, name) for name in "ab"}
            # b has the directory where the driver has it, with one byte that differs.
            visible = home / "visible"
            visible.mkdir()
            for file in true.files:
                (visible / file.name).write_bytes((master / file.name).read_bytes())
            here = replace(true, path=str(visible))
            said["seen"] = ray.get(on(nodes["b"], here))
            flip(visible / "weights-0")
            said["instead"] = ray.get(on(nodes["b"], here))
            # The driver's own copy is damaged too: nobody may load.
            flip(master / "weights-0")
            (Path(said["paths"][2]) / "config.json").write_text("{ }")
            said["refused"] = ray.get(on(nodes["b"], here))
    finally:
        ray.shutdown()
        cluster.shutdown()
    return said


if __name__ == "__main__":
    print(json.dumps(share_nothing(Path(sys.argv[1]))))
