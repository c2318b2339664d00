"""What a shard costs the driver in time and memory, beside Ray Data alone: pieces of tests.bench.job.

What grows with the number of shards is the difference between two runs, each in a process of its own; the
rest is the fixed start. Memory is the driver process's: the monitor is another process on the driver's node.
"""

from __future__ import annotations

import os
import resource
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.bench.peak import anonymous_kb, shared_kb

WORKERS = 2
WATCH_EVERY_S = 0.1
Result = dict[str, Any]


def cost_of(shards: int, run: Callable[[], float]) -> Result:
    """Wall seconds as run gives them, CPU seconds of this process, and how far its memory grew, in kB."""
    before_s = cpu_s()
    with watched() as grown:
        seconds = run()
    return {
        "shards": shards,
        "wall_s": round(seconds, 2),
        "cpu_s": round(cpu_s() - before_s, 2),
        **grown,
        "load_average": round(os.getloadavg()[0], 1),
    }


def ray_alone(shards: int) -> Result:
    """As many smallest rows as shards, through actors that do nothing, with run_pass's options."""
    import ray
    import ray.data

    from cogbatch.batch.cluster import connected
    from cogbatch.batch.passes import _quiet_context
    from cogbatch.batch.spec import ClusterSpec

    def run() -> float:
        begin = time.monotonic()
        pool = ray.data.ActorPoolStrategy(
            min_size=WORKERS,
            max_size=WORKERS,
            initial_size=WORKERS,
            max_tasks_in_flight_per_actor=2,
            max_concurrent_calls_per_actor=2,
            enable_true_multi_threading=True,
        )
        with _quiet_context(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
            rows = ray.data.from_items([{"n": n} for n in range(shards)], override_num_blocks=shards)
            done = rows.map_batches(
                Nothing, batch_size=1, compute=pool, num_cpus=0.9, max_restarts=-1, max_task_retries=1
            )
        assert sum(1 for _ in done.iter_rows()) == shards
        return time.monotonic() - begin

    with (
        TemporaryDirectory() as logs,
        connected(ClusterSpec(max_workers=WORKERS), log=Path(logs) / "ray.log"),
    ):
        return cost_of(shards, run)


class Nothing:
    """The actor that does nothing."""

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[int]]:
        del batch
        return {"n": [0]}


def compared(ours: Sequence[Result], rays: Sequence[Result]) -> Result:
    """All runs, and of both what one shard more costs, between neighbouring numbers of shards."""
    return {
        "runs": ours,
        "ray_alone": rays,
        "a_shard_more": [more(*pair) for pair in pairwise(ours)],
        "a_shard_more_ray_alone": [more(*pair) for pair in pairwise(rays)],
    }


def more(few: Result, many: Result) -> Result:
    """What one shard more costs, between two runs."""
    count = many["shards"] - few["shards"]
    return {
        "from": few["shards"],
        "to": many["shards"],
        "wall_ms": round(1000 * (many["wall_s"] - few["wall_s"]) / count, 2),
        "cpu_ms": round(1000 * (many["cpu_s"] - few["cpu_s"]) / count, 2),
        **{
            f"{name}_bytes": round(1024 * (many[f"{name}_kb"] - few[f"{name}_kb"]) / count)
            for name in ("own", "shared")
        },
    }


@contextmanager
def watched() -> Iterator[dict[str, int]]:
    """How far memory of this process grew in the block at most; filled in at its end."""
    ended, grown = threading.Event(), {"own_kb": 0, "shared_kb": 0}
    before = anonymous_kb(), shared_kb()

    def watch() -> None:
        while not ended.wait(WATCH_EVERY_S):
            for name, now, then in zip(grown, (anonymous_kb(), shared_kb()), before, strict=True):
                grown[name] = max(grown[name], now - then)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield grown
    finally:
        ended.set()
        thread.join()


def cpu_s() -> float:
    """CPU time of this process, user and system."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
