"""A model's side without a model: the prompt says what happens to its item."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import ray

from cogbatch.batch.backend import Backend, Device, ReadyModel, WorkerPlan
from cogbatch.batch.spec import JobSpec, ModelSpec
from cogbatch.batch.survey import Survey
from cogbatch.dataset.rows import Row
from cogbatch.dataset.run_directory import RunDirectory
from cogbatch.errors import CheckpointError
from cogbatch.types import Candidate, GenerationParams, GenerationRequest, RequestError, RequestOutput

MakeSpec = Callable[..., JobSpec]


class FakeEngine:
    """Answers with the id; notes every item it began in logs/began-<pid>.txt of the run."""

    def __init__(self, plan: WorkerPlan, on_progress: Callable[[int], None]) -> None:
        self._on_progress = on_progress
        self._log = RunDirectory(plan.home).logs / f"began-{os.getpid()}.txt"

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[RequestOutput]:
        for request in requests:
            with self._log.open("a") as file:
                file.write(f"{request.id}\n")
            yield self._answer(request, request.params or GenerationParams())

    def _answer(self, request: GenerationRequest, params: GenerationParams) -> RequestOutput:
        deed, _, argument = request.prompt.partition(" ")
        if deed == "needs":  # a file: an error row until it is there, then the deed that follows
            path, _, then = argument.partition(" ")
            deed, _, argument = then.partition(" ") if Path(path).exists() else ("bad", "", "")
        if deed == "below" and params.temperature >= float(argument):
            deed, argument = "bad", ""
        if deed == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if deed == "hang":
            time.sleep(600)
        if deed == "await":  # until so many nodes have a worker
            deadline = time.monotonic() + 120
            while len(list(self._log.parent.glob("node-*"))) < int(argument) and time.monotonic() < deadline:
                time.sleep(0.1)
                self._on_progress(0)
        if deed == "fill" and not Path(argument).exists():  # from now on no file may have a whole kilobyte
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, resource.RLIM_INFINITY))
        if deed == "freeze":  # once: all threads stop, timers too
            with suppress(FileExistsError):
                Path(argument).touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGSTOP)
        if deed == "crash":
            raise RuntimeError(f"the GPU fell off {os.environ.get(argument, '')}".strip())
        if deed == "tell":  # a library that quotes what it was given
            said = f"401 for {os.environ[argument]} at https://h/?x={quote(os.environ[argument])}"
            return RequestOutput(request.id, error=RequestError("image", "HTTPError", said), tag=request.tag)
        if deed == "sleep":
            for _ in range(10):
                time.sleep(float(argument) / 10)
                self._on_progress(0)
        if deed == "bad":
            error = RequestError("generate", argument or "ValueError", f"cannot answer {request.id}")
            return RequestOutput(request.id, error=error, tag=request.tag)
        self._on_progress(2 * params.num_candidates)
        candidates = tuple(
            Candidate(index, f"{request.id}/{params.seed}/{index}", (5, 2), -0.5, 2, "stop", lane=index)
            for index in range(params.num_candidates)
        )
        return RequestOutput(request.id, candidates, tag=request.tag)


def prepare(spec: ModelSpec, say: Callable[[str], None]) -> ReadyModel:
    """A ready model whose fingerprint is its name."""
    say(f"preparing {spec.checkpoint}")
    return ReadyModel(spec.checkpoint, f"fingerprint of {spec.checkpoint}", "base", "float32")


def check_params(params: GenerationParams) -> None:
    """One rule is enough to see that it is asked."""
    if params.temperature <= 0:
        raise ValueError(f"temperature is {params.temperature}: expected above 0")


def refuse(plan: WorkerPlan, _: Callable[[int], None]) -> FakeEngine:
    """A node whose weights are broken."""
    raise CheckpointError(f"{plan.model.path}/model.safetensors differs from its manifest")


def refuse_broken(plan: WorkerPlan, on_progress: Callable[[int], None]) -> FakeEngine:
    """One model that no node can load."""
    return refuse(plan, on_progress) if plan.model.path == "broken" else FakeEngine(plan, on_progress)


def note_load(plan: WorkerPlan, on_progress: Callable[[int], None]) -> FakeEngine:
    """Any node; one line for every load, in the home directory of the workers."""
    with (RunDirectory(plan.home).logs / "loads.txt").open("a") as log:
        log.write(f"{plan.model.path}\n")
    return FakeEngine(plan, on_progress)


def refuse_on_node(plan: WorkerPlan, on_progress: Callable[[int], None]) -> FakeEngine:
    """One node, whose id is the name of the model, cannot load it; notes the others."""
    node = ray.get_runtime_context().get_node_id()
    if node == plan.model.path:
        raise RuntimeError("CUDA error: no device is free")
    (RunDirectory(plan.home).logs / f"node-{node}").touch()
    return FakeEngine(plan, on_progress)


def die_loading(*_: object) -> FakeEngine:
    """A node with too little memory: the kernel kills whoever loads."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def refuse_once(plan: WorkerPlan, on_progress: Callable[[int], None]) -> FakeEngine:
    """The first process that loads meets a passing failure, later ones are fine."""
    try:
        (RunDirectory(plan.home).logs / "first").touch(exist_ok=False)
    except FileExistsError:
        return FakeEngine(plan, on_progress)
    return refuse(plan, on_progress)


def check_model(spec: ModelSpec, device: Device) -> None:
    """Every checkpoint will do, but for one name."""
    del device
    if spec.checkpoint == "nowhere":
        raise CheckpointError("nowhere: no such checkpoint")


def survey(spec: JobSpec, rows: Sequence[Row]) -> Survey | None:
    """A model of 1 kB a token: each word is one, and a prompt that starts with "bad" cannot be encoded."""
    from cogbatch.engine.fit import Fit, Footprint

    if spec.model.checkpoint == "owner/elsewhere":
        return None
    asked = [row.prompt.split() for row in rows if row.error is None]
    prompts = [words for words in asked if words[0] != "bad"]
    k, new = spec.generation.num_candidates, spec.generation.max_new_tokens
    text = max(map(len, prompts), default=0)
    need = Footprint(
        weight_bytes=8 * 10**9,
        working_bytes=10**9,
        token_bytes=1000,
        image_tokens=0,
        text_tokens=text,
        rows=k,
        new_tokens=k * new,
        expanded_tokens=k * (text + new),
    )
    return Survey(
        dtype="float32",
        quantization=None,
        rows=k,
        new_tokens=k * new,
        prompt_tokens=tuple(map(len, prompts)),
        errors=tuple(RequestError("prompt", "PromptError", "no") for words in asked if words[0] == "bad"),
        need=need,
        here=Fit("this machine", 4 * 10**9, 0, "the weights take 8.0 GB"),
        cards=(Fit("16 GB", 16 * 10**9, 3), Fit("24 GB", 24 * 10**9, 9), Fit("32 GB", 32 * 10**9, 9)),
    )


FAKE = Backend(check_params, check_model, prepare, FakeEngine, survey)
NOTING = replace(FAKE, open_engine=note_load)
REFUSING = replace(FAKE, open_engine=refuse)
