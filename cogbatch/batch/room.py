"""Whether a worker fits on any node, and what to say when it does not. Arithmetic only, no Ray."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from cogbatch.batch.spec import ClusterSpec

Resources = Mapping[str, float]
SPARE_CPU = 0.5  # of each worker, for Ray Data's own tasks


def fits(resources: Resources, cluster: ClusterSpec) -> bool:
    """Whether a node with these resources, all of them free, has room for one worker."""
    return _has_cpus(resources, cluster) and resources.get("GPU", 0) >= cluster.gpus_per_worker


def no_room(
    nodes: Sequence[Resources], cluster: ClusterSpec, *, node_types: Iterable[Resources] = ()
) -> str | None:
    """Why no worker can start on these nodes, in one phrase; None when one can.

    Args:
        node_types: what the cluster's autoscaler may start; empty when nothing is known of that.
    """
    if any(fits(node, cluster) for node in nodes):
        return None
    need = _named({"GPU": cluster.gpus_per_worker, "CPU": cluster.cpus_per_worker})
    there = Counter(_named(node) for node in nodes).most_common()
    have = "; ".join(f"{count} x {named}" for named, count in there) or "no nodes"
    types = list(node_types)
    if any(fits(node, cluster) for node in types):
        return f"no node has {need} yet; this cluster has {have}, and a node type that fits"
    never = " and no node type that fits" if types else ""
    has_cpus = any(_has_cpus(node, cluster) for node in [*nodes, *types])
    key = "gpus_per_worker" if cluster.gpus_per_worker and has_cpus else "cpus_per_worker"
    return f"no node has {need}; this cluster has {have}{never}: lower cluster.{key}"


def _has_cpus(resources: Resources, cluster: ClusterSpec) -> bool:
    return resources.get("CPU", 0) >= cluster.cpus_per_worker - SPARE_CPU


def _named(resources: Resources) -> str:
    amounts = [f"{resources[name]:g} {name}" for name in ("GPU", "CPU") if resources.get(name)]
    return " and ".join(amounts) or "neither GPU nor CPU"
