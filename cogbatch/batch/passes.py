"""One pass of Ray Data over shard descriptors: the only call of map_batches. What came out is on disk.

A pass may lose shards (a worker died twice, a node was lost); the driver lists the parts and starts another.
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from typing import Any

import ray
import ray.data

from cogbatch.batch.backend import OpenEngine, WorkerPlan
from cogbatch.batch.room import SPARE_CPU
from cogbatch.batch.spec import ClusterSpec
from cogbatch.batch.task import Task
from cogbatch.batch.worker import ShardWorker


def run_pass(
    tasks: Sequence[Task],
    plan: WorkerPlan,
    *,
    open_engine: OpenEngine,
    monitor: Any,
    cluster: ClusterSpec,
    avoid_nodes: Collection[str] = (),
) -> Counter[str]:
    """Offers every task to a pool of workers once, in this order; blocks until all are dealt with.

    Isolated plans get one call at a time and no retry, so that a death blames exactly one item.

    Returns: how many tasks ended with which status; those whose worker died are in none.
    """
    calls = 1 if plan.isolated else 2
    first = first_workers(cluster, len(tasks))
    pool = ray.data.ActorPoolStrategy(
        min_size=first,
        max_size=min(cluster.max_workers, len(tasks)),
        initial_size=first,
        max_tasks_in_flight_per_actor=calls,
        max_concurrent_calls_per_actor=calls,
        enable_true_multi_threading=calls > 1,
    )
    with _quiet_context(), warnings.catch_warnings():
        # The two retry limits have no named parameter yet; pyproject.toml ends Ray's range before 2.64.
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
        results = _offered(tasks).map_batches(
            ShardWorker,
            fn_constructor_args=(plan, open_engine, monitor),
            batch_size=1,
            compute=pool,
            num_cpus=cluster.cpus_per_worker - SPARE_CPU,
            num_gpus=cluster.gpus_per_worker or None,
            label_selector={"ray.io/node-id": f"!in({','.join(avoid_nodes)})"} if avoid_nodes else None,
            max_restarts=-1,
            max_task_retries=0 if plan.isolated else 1,
        )
    return Counter(row["status"] for row in results.iter_rows())


def first_workers(cluster: ClusterSpec, num_tasks: int) -> int:
    """Workers that a pass starts with: all it may have, where no node can come later."""
    workers = cluster.max_workers if cluster.address == "local" else cluster.min_workers
    return min(workers, num_tasks)


def _offered(tasks: Sequence[Task]) -> ray.data.Dataset:
    """One block a task. What they are made of is gone when this returns: a pass may take days."""
    rows = [{"task": task.to_json()} for task in tasks]
    return ray.data.from_items(rows, override_num_blocks=len(rows))


def _quiet_context() -> AbstractContextManager[None]:
    context = copy.deepcopy(ray.data.DataContext.get_current())
    context.max_errored_blocks = -1  # a lost shard is a matter for the next pass
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # Two calls per worker at once are 100 % by Ray's count; its default waits for 175 % before it scales up.
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
    quiet: AbstractContextManager[None] = ray.data.DataContext.current(context)
    return quiet
