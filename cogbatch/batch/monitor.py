"""What every worker last said, in one place: progress, who holds which shard, who fell silent.

A plain class that the driver runs as an actor on its own node; it decides nothing and keeps nothing that
the parts on disk do not say better.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cogbatch.batch.tally import Tally
from cogbatch.dataset.run_directory import RunDirectory


class WorkerId(NamedTuple):
    """One life of one worker process; a restarted actor is another worker."""

    node_id: str
    pid: int


@dataclass(frozen=True)
class Snapshot:
    """The job as the driver sees it once a second. tokens: generated since the start, kept or not."""

    tally: Tally
    tokens: int
    workers: int
    failures: tuple[str, ...] = ()
    refusals: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Worker:
    handle: Any
    heard: float
    held: set[str] = field(default_factory=set)
    progress: Mapping[str, Tally] = field(default_factory=dict)


class Monitor:
    """Listens to workers, answers the driver.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._workers: dict[WorkerId, _Worker] = {}
        self._ended: set[str] = set()
        self._total = Tally()
        self._failed: dict[str, list[str]] = {}
        self._failures: list[str] = []
        self._refusals: dict[str, str] = {}
        self._tokens = 0
        self._stopping = False

    def begin(self, worker: WorkerId, shard: str, handle: list[Any]) -> None:
        """A worker took a shard. handle: its own actor handle, in a list as Ray wants it."""
        state = self._workers.setdefault(worker, _Worker(handle[0], self._clock()))
        state.heard = self._clock()
        state.held.add(shard)

    def beat(self, worker: WorkerId, progress: Mapping[str, Tally], tokens: int) -> bool:
        """A worker lives; tokens: generated since its last beat. Returns whether it must stop."""
        self._tokens += tokens
        if worker in self._workers:
            self._workers[worker].heard = self._clock()
            self._workers[worker].progress = progress
        return self._stopping

    def end(self, worker: WorkerId, shard: str, tally: Tally | None) -> None:
        """A shard left a worker: committed with its counts, or given back unfinished (None)."""
        if worker in self._workers:
            self._workers[worker].held.discard(shard)
        if tally is not None and shard not in self._ended:  # a late second writer adds nothing
            self._ended.add(shard)
            self._total.add(tally)

    def fail(self, worker: WorkerId, shard: str, message: str, *, blames: bool) -> None:
        """A shard raised. blames: the shard may be the reason, so that it counts as an attempt."""
        self.end(worker, shard, None)
        self._failures.append(message)
        if blames:
            self._failed.setdefault(shard, []).append(message)

    def crash(self, worker: WorkerId, message: str) -> None:
        """A worker is about to end its own process; what it holds stays held and so counts as lost."""
        self._failures.append(message)
        for shard in self._workers[worker].held if worker in self._workers else ():
            self._failed.setdefault(shard, [])
            self._failed[shard].append(message)
        if worker in self._workers:
            self._workers[worker].held.clear()

    def refuse(self, worker: WorkerId, shard: str, message: str) -> None:
        """A worker cannot prove or load its weights, or cannot see the run directory."""
        self.end(worker, shard, None)
        self._refusals[worker.node_id] = message

    def sees_probe(self, run: RunDirectory, name: str, token: str) -> bool:
        """Whether a worker's probe is on the driver's storage too: this actor lives on the driver's node."""
        return run.read_probe(name) == token

    def stop(self) -> None:
        """Tells every worker, at its next beat, to give back what it holds."""
        self._stopping = True

    def busy(self) -> int:
        """Shards held by workers right now."""
        return sum(len(state.held) for state in self._workers.values())

    def silent(self, after_s: float) -> list[Any]:
        """Handles of workers that hold shards and have not been heard for after_s seconds; each once."""
        silent = [w for w in self._workers.values() if w.held and self._clock() - w.heard > after_s]
        handles = [state.handle for state in silent if state.handle is not None]
        for state in silent:
            state.handle = None
        return handles

    def close_pass(self, living_nodes: Iterable[str]) -> dict[str, list[str]]:
        """Attempts of this pass, then forgets its workers.

        living_nodes: ids of nodes that still run. A shard that a worker of a lost node held is not blamed.

        Returns: for each shard that raised or lost its worker, one message for each time.
        """
        living = set(living_nodes)
        attempts = self._failed
        for worker, state in self._workers.items():
            if worker.node_id in living:
                for shard in state.held:
                    attempts.setdefault(shard, []).append("its worker process died")
        self._failed, self._workers = {}, {}
        return attempts

    def snapshot(self) -> Snapshot:
        """Counts so far: shards that ended, and the rows done of those in flight."""
        tally = Tally()
        tally.add(self._total)
        now = self._clock()
        held: dict[str, tuple[float, Tally]] = {}
        for state in self._workers.values():
            for shard in state.held - self._ended:
                if shard in state.progress and state.heard >= held.get(shard, (0.0, tally))[0]:
                    held[shard] = (state.heard, state.progress[shard])
        for _, part in held.values():
            tally.add(part)
        workers = sum(1 for state in self._workers.values() if state.held and now - state.heard < 30)
        return Snapshot(tally, self._tokens, workers, tuple(self._failures[-100:]), dict(self._refusals))
