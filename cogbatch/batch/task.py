"""A task: a shard of one of the jobs that a driver runs, and where its part goes. A plain value."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import NamedTuple

from cogbatch.dataset.shards import Shard


class TaskKey(NamedTuple):
    """Names a task in one pass: parts of two jobs may share their name. job: its place in WorkerPlan.jobs."""

    job: int
    part: str


@dataclass(frozen=True)
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
