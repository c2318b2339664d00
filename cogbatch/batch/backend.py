"""The seam between the job and the model: all that the job needs of checkpoints and engines, as functions.

Imports are inside the functions: planning a job must not load torch, and a finished job must load no engine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cogbatch.batch.loop import EngineLike
from cogbatch.batch.spec import ModelSpec
from cogbatch.dataset.dataset import Dataset
from cogbatch.types import GenerationParams

Say = Callable[[str], None]


@dataclass(frozen=True)
class ReadyModel:
    """A model directory that an engine can load.

    Args:
        template_version: resolved, in the words of config.json. dtype: resolved, never "auto".
        tokenizer_path: None when the tokenizer is in the model directory.
    """

    path: str
    fingerprint: str
    template_version: str
    dtype: str
    tokenizer_path: str | None = None


@dataclass(frozen=True)
class WorkerPlan:
    """All that a worker is told; a plain value that travels.

    Args:
        device: "auto" or "cpu". num_threads: torch threads. probe: token that each worker writes under the
            run directory before it loads anything.
        isolated: the shards are single items, one at a time, written to staging instead of parts/.
    """

    run_path: str
    dataset: Dataset
    model: ReadyModel
    job_fingerprint: str
    params: GenerationParams
    device: str
    num_threads: int
    stall_timeout_s: float
    probe: str
    isolated: bool = False


OpenEngine = Callable[[WorkerPlan, Callable[[int], None]], EngineLike]
"""(plan, on_progress) -> engine with proven weights. Raises CogbatchError when they cannot be proven."""


@dataclass(frozen=True)
class Backend:
    """What a job calls; tests give their own.

    Args:
        check_params: raises ValueError.
        check_model: cheap; raises CheckpointError for a checkpoint or tokenizer that cannot work.
        prepare: converts if needed, and finds the tokenizer. Raises CheckpointError.
        open_engine: runs in a worker.
    """

    check_params: Callable[[GenerationParams], object]
    check_model: Callable[[ModelSpec], None]
    prepare: Callable[[ModelSpec, Say], ReadyModel]
    open_engine: OpenEngine


def cogvlm_backend() -> Backend:
    """CogVLM as this package converts and runs it."""
    return Backend(_check_params, _check_model, _prepare, _open_engine)


def _check_params(params: GenerationParams) -> object:
    from cogbatch.engine.params import check_params

    return check_params(params)
