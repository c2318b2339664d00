"""The connection to Ray for the time of a job: one started here, or the one this machine belongs to."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from cogbatch.batch.room import Resources, no_room
from cogbatch.batch.signals import held_back
from cogbatch.batch.spec import ClusterSpec
from cogbatch.errors import JobError
from cogbatch.redact import one_line

SPARE_CPUS = 2  # for Ray Data's own tasks, which starve when workers hold every CPU
OBJECT_STORE_BYTES = 256 * 2**20  # only shard descriptors and counts travel through it


@contextmanager
def connected(cluster: ClusterSpec, *, log: Path) -> Iterator[None]:
    """Ray for the time of the block; one that this process already runs is used and left alone.

    Args:
        log: where Ray's own messages go instead of the terminal.

    Raises:
        JobError: address is auto and there is no cluster, or Ray does not start or a worker does not fit.
    """
    if ray.is_initialized():
        _require_room(cluster)
        yield
        return
    with _terminal_to(log):
        try:
            try:
                with held_back():
                    _start(cluster)
            except Exception as err:  # Ray has no class for it: a busy machine, no room, a path too long
                raise JobError(_why_not(cluster, err, log)) from err
            _require_room(cluster)
            yield
        finally:
            with held_back():
                ray.shutdown()


def _why_not(cluster: ClusterSpec, err: Exception, log: Path) -> str:
    if cluster.address == "auto" and isinstance(err, ConnectionError):
        return (
            "cluster.address: auto: this machine belongs to no running Ray cluster;"
            " start one (ray start --head) or use --address local."
        )
    what = "the Ray cluster could not be joined" if cluster.address == "auto" else "Ray could not start"
    return (
        f"{what} on this machine: {one_line(err)}; what it printed is in {log};"
        " when that is solved, or the machine is less busy, run the same command again"
    )


def living_nodes() -> dict[str, Resources]:
    """Resources of the nodes that are alive, free or not, by node id."""
    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def node_types() -> list[Resources]:
    """Resources of the kinds of nodes that the cluster's autoscaler may start; empty without one."""
    config = ray._private.state.state.get_cluster_config()  # there is no public way to it
    groups = config.node_group_configs if config is not None else ()
    return [dict(group.resources) for group in groups if group.max_count]


def _require_room(cluster: ClusterSpec) -> None:
    """Nothing can be added to a local cluster: what does not fit now never will."""
    reason = no_room(list(living_nodes().values()), cluster) if cluster.address == "local" else None
    if reason is not None:
        raise JobError(reason)


def _start(cluster: ClusterSpec) -> None:
    if cluster.address == "auto":
        ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
        return
    ray.init(
        address="local",
        num_cpus=cluster.max_workers * cluster.cpus_per_worker + SPARE_CPUS,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=OBJECT_STORE_BYTES,
    )


@contextmanager
def _terminal_to(log: Path) -> Iterator[None]:
    """File descriptors 1 and 2 go to a file: Ray writes to both, whatever the logging level.

    Progress has a descriptor of its own; results are printed after this.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    _flush()
    saved = [os.dup(descriptor) for descriptor in (1, 2)]
    with log.open("ab") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    try:
        yield
    finally:
        with held_back():  # or what is said of it would be in the log
            _flush()
            for descriptor, own in zip((1, 2), saved, strict=True):
                os.dup2(own, descriptor)
                os.close(own)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
