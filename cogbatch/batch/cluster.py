"""The connection to Ray for the time of a job: one started here, or the one this machine belongs to."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from cogbatch.batch.spec import ClusterSpec
from cogbatch.errors import JobError

SPARE_CPUS = 2  # for Ray Data's own tasks, which starve when workers hold every CPU
OBJECT_STORE_BYTES = 256 * 2**20  # only shard descriptors and counts travel through it


@contextmanager
def connected(cluster: ClusterSpec, *, log: Path) -> Iterator[None]:
    """Ray for the time of the block; one that this process already runs is used and left alone.

    Args:
        log: where Ray's own messages go instead of the terminal.

    Raises:
        JobError: address is auto and there is no cluster.
    """
    if ray.is_initialized():
        yield
        return
    with _stderr_to(log):
        try:
            _start(cluster)
        except ConnectionError as err:
            raise JobError(
                "cluster.address: auto: this machine belongs to no running Ray cluster;"
                " start one (ray start --head) or use --address local."
            ) from err
        try:
            yield
        finally:
            ray.shutdown()


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
def _stderr_to(log: Path) -> Iterator[None]:
    """File descriptor 2 goes to a file: Ray's C++ parts write there whatever the logging level."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    saved = os.dup(2)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)
