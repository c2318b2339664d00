"""Passes until no shard is missing. Decides what to try again, what to take apart, and when to stop.

State: how often each shard failed in this run. Everything else is on disk.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cogbatch.batch.backend import OpenEngine, WorkerPlan
from cogbatch.batch.cluster import living_nodes, node_types
from cogbatch.batch.monitor import Monitor, Snapshot
from cogbatch.batch.ongoing import Ongoing
from cogbatch.batch.passes import first_workers, run_pass
from cogbatch.batch.progress import Progress, Status
from cogbatch.batch.room import fits, no_room
from cogbatch.batch.signals import held_back
from cogbatch.batch.task import Missing, Task, TaskKey, in_turn
from cogbatch.dataset.run_directory import RunDirectory
from cogbatch.dataset.shards import MAX_SHARDS, Shard
from cogbatch.errors import JobError
from cogbatch.redact import one_line

POLL_S = 1.0
STOP_WAIT_S = 60.0
REFUSED_STOP_WAIT_S = 5.0  # nothing is in flight then
INTERRUPTED_STOP_WAIT_S = 5.0  # somebody waits
REFUSED_GRACE_S = 120.0  # after one worker refused, for others of its node that are only starting
MAX_UNWRITTEN = 8  # parts in a row, each tried for some seconds
BARREN_PASSES = 3  # passes in a row in which nothing was finished and nothing was learned
WORKERLESS_S = 30.0  # before a word is said about it
SILENT_GRACE_S = 60.0  # a worker's own stall timer comes first


class Driver:
    """Runs what is missing of one or several jobs on the Ray that this process is connected to.

    Args:
        jobs: in the order of plan.jobs. home: of the plan, as this process sees it.
        shard_attempts: before a shard is run row by row.
    """

    def __init__(
        self,
        jobs: Sequence[Ongoing],
        plan: WorkerPlan,
        *,
        home: RunDirectory,
        open_engine: OpenEngine,
        progress: Progress,
        shard_attempts: int,
    ) -> None:
        self._jobs, self._plan = tuple(jobs), plan
        self._open_engine, self._progress = open_engine, progress
        self._shard_attempts = shard_attempts
        self._attempts: Counter[TaskKey] = Counter()
        self._reasons: dict[TaskKey, str] = {}
        self._refusals: Mapping[str, str] = {}
        self._failures: list[str] = []
        self._seen = Snapshot({}, tokens=0, workers=0)
        self._began = self._worked = time.monotonic()
        self._refused: float | None = None
        here = ray.get_runtime_context().get_node_id()
        self._monitor: Any = (
            ray.remote(Monitor)
            .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False))
            .remote(home)
        )

    def finish(self) -> Status:
        """Blocks until every shard has its part, or its job was given up; returns the last status.

        A job that has too many errors or loses its lock is given up (Ongoing.failure), the others go on.

        Raises JobError: no node is left, or nothing moves any more.
        """
        barren = 0
        try:
            while missing := self._missing():
                known = self._knowledge(missing)
                self._one_round(missing)
                missing = self._missing()
                barren = 0 if self._knowledge(missing) != known else barren + 1
                if missing:
                    self._stop_if_no_node_is_left()
                    self._stop_if_nothing_moves(_count(missing), barren)
            self._progress.update(status := self._look())
            return status
        finally:
            with contextlib.suppress(Exception):  # Ray may be gone, which is then the error to show
                ray.kill(self._monitor)

    def _missing(self) -> Missing:
        found = {number: job.missing() for number, job in enumerate(self._jobs)}
        return {number: shards for number, shards in found.items() if shards}

    def _one_round(self, missing: Missing) -> None:
        parts = [str(job.work.parts) for job in self._jobs]
        whole = [
            Task(number, shard, parts[number])
            for number, shard in in_turn(missing)
            if self._attempts[TaskKey(number, shard.part_name)] < self._shard_attempts
        ]
        if whole:
            self._pass(whole[:MAX_SHARDS], self._plan)
            return
        left = []
        for number, shard in in_turn(missing):
            job = self._jobs[number]
            folder = job.work.staging(shard)
            for item in job.work.missing_staged(shard, job_fingerprint=job.plan.fingerprint):
                key = _item_key(number, item)
                if self._attempts[key] >= self._shard_attempts:
                    job.blame(
                        item,
                        folder=folder,
                        model_fingerprint=self._plan.model.fingerprint,
                        message=f"failed {self._attempts[key]} times alone in a worker: {self._reasons[key]}",
                    )
                else:
                    left.append(Task(number, item, str(folder)))
        if left:
            self._pass(left[:MAX_SHARDS], replace(self._plan, isolated=True))
        for number, shard in in_turn(missing):
            job = self._jobs[number]
            if not job.failure:
                job.work.commit_staged(shard, job_fingerprint=job.plan.fingerprint)

    def _pass(self, tasks: Sequence[Task], plan: WorkerPlan) -> None:
        """One pass in a thread of its own, watched from this one; ends early when its jobs are given up."""

        def work() -> None:
            try:
                run_pass(
                    tasks,
                    plan,
                    open_engine=self._open_engine,
                    monitor=self._monitor,
                    cluster=plan.cluster,
                    avoid_nodes=self._refusals,
                )
            except Exception as err:  # Ray gave up on this pass; the parts say what it achieved
                self._failures.append(f"{type(err).__name__}: {one_line(err)[:500]}")

        thread = threading.Thread(target=work, name="pass", daemon=True)
        thread.start()
        try:
            self._watch(thread, tasks, plan)
        except KeyboardInterrupt:
            with held_back():  # Ray ends a process in which a thread still uses it when it is shut down
                with contextlib.suppress(OSError):  # the terminal may be gone
                    self._progress.say("ending Ray and its workers")
                with contextlib.suppress(Exception):  # or Ray is
                    self._stop_all(thread, wait_s=INTERRUPTED_STOP_WAIT_S)
            raise
        for key, messages in ray.get(self._monitor.close_pass.remote(list(living_nodes()))).items():
            own = key._replace(part=f"item {key.part}") if plan.isolated else key
            self._attempts[own] += len(messages)
            self._reasons[own] = messages[-1]

    def _watch(self, thread: threading.Thread, tasks: Sequence[Task], plan: WorkerPlan) -> None:
        while thread.is_alive():
            thread.join(POLL_S)
            self._progress.update(self._look())
            for handle in ray.get(self._monitor.silent.remote(self._plan.stall_timeout_s + SILENT_GRACE_S)):
                ray.kill(handle, no_restart=False)
            self._give_up_jobs()
            if all(self._jobs[number].failure for number in {task.job for task in tasks}):
                thread.join(STOP_WAIT_S)
                break
            self._stop_if_no_node_is_left(thread, first_workers(plan.cluster, len(tasks)))
            self._stop_if_nothing_can_be_written(thread)
            self._say_if_nobody_works()

    def _look(self) -> Status:
        """The status now, from the monitor."""
        seen: Snapshot = ray.get(self._monitor.snapshot.remote())
        if set(seen.refusals) != set(self._refusals):
            for line in set(seen.refusals.values()) - set(self._refusals.values()):
                self._progress.say(f"a node is left out: {line}")
        self._seen, self._refusals = seen, seen.refusals
        counts = [job.counts(seen.tallies.get(number)) for number, job in enumerate(self._jobs)]
        goes_on = not all(job.failure for job in self._jobs)  # then of the others only
        totals = [
            count.rows if job.failure and goes_on else job.rows_total
            for job, count in zip(self._jobs, counts, strict=True)
        ]
        return Status(
            rows=sum(count.rows for count in counts),
            rows_total=sum(totals),
            rows_before=sum(job.before.rows for job in self._jobs),
            errors=sum(count.errors for count in counts),
            tokens=seen.tokens,
            workers=seen.workers,
            loading=seen.loading,
            seconds=time.monotonic() - self._began,
            working_s=seen.working_s,
            jobs=len(self._jobs),
            jobs_done=sum(
                not job.failure and count.rows >= job.rows_total
                for job, count in zip(self._jobs, counts, strict=True)
            ),
        )

    def _knowledge(self, missing: Missing) -> tuple[int, ...]:
        """Changes whenever a round achieved or learned anything."""
        return _count(missing), self._look().rows, self._attempts.total(), len(self._refusals)

    def _give_up_jobs(self) -> None:
        """Those that lost their lock or have too many errors; workers give back what they hold of them."""
        for number, job in enumerate(self._jobs):
            if job.failure:
                continue
            job.find_failure(self._seen.tallies.get(number))
            if job.failure:
                ray.get(self._monitor.stop.remote([number]))
                if len(self._jobs) > 1:
                    self._progress.say(f"{job.name} is given up: {job.failure}")

    def _stop_all(self, working: threading.Thread, *, wait_s: float = STOP_WAIT_S) -> None:
        ray.get(self._monitor.stop.remote(range(len(self._jobs))))
        working.join(wait_s)

    def _stop_if_no_node_is_left(self, working: threading.Thread | None = None, first: int = 0) -> None:
        """first: workers that the pass began with; what stops one of them need not stop those yet to come."""
        if self._seen.workers or self._seen.loading or not self._refusals:
            self._refused = None
            return
        self._refused = self._refused or time.monotonic()
        if self._seen.refusing < first and time.monotonic() - self._refused < REFUSED_GRACE_S:
            return
        able = [node for node, has in living_nodes().items() if fits(has, self._plan.cluster)]
        if able and all(node in self._refusals for node in able):
            if working is not None:
                self._stop_all(working, wait_s=REFUSED_STOP_WAIT_S)
            reasons = "; ".join(dict.fromkeys(self._refusals.values()))
            raise JobError(f"no worker can start: {reasons}; when that is solved, run the same command again")

    def _stop_if_nothing_can_be_written(self, working: threading.Thread) -> None:
        """A full disk would otherwise cost the candidates of every shard that is left."""
        if self._seen.unwritten < MAX_UNWRITTEN:
            return
        self._stop_all(working)
        raise JobError(
            f"{self._seen.unwritten} parts in a row could not be written to {self._jobs[0].work.parts}:"
            f" {self._seen.failures[-1]}. Finished parts are kept; make room or mend the storage,"
            " then run the same command again"
        )

    def _stop_if_nothing_moves(self, missing: int, barren: int) -> None:
        if barren >= BARREN_PASSES:
            failures = Counter([*self._failures, *self._seen.failures]).most_common(3)
            reasons = "; ".join(f"{count} x {line}" for line, count in failures) or "workers were lost"
            raise JobError(
                f"{missing} shards are missing and {barren} passes finished none of them: {reasons};"
                " when that is solved, run the same command again"
            )

    def _say_if_nobody_works(self) -> None:
        """Once for each stretch of time without a worker: an autoscaler may still start a node."""
        now = time.monotonic()
        if self._seen.workers or self._seen.loading:
            self._worked = now
        elif self._worked < now - WORKERLESS_S:
            self._worked = math.inf
            nodes = list(living_nodes().values())
            reason = no_room(nodes, self._plan.cluster, node_types=node_types())
            local = self._plan.cluster.address == "local"
            likely = "it starts slowly, this machine may be busy" if local else "others may use what it needs"
            self._progress.say(f"waiting for a worker: {reason or likely}")


def _count(missing: Missing) -> int:
    return sum(map(len, missing.values()))


def _item_key(job: int, item: Shard) -> TaskKey:
    return TaskKey(job, f"item {item.part_name}")
