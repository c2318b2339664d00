"""A worker: a Ray actor with one Engine that turns shards into parts. Schedules nothing.

Its constructor never fails and loads nothing, because one failing constructor ends a whole Ray Data
execution; the first call proves the storage and the weights and loads the engine.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import pyarrow as pa
import ray

from cogbatch.batch.backend import OpenEngine, WorkerPlan
from cogbatch.batch.loop import EngineLike, EngineLoop, StoppedError
from cogbatch.batch.metrics import WorkerMetrics
from cogbatch.batch.monitor import WorkerId
from cogbatch.batch.stall import StallTimer
from cogbatch.batch.tally import Kind, Tally
from cogbatch.batch.task import Task, TaskKey
from cogbatch.dataset.parts import read_part, write_part
from cogbatch.dataset.retry import failed_offsets, pick, replace_rows
from cogbatch.dataset.run_directory import RunDirectory
from cogbatch.dataset.schema import record, rows_to_table
from cogbatch.errors import RunDirectoryError
from cogbatch.redact import one_line, sayable
from cogbatch.types import RequestOutput

BEAT_EVERY_S = 0.5
LOAD_FACTOR = 6  # loading may take this many stall timeouts
WRITE_PAUSES_S = (1.0, 4.0)  # before a part that could not be written is tried again
REFUSED_PAUSE_S = 2.0  # a worker that refuses would otherwise take all shards from those that work


class ShardWorker:
    """Called by Ray Data with one task at a time, by up to two threads at once."""

    def __init__(self, plan: WorkerPlan, open_engine: OpenEngine, monitor: Any) -> None:
        self._plan, self._open_engine, self._monitor = plan, open_engine, monitor
        self._loading = threading.Lock()
        self._loop: EngineLoop | None = None
        self._refusal: str | None = None
        self._counting = threading.Lock()
        self._progress: dict[TaskKey, Tally] = {}
        self._tokens = 0
        self._stopped: frozenset[int] = frozenset()  # jobs
        self._news = threading.Condition()  # of self._stopped

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        """Turns the shard of one task (as JSON) into its part and says how it went; raises nothing."""
        task = Task.from_json(str(batch["task"][0]))
        return {"status": ["stopped" if task.job in self._stopped else self._work(task)]}

    def _work(self, task: Task) -> str:
        name = task.key
        try:
            loop = self._ready()
        except _RefusedError as err:
            ray.get(self._monitor.refuse.remote(self._id, str(err)))
            self._wait_for_others(task.job)
            return "refused"
        # Waited for: a row that kills this process must not be faster than the news of who holds it.
        ray.get(self._monitor.begin.remote(self._id, name, [ray.get_runtime_context().current_actor]))
        try:
            with self._counting:
                self._progress[name] = Tally()
                self._stall.arm()
            tally = self._process(task, loop)
        except StoppedError:
            ray.get(self._monitor.end.remote(self._id, name, None))
            return "stopped"
        except _UnwrittenError as err:
            ray.get(self._monitor.unwritten.remote(self._id, name, one_line(err)))
            return "failed"
        except Exception as err:
            # Storage that fails says nothing about the rows; anything else may be their fault.
            message = f"{type(err).__name__}: {one_line(err)}"
            blames = not isinstance(err, OSError)
            ray.get(self._monitor.fail.remote(self._id, name, message, blames=blames))
            return "failed"
        finally:
            with self._counting:
                self._progress.pop(name, None)
                if not self._progress and self._loop is not None:
                    self._stall.disarm()
        self._beat()  # the last tokens; the process may be gone before the reporter's turn
        ray.get(self._monitor.end.remote(self._id, name, tally))
        return "done"

    def _process(self, task: Task, loop: EngineLoop) -> Tally:
        job, shard, tally = self._plan.jobs[task.job], task.shard, self._progress[task.key]

        def count(output: RequestOutput) -> None:
            with self._counting:
                _count(tally, output)
            self._metrics.finished(output)
            self._stall.progress()

        replaces = job.retry and not self._plan.isolated
        old = read_part(task.folder, shard.part_name) if replaces else None
        rows, expected = job.dataset.read(shard), shard.num_rows
        if old is not None:
            failed = failed_offsets(old)
            rows, expected = pick(rows, failed), len(failed)
        results = loop.run(
            self._metrics.reading(rows),
            job.params,
            on_output=count,
            is_stopped=lambda: task.job in self._stopped,
        )
        if len(results) != expected:
            raise RuntimeError(f"{shard.part_name}: read {len(results)} rows, expected {expected}")
        prints = {"model_fingerprint": self._plan.model.fingerprint, "job_fingerprint": job.fingerprint}
        records = [record(row, output, **prints) for _, row, output in results]
        table = rows_to_table(records, carried=job.dataset.carried)
        if old is not None:
            table = replace_rows(old, failed, table)
        with self._metrics.stage("write"):
            self._commit(task, table)
        return tally

    def _commit(self, task: Task, table: pa.Table) -> None:
        """Writes the part, again after a pause where storage fails: generating its rows cost far more."""
        for pause_s in (*WRITE_PAUSES_S, None):
            try:
                retry = self._plan.jobs[task.job].retry
                write_part(task.folder, task.shard.part_name, table, retry=retry)
                return
            except ValueError:  # the table, not the storage
                raise
            except Exception as err:
                if pause_s is None or self._is_stopped_within(pause_s, task.job):
                    raise _UnwrittenError(f"{type(err).__name__}: {err}") from err
            with self._counting:
                self._stall.progress()

    def _ready(self) -> EngineLoop:
        with self._loading:
            if self._refusal is not None:
                raise _RefusedError(self._refusal)
            if self._loop is None:
                try:
                    self._loop = self._load()
                except Exception as err:
                    self._refusal = one_line(err)
                    raise _RefusedError(self._refusal) from err
            return self._loop

    def _load(self) -> EngineLoop:
        self._metrics = WorkerMetrics(self._plan.label)
        threading.Thread(target=self._report, name="reporter", daemon=True).start()
        # Waited for: a death while loading says nothing about any shard, and much about this node.
        handle = ray.get_runtime_context().current_actor
        reason: str | None = ray.get(self._monitor.load.remote(self._id, [handle]))
        if reason is not None:
            raise _RefusedError(reason)
        try:
            return EngineLoop(self._proven_engine(), on_crash=self._crash)
        finally:
            ray.get(self._monitor.loaded.remote(self._id))

    def _proven_engine(self) -> EngineLike:
        plan = self._plan
        run, name = RunDirectory(plan.home), f"{socket.gethostname()}-{os.getpid()}"
        run.write_probe(plan.probe, name)
        if not ray.get(self._monitor.sees_probe.remote(name, plan.probe)):
            raise RunDirectoryError(
                f"{run.path} is another folder at the driver: use a shared file system for output.path"
            )
        run.logs.mkdir(parents=True, exist_ok=True)
        self._stall = StallTimer(plan.stall_timeout_s, log=(run.logs / f"worker-{name}.log").open("w"))
        self._stall.arm(factor=LOAD_FACTOR)
        try:
            with self._metrics.stage("load"):
                return self._open_engine(plan, self._on_progress)
        finally:
            self._stall.disarm()

    def _on_progress(self, tokens: int) -> None:
        with self._counting:
            self._tokens += tokens
        self._metrics.generated(tokens)
        self._stall.progress()

    def _report(self) -> None:
        while True:
            time.sleep(BEAT_EVERY_S)
            self._beat()

    def _beat(self) -> None:
        with self._counting:
            answer = self._monitor.beat.remote(self._id, dict(self._progress), self._tokens)
            self._tokens = 0
        stopped: frozenset[int] = ray.get(answer)
        with self._news:
            self._stopped |= stopped
            self._news.notify_all()

    def _crash(self, err: Exception) -> None:
        """Ends the process: Ray starts a fresh one; a raising call would be retried on a dead engine."""
        message = f"the engine failed: {type(err).__name__}: {one_line(err)}"
        try:
            ray.get(self._monitor.crash.remote(self._id, message), timeout=10)
        finally:
            os._exit(1)

    def _wait_for_others(self, job: int) -> None:
        time.sleep(REFUSED_PAUSE_S)
        while job not in self._stopped and ray.get(self._monitor.busy.remote()):
            time.sleep(REFUSED_PAUSE_S)

    def _is_stopped_within(self, seconds: float, job: int) -> bool:
        with self._news:
            return self._news.wait_for(lambda: job in self._stopped, seconds)

    @cached_property
    def _id(self) -> WorkerId:
        context = ray.get_runtime_context()
        return WorkerId(context.get_node_id(), os.getpid(), context.get_actor_id(), socket.gethostname())


class _UnwrittenError(Exception):
    """A part could not be written, whatever was tried."""


class _RefusedError(Exception):
    """This worker cannot prove its storage or weights, or cannot load them."""


def _count(tally: Tally, output: RequestOutput) -> None:
    tally.rows += 1
    tally.candidates += len(output.candidates)
    tally.tokens += sum(candidate.num_tokens for candidate in output.candidates)
    if output.error is not None:
        tally.add_error(Kind(output.error.stage, output.error.type), sayable(output.error.message))
