"""Passes until no shard is missing. Decides what to try again, what to take apart, and when to stop.

State: how often each shard failed in this run. Everything else is on disk.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cogbatch.batch.backend import OpenEngine, WorkerPlan
from cogbatch.batch.cluster import living_nodes, node_types
from cogbatch.batch.monitor import Monitor, Snapshot
from cogbatch.batch.passes import run_pass
from cogbatch.batch.progress import Progress, Status
from cogbatch.batch.room import fits, no_room
from cogbatch.batch.spec import JobSpec
from cogbatch.batch.tally import Kind, Tally, over_rate, too_many_errors
from cogbatch.dataset.object_path import Place
from cogbatch.dataset.parts import write_part
from cogbatch.dataset.rows import Row, make_id
from cogbatch.dataset.run_directory import RunDirectory
from cogbatch.dataset.run_lock import Guard
from cogbatch.dataset.schema import record, rows_to_table
from cogbatch.dataset.shards import Shard
from cogbatch.errors import JobError, RunDirectoryError
from cogbatch.redact import one_line
from cogbatch.types import RequestError, RequestOutput

POLL_S = 1.0
STOP_WAIT_S = 60.0
REFUSED_STOP_WAIT_S = 5.0  # nothing is in flight then
MAX_UNWRITTEN = 8  # parts in a row, each tried for some seconds
BARREN_PASSES = 3  # passes in a row in which nothing was finished and nothing was learned
WORKERLESS_S = 30.0  # before a word is said about it
SILENT_GRACE_S = 60.0  # a worker's own stall timer comes first


class Work(Protocol):
    """What a driver asks of the disk."""

    @property
    def parts(self) -> Place:
        """Where parts of whole shards go."""

    def missing(self, shards: Iterable[Shard]) -> tuple[Shard, ...]:
        """Those that are still to do."""

    def staging(self, shard: Shard) -> Place:
        """Where the items of a split shard go."""

    def missing_staged(self, shard: Shard, *, job_fingerprint: str) -> tuple[Shard, ...]:
        """The items of a split shard that are still to do."""

    def commit_staged(self, shard: Shard, *, job_fingerprint: str) -> object:
        """Makes the part of a split shard once all items are there."""


class Driver:
    """Runs the missing shards of one job on the Ray that this process is connected to.

    Args:
        run: the run directory, for workers and the monitor.
        work: what is missing and how it is committed: the run itself, or a round over its error rows.
        before: counts of the parts that earlier runs left.
        rows_total: rows of the job.
        guard: raises RunDirectoryError when this driver may not go on; asked once a second.
    """

    def __init__(
        self,
        run: RunDirectory,
        spec: JobSpec,
        plan: WorkerPlan,
        *,
        open_engine: OpenEngine,
        progress: Progress,
        before: Tally,
        rows_total: int,
        work: Work | None = None,
        guard: Guard = lambda: None,
    ) -> None:
        self._guard = guard
        self._work: Work = work or run
        self._spec, self._plan = spec, plan
        self._open_engine, self._progress = open_engine, progress
        self._before, self._rows_total = before, rows_total
        self._attempts: Counter[str] = Counter()
        self._reasons: dict[str, str] = {}
        self._blamed = Tally()
        self._refusals: Mapping[str, str] = {}
        self._failures: list[str] = []
        self._seen = Snapshot(Tally(), tokens=0, workers=0)
        self._began = self._worked = time.monotonic()
        here = ray.get_runtime_context().get_node_id()
        self._monitor: Any = (
            ray.remote(Monitor)
            .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False))
            .remote(run)
        )

    def finish(self, shards: Sequence[Shard]) -> Status:
        """Blocks until every shard has its part; returns the last status.

        Raises JobError: too many errors, no node is left, or nothing moves any more.
        """
        barren = 0
        try:
            while missing := self._work.missing(shards):
                known = self._knowledge(len(missing))
                self._one_round(missing)
                missing = self._work.missing(missing)
                barren = 0 if self._knowledge(len(missing)) != known else barren + 1
                if missing:
                    self._stop_if_no_node_is_left()
                    self._stop_if_nothing_moves(len(missing), barren)
            self._progress.update(status := self._look())
            return status
        finally:
            with contextlib.suppress(Exception):  # Ray may be gone, which is then the error to show
                ray.kill(self._monitor)

    def _one_round(self, missing: Sequence[Shard]) -> None:
        limit = self._spec.errors.shard_attempts
        whole = [shard for shard in missing if self._attempts[shard.part_name] < limit]
        if whole:
            self._pass(dict.fromkeys(whole, self._work.parts), self._plan)
            return
        job = self._plan.job_fingerprint
        tried = {
            item: self._work.staging(shard)
            for shard in missing
            for item in self._work.missing_staged(shard, job_fingerprint=job)
        }
        for item, folder in tried.items():
            if self._attempts[_item_key(item)] >= limit:
                self._blame(item, folder)
        left = {item: folder for item, folder in tried.items() if self._attempts[_item_key(item)] < limit}
        if left:
            self._pass(left, replace(self._plan, isolated=True))
        for shard in missing:
            self._work.commit_staged(shard, job_fingerprint=job)

    def _pass(self, shards: Mapping[Shard, Place], plan: WorkerPlan) -> None:
        """One pass in a thread of its own, watched from this one."""

        def work() -> None:
            try:
                run_pass(
                    shards,
                    plan,
                    open_engine=self._open_engine,
                    monitor=self._monitor,
                    cluster=self._spec.cluster,
                    avoid_nodes=self._refusals,
                )
            except Exception as err:  # Ray gave up on this pass; the parts say what it achieved
                self._failures.append(f"{type(err).__name__}: {one_line(err)[:500]}")

        thread = threading.Thread(target=work, name="pass", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(POLL_S)
            self._progress.update(self._look())
            for handle in ray.get(self._monitor.silent.remote(self._plan.stall_timeout_s + SILENT_GRACE_S)):
                ray.kill(handle, no_restart=False)
            self._stop_if_lock_is_lost(thread)
            self._stop_if_too_many_errors(thread)
            self._stop_if_no_node_is_left(thread)
            self._stop_if_nothing_can_be_written(thread)
            self._say_if_nobody_works()
        for name, messages in ray.get(self._monitor.close_pass.remote(list(living_nodes()))).items():
            key = f"item {name}" if plan.isolated else name
            self._attempts[key] += len(messages)
            self._reasons[key] = messages[-1]

    def _look(self) -> Status:
        """The status now, from the monitor."""
        seen: Snapshot = ray.get(self._monitor.snapshot.remote())
        if set(seen.refusals) != set(self._refusals):
            for line in set(seen.refusals.values()) - set(self._refusals.values()):
                self._progress.say(f"a node is left out: {line}")
        self._seen, self._refusals = seen, seen.refusals
        counts = self._counts()
        return Status(
            rows=counts.rows,
            rows_total=self._rows_total,
            rows_before=self._before.rows,
            errors=counts.errors,
            tokens=seen.tokens,
            workers=seen.workers,
            loading=seen.loading,
            seconds=time.monotonic() - self._began,
        )

    def _counts(self) -> Tally:
        """Rows of all runs: parts from before, what workers report, and items blamed here."""
        counts = Tally()
        for tally in (self._before, self._seen.tally, self._blamed):
            counts.add(tally)
        return counts

    def _knowledge(self, missing: int) -> tuple[int, ...]:
        """Changes whenever a round achieved or learned anything."""
        return missing, self._look().rows, self._attempts.total(), len(self._refusals)

    def _stop_if_lock_is_lost(self, working: threading.Thread) -> None:
        try:
            self._guard()
        except RunDirectoryError:
            ray.get(self._monitor.stop.remote())
            working.join(STOP_WAIT_S)
            raise

    def _stop_if_too_many_errors(self, working: threading.Thread) -> None:
        counts = self._counts()
        ends_by_itself = counts.rows >= self._rows_total
        if ends_by_itself or not over_rate(counts, self._spec.errors.max_error_rate):
            return
        ray.get(self._monitor.stop.remote())
        working.join(STOP_WAIT_S)
        raise too_many_errors(counts, self._spec.errors.max_error_rate, finished=False)

    def _stop_if_no_node_is_left(self, working: threading.Thread | None = None) -> None:
        if self._seen.workers or self._seen.loading:
            return
        able = [node for node, has in living_nodes().items() if fits(has, self._spec.cluster)]
        if able and all(node in self._refusals for node in able):
            ray.get(self._monitor.stop.remote())
            if working is not None:
                working.join(REFUSED_STOP_WAIT_S)
            reasons = "; ".join(dict.fromkeys(self._refusals.values()))
            raise JobError(f"no worker can start: {reasons}; when that is solved, run the same command again")

    def _stop_if_nothing_can_be_written(self, working: threading.Thread) -> None:
        """A full disk would otherwise cost the candidates of every shard that is left."""
        if self._seen.unwritten < MAX_UNWRITTEN:
            return
        ray.get(self._monitor.stop.remote())
        working.join(STOP_WAIT_S)
        raise JobError(
            f"{self._seen.unwritten} parts in a row could not be written to {self._work.parts}:"
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
            reason = no_room(nodes, self._spec.cluster, node_types=node_types())
            self._progress.say(f"waiting for a worker: {reason or 'what it needs may be in use by others'}")

    def _blame(self, item: Shard, folder: Place) -> None:
        """Stages the error row of an item that failed alone in its worker, as often as it may."""
        key, plan = _item_key(item), self._plan
        message = f"failed {self._attempts[key]} times alone in a worker: {self._reasons[key]}"
        row = self._read_one(item)
        error = RequestError(stage="worker", type="WorkerError", message=message)
        output = RequestOutput(id=row.id, error=error)
        values = record(
            row, output, model_fingerprint=plan.model.fingerprint, job_fingerprint=plan.job_fingerprint
        )
        write_part(folder, item.part_name, rows_to_table([values], carried=plan.dataset.carried))
        self._blamed.rows += 1
        self._blamed.add_error(Kind(error.stage, error.type), message)

    def _read_one(self, item: Shard) -> Row:
        try:
            return next(iter(self._plan.dataset.read(item)))
        except Exception:  # reading may be what fails; the identity is known all the same
            file = self._plan.dataset.files[item.file_index].path
            return Row(file, item.first_row, make_id((), input_file=file, input_row=item.first_row))


def _item_key(item: Shard) -> str:
    return f"item {item.part_name}"
