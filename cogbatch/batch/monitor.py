"""What every worker last said, in one place: progress, who holds which shard, who fell silent.

A plain class that the driver runs as an actor on its own node; it decides nothing and keeps nothing that
the parts on disk do not say better.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cogbatch.batch.tally import Tally
from cogbatch.batch.task import TaskKey
from cogbatch.dataset.run_directory import RunDirectory

MAX_LOAD_DEATHS = 2  # on one node, before that node is refused
LOST_AFTER_S = 30.0  # without a beat; workers beat twice a second


class WorkerId(NamedTuple):
    """One life of one worker process; a restarted actor is another worker with the same actor_id."""

    node_id: str
    pid: int
    actor_id: str
    host: str


@dataclass(frozen=True)
class Snapshot:
    """The work as the driver sees it once a second.

    tallies: of each job that was worked on, by its place. tokens: generated since the start, kept or not.
    workers: hold shards; loading: load the model. unwritten: parts in a row that could not be written, by
    any worker. working_s: since the first worker took its first shard, its model loaded.
    """

    tallies: Mapping[int, Tally]
    tokens: int
    workers: int
    loading: int = 0
    failures: tuple[str, ...] = ()
    refusals: Mapping[str, str] = field(default_factory=dict)
    unwritten: int = 0
    refusing: int = 0
    working_s: float = 0.0


@dataclass
class _Worker:
    handle: Any
    heard: float
    loading: bool = False
    held: set[TaskKey] = field(default_factory=set)
    progress: Mapping[TaskKey, Tally] = field(default_factory=dict)


class Monitor:
    """Listens to workers, answers the driver.

    Args:
        home: the run directory in which workers leave their probes, as the driver sees it.
        clock: seconds, monotonic.
    """

    def __init__(self, home: RunDirectory, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._home, self._clock = home, clock
        self._workers: dict[WorkerId, _Worker] = {}
        self._ended: set[TaskKey] = set()
        self._totals: defaultdict[int, Tally] = defaultdict(Tally)
        self._failed: dict[TaskKey, list[str]] = {}
        self._failures: list[str] = []
        self._refusals: dict[str, str] = {}
        self._load_deaths: Counter[str] = Counter()
        self._proven: set[str] = set()
        self._refusing: set[WorkerId] = set()
        self._tokens = self._unwritten = 0
        self._stopped: frozenset[int] = frozenset()
        self._first_shard_s: float | None = None

    def load(self, worker: WorkerId, handle: list[Any]) -> str | None:
        """A worker is about to load the model; returns why it must not, where others died of it.

        handle: its own actor handle, in a list as Ray wants it.
        """
        for other, state in self._workers.items():
            if other.actor_id == worker.actor_id and state.loading:  # the actor's last life ended there
                state.loading = False
                self._died_loading(other)
        reason = self._load_refusal(worker.node_id)
        if reason is None:
            self._known(worker, handle).loading = True
        return reason

    def loaded(self, worker: WorkerId) -> None:
        """A worker is done with loading, well or not."""
        if worker in self._workers:
            self._workers[worker].loading = False

    def begin(self, worker: WorkerId, shard: TaskKey, handle: list[Any]) -> None:
        """A worker took a shard."""
        self._known(worker, handle).held.add(shard)
        if self._first_shard_s is None:
            self._first_shard_s = self._clock()

    def beat(self, worker: WorkerId, progress: Mapping[TaskKey, Tally], tokens: int) -> frozenset[int]:
        """A worker lives; tokens: generated since its last beat. Returns the jobs it must leave."""
        self._tokens += tokens
        if worker in self._workers:
            self._workers[worker].heard = self._clock()
            self._workers[worker].progress = progress
        return self._stopped

    def end(self, worker: WorkerId, shard: TaskKey, tally: Tally | None) -> None:
        """A shard left a worker: committed with its counts, or given back unfinished (None)."""
        if worker in self._workers:
            self._workers[worker].held.discard(shard)
        if tally is None:
            return
        # What stops one worker of a node does not stop all: where a shard was finished, more can be.
        self._proven.add(worker.node_id)
        self._refusals.pop(worker.node_id, None)
        self._unwritten = 0
        if shard not in self._ended:  # a late second writer adds nothing
            self._ended.add(shard)
            self._totals[shard.job].add(tally)

    def fail(self, worker: WorkerId, shard: TaskKey, message: str, *, blames: bool) -> None:
        """A shard raised. blames: the shard may be the reason, so that it counts as an attempt."""
        self.end(worker, shard, None)
        self._failures.append(message)
        if blames:
            self._failed.setdefault(shard, []).append(message)

    def unwritten(self, worker: WorkerId, shard: TaskKey, message: str) -> None:
        """A part could not be written, which is no fault of its shard."""
        self.fail(worker, shard, message, blames=False)
        self._unwritten += 1

    def crash(self, worker: WorkerId, message: str) -> None:
        """A worker is about to end its own process; what it holds stays held and so counts as lost."""
        self._failures.append(message)
        for shard in self._workers[worker].held if worker in self._workers else ():
            self._failed.setdefault(shard, [])
            self._failed[shard].append(message)
        if worker in self._workers:
            self._workers[worker].held.clear()

    def refuse(self, worker: WorkerId, message: str) -> None:
        """A worker cannot prove or load its weights, or cannot see the run directory.

        Its node is left out, unless a shard was finished there in this pass.
        """
        self._refusing.add(worker)
        if worker.node_id not in self._proven:
            self._refusals[worker.node_id] = f"{worker.host}: {message}"

    def sees_probe(self, name: str, token: str) -> bool:
        """Whether a worker's probe is on the driver's storage too: this actor lives on the driver's node."""
        return self._home.read_probe(name) == token

    def stop(self, jobs: Iterable[int]) -> None:
        """Tells every worker, at its next beat, to give back what it holds of these jobs."""
        self._stopped |= frozenset(jobs)

    def busy(self) -> int:
        """Workers that hold shards or load right now."""
        return sum(1 for state in self._workers.values() if self._is_busy(state))

    def silent(self, after_s: float) -> list[Any]:
        """Handles of workers that load or hold shards and were not heard for after_s seconds; each once."""
        working = [state for state in self._workers.values() if state.held or state.loading]
        silent = [state for state in working if self._clock() - state.heard > after_s]
        handles = [state.handle for state in silent if state.handle is not None]
        for state in silent:
            state.handle = None
        return handles

    def close_pass(self, living_nodes: Iterable[str]) -> dict[TaskKey, list[str]]:
        """Attempts of this pass, then forgets its workers.

        living_nodes: ids of nodes that still run. A shard that a worker of a lost node held is not blamed,
        and none is when a worker died while loading: that counts against its node.

        Returns: for each shard that raised or lost its worker, one message for each time.
        """
        living = set(living_nodes)
        attempts = self._failed
        for worker, state in self._workers.items():
            if worker.node_id in living:
                if state.loading:
                    self._died_loading(worker)
                for shard in state.held:
                    attempts.setdefault(shard, []).append("its worker process died")
        for node_id in self._proven:
            self._load_deaths.pop(node_id, None)
        self._failed, self._workers, self._proven, self._refusing = {}, {}, set(), set()
        return attempts

    def snapshot(self) -> Snapshot:
        """Counts so far: shards that ended, and the rows done of those in flight."""
        tallies: defaultdict[int, Tally] = defaultdict(Tally)
        for job, total in self._totals.items():
            tallies[job].add(total)
        held: dict[TaskKey, _Worker] = {}
        for state in self._workers.values():
            for shard in state.held - self._ended:
                if shard in state.progress and (shard not in held or state.heard >= held[shard].heard):
                    held[shard] = state
        for shard, state in held.items():
            tallies[shard.job].add(state.progress[shard])
        heard = [state for state in self._workers.values() if self._is_busy(state)]
        return Snapshot(
            dict(tallies),
            self._tokens,
            workers=sum(1 for state in heard if state.held),
            loading=sum(1 for state in heard if state.loading),
            failures=tuple(self._failures[-100:]),
            refusals=dict(self._refusals),
            unwritten=self._unwritten,
            refusing=len(self._refusing),
            working_s=0.0 if self._first_shard_s is None else self._clock() - self._first_shard_s,
        )

    def _known(self, worker: WorkerId, handle: list[Any]) -> _Worker:
        state = self._workers.setdefault(worker, _Worker(handle[0], self._clock()))
        state.heard = self._clock()
        return state

    def _is_busy(self, state: _Worker) -> bool:
        return bool(state.held or state.loading) and self._clock() - state.heard < LOST_AFTER_S

    def _died_loading(self, worker: WorkerId) -> None:
        self._load_deaths[worker.node_id] += 1
        if (reason := self._load_refusal(worker.node_id)) is not None:
            self.refuse(worker, reason)

    def _load_refusal(self, node_id: str) -> str | None:
        deaths = self._load_deaths[node_id]
        if deaths < MAX_LOAD_DEATHS:
            return None
        return f"{deaths} workers died while loading the model (out of memory?)"
