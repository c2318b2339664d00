"""A task: a shard of one of the jobs that a driver runs, and where its part goes. A plain value."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, repeat
from typing import NamedTuple

from cogbatch.dataset.shards import Shard

Missing = Mapping[int, tuple[Shard, ...]]  # by the place of the job; no job without a shard


class TaskKey(NamedTuple):
    """Names a task in one pass: parts of two jobs may share their name. job: its place in WorkerPlan.jobs."""

    job: int
    part: str


@dataclass(frozen=True, slots=True)  # there may be 100,000
class Task:
    """One call of a worker. folder: that the part is written to."""

    job: int
    shard: Shard
    folder: str

    @property
    def key(self) -> TaskKey:
        """What workers and the monitor call it."""
        return TaskKey(self.job, self.shard.part_name)

    def to_json(self) -> str:
        """As JSON text; from_json is its inverse."""
        return json.dumps({"job": self.job, "shard": self.shard.to_json(), "folder": self.folder})

    @classmethod
    def from_json(cls, text: str) -> Task:
        value = json.loads(text)
        return cls(value["job"], Shard.from_json(value["shard"]), value["folder"])


def in_turn(missing: Missing) -> Iterator[tuple[int, Shard]]:
    """(job, shard), the jobs side by side, each shard beginning with another of them.

    So jobs over one input read the same rows at about the same time and share the prefill of their images,
    and none of them is always the one that pays for it.
    """
    jobs = [
        zip(repeat(number), shards, strict=False) for number, shards in missing.items()
    ]  # in order, as the grid is
    for index, found in groupby(heapq.merge(*jobs, key=_index), key=_index):
        group = list(found)
        start = index % len(group)
        yield from (*group[start:], *group[:start])


def _index(pair: tuple[int, Shard]) -> int:
    return pair[1].index
