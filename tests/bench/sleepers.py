"""Engines that only sleep, so that what is measured is the job around them. Each notes when it worked."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from cogbatch.batch.backend import Backend, ReadyModel, WorkerPlan
from cogbatch.batch.loop import EngineLike
from cogbatch.batch.spec import ModelSpec
from cogbatch.types import Candidate, GenerationParams, GenerationRequest, RequestOutput

ROWS, STEP_S = 8, 0.005  # of the engine that decodes in steps


class OneByOne:
    """Sleeps for each item, argument of the prompt, one after the other."""

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[RequestOutput]:
        for request in requests:
            seconds = float(request.prompt)
            if seconds:
                time.sleep(seconds)
            yield answer(request)


class InSteps:
    """Continuous batching as the real engine does it: up to ROWS items, each for as many steps as asked.

    spent_s: steps at their nominal time, and waits for work with nothing in flight: what a noisy machine adds
    to every sleep is left out.
    """

    spent_s = 0.0

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[RequestOutput]:
        from cogbatch.engine.intake import Intake  # imports torch

        intake = Intake(requests, lambda request: int(request.prompt), ahead=16, threads=4)
        running: list[list[object]] = []
        while True:
            while len(running) < ROWS and (intake.ready or not running):
                began = time.perf_counter()
                try:
                    running.append(list(next(intake)))
                except StopIteration:
                    break
                if len(running) == 1 and self.spent_s:
                    self.spent_s += time.perf_counter() - began
            if not running:
                return
            time.sleep(STEP_S)
            self.spent_s += STEP_S
            for entry in running:
                entry[1] -= 1  # type: ignore[operator]
            yield from (answer(entry[0]) for entry in running if not entry[1])  # type: ignore[arg-type]
            running = [entry for entry in running if entry[1]]


class Noted:
    """Another engine, with the time of its first request and of its last output in a file."""

    def __init__(self, engine: EngineLike, folder: Path) -> None:
        self._engine, self._file = engine, folder / f"worked-{os.getpid()}.json"
        self._first = self._last = 0.0
        self._items = 0

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[RequestOutput]:
        for output in self._engine.generate(self._pull(requests)):
            self._last = time.time()
            self._items += 1
            spent_s = getattr(self._engine, "spent_s", 0.0)
            note = {"first": self._first, "last": self._last, "items": self._items, "spent_s": spent_s}
            self._file.write_text(json.dumps(note))
            yield output

    def _pull(self, requests: Iterable[GenerationRequest]) -> Iterator[GenerationRequest]:
        for request in requests:
            self._first = self._first or time.time()
            yield request


def notes(folder: Path) -> list[dict[str, float]]:
    """What engines noted in a folder."""
    return [json.loads(file.read_text()) for file in folder.glob("worked-*.json")]


def answer(request: GenerationRequest) -> RequestOutput:
    """Candidates of two tokens."""
    params = request.params or GenerationParams()
    candidates = (Candidate(k, request.id, (5, 2), -0.5, 2, "stop") for k in range(params.num_candidates))
    return RequestOutput(request.id, tuple(candidates), tag=request.tag)


def sleeping(make: Callable[[], EngineLike]) -> Backend:
    """A backend of such an engine; its notes are in the run's logs."""

    def open_engine(plan: WorkerPlan, on_progress: Callable[[int], None]) -> EngineLike:
        del on_progress
        return Noted(make(), Path(plan.home) / "logs")

    def prepare(spec: ModelSpec, say: Callable[[str], None]) -> ReadyModel:
        del say
        return ReadyModel(spec.checkpoint, "m", "base", "float32")

    return Backend(lambda _: None, lambda *_: None, prepare, open_engine, lambda *_: None)
