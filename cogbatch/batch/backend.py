"""The seam between the job and the model: all that the job needs of checkpoints and engines, as functions.

Imports are inside the functions: importing what describes a job must not load torch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from cogbatch.batch.loop import EngineLike
from cogbatch.batch.progress import percent
from cogbatch.batch.spec import ClusterSpec, JobSpec, ModelSpec
from cogbatch.batch.survey import Survey, memory_share, survey
from cogbatch.checkpoint.folder import ProvenFolder
from cogbatch.dataset.dataset import Dataset
from cogbatch.dataset.rows import Row
from cogbatch.errors import CheckpointError, JobError
from cogbatch.images import ImageLimits
from cogbatch.redact import without_secrets
from cogbatch.types import GenerationParams, Quantization

Say = Callable[[str], None]
Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class ReadyModel:
    """A model directory that an engine can load.

    Args:
        template_version: resolved, in the words of config.json. dtype: resolved, never "auto".
        tokenizer_path: None when the tokenizer is in the model directory.
        folders: what an engine loads, with the sha256 of every file: the model directory, then that of the
            tokenizer where it is another.
    """

    path: str
    fingerprint: str
    template_version: str
    dtype: str
    tokenizer_path: str | None = None
    quantization: Quantization | None = None
    folders: tuple[ProvenFolder, ...] = ()


@dataclass(frozen=True)
class JobPlan:
    """What a worker is told of one job.

    Args:
        retry: not empty: only the error rows of the shards' parts are run, and this marks the new parts.
    """

    run_path: str
    dataset: Dataset
    fingerprint: str
    params: GenerationParams
    retry: str = ""


@dataclass(frozen=True)
class WorkerPlan:
    """All that a worker is told; a plain value that travels.

    Args:
        jobs: at least one, all with this model and these settings; a task names its job by its place here.
        device: "auto" or "cpu". num_threads: torch threads. probe: token that each worker writes under the
            home directory before it loads anything.
        cluster: who else works on a node.
        isolated: the shards are single items, one at a time, written to staging instead of parts/.
        label: what metrics call the whole of it.
    """

    jobs: tuple[JobPlan, ...]
    model: ReadyModel
    device: str
    num_threads: int
    stall_timeout_s: float
    probe: str
    cluster: ClusterSpec = field(default_factory=ClusterSpec)
    isolated: bool = False
    label: str = ""

    @property
    def home(self) -> str:
        """The run directory in which workers prove their storage and leave their logs: the first job's."""
        return self.jobs[0].run_path


OpenEngine = Callable[[WorkerPlan, Callable[[int], None]], EngineLike]
"""(plan, on_progress) -> engine with proven weights. Raises CogbatchError when they cannot be proven."""


@dataclass(frozen=True)
class Backend:
    """What a job calls; tests give their own.

    Args:
        check_params: raises ValueError.
        check_model: cheap; for cpu or cuda. Raises CheckpointError for a checkpoint or tokenizer that cannot
            work, JobError for quantization.
        prepare: converts if needed, and finds the tokenizer. Raises CheckpointError.
        open_engine: runs in a worker.
        survey: what plan asks, of a job and a sample of its rows; see survey.py.
        offer: nodes that cannot see the driver's files get them for the time of this; needs Ray.
    """

    check_params: Callable[[GenerationParams], object]
    check_model: Callable[[ModelSpec, Device], None]
    prepare: Callable[[ModelSpec, Say], ReadyModel]
    open_engine: OpenEngine
    survey: Callable[[JobSpec, Sequence[Row]], Survey | None]
    offer: Callable[[WorkerPlan], AbstractContextManager[None]] = lambda _: nullcontext()


def cogvlm_backend() -> Backend:
    """CogVLM as this package converts and runs it."""
    return Backend(_check_params, _check_model, _prepare, _open_engine, survey, _offer)


def _check_params(params: GenerationParams) -> None:
    from cogbatch.engine import check_params

    check_params(params)


def _check_model(spec: ModelSpec, device: Device) -> None:
    from cogbatch.checkpoint.directory import check_sat_config, classify
    from cogbatch.checkpoint.hub import local_directory
    from cogbatch.checkpoint.manifest import TOKENIZER_FILES, tokenizer_files
    from cogbatch.checkpoint.remote import is_url
    from cogbatch.engine.quantization import check_quantization

    # Of a model on the hub or behind a URL no more than this is fetched here.
    small = ("config.json", "model_config.json", *TOKENIZER_FILES)
    folder = local_directory(spec.checkpoint, allow_patterns=small)
    kind = classify(folder)
    if kind == "sat" and not is_url(spec.checkpoint):  # else its weights are not here to be looked for
        check_sat_config(folder, version=spec.version)
    if spec.tokenizer is not None:
        tokenizer_dir = local_directory(spec.tokenizer, allow_patterns=TOKENIZER_FILES)
        where, has_tokenizer = spec.tokenizer, bool(tokenizer_files(tokenizer_dir))
    else:
        where, has_tokenizer = spec.checkpoint, kind == "hf" and bool(tokenizer_files(folder))
    if not has_tokenizer:
        raise _no_tokenizer(without_secrets(where))
    if spec.quantization is not None:
        # That of a SAT checkpoint is known when it is converted.
        own_dtype = _own_dtype(folder) if kind == "hf" else None
        try:
            check_quantization(
                spec.quantization, dtype=own_dtype if spec.dtype == "auto" else spec.dtype, device=device
            )
        except ValueError as err:
            raise JobError(f"model: {err}") from err


def _prepare(spec: ModelSpec, say: Say) -> ReadyModel:
    from cogbatch.checkpoint.directory import prepare_model
    from cogbatch.checkpoint.folders import model_folders

    prepared = prepare_model(
        spec.checkpoint,
        tokenizer=spec.tokenizer,
        version=spec.version,
        on_progress=percent(f"converting {without_secrets(spec.checkpoint)}", say),
    )
    if prepared.tokenizer_path is None:
        raise _no_tokenizer(str(prepared.path))
    path, tokenizer_path = prepared.path.absolute(), prepared.tokenizer_path.absolute()
    return ReadyModel(
        path=str(path),
        fingerprint=prepared.fingerprint,
        template_version=prepared.template_version,
        dtype=_own_dtype(path) if spec.dtype == "auto" else spec.dtype,
        tokenizer_path=None if tokenizer_path == path else str(tokenizer_path),
        quantization=spec.quantization,
        folders=model_folders(prepared),
    )


def _open_engine(plan: WorkerPlan, on_progress: Callable[[int], None]) -> EngineLike:
    from cogbatch.batch.weights import ensure_weights

    # Nothing is loaded, torch included, before every file is proven.
    path, *tokenizer = ensure_weights(plan, on_progress=lambda: on_progress(0))
    from cogbatch.engine.engine import Engine

    return Engine.from_pretrained(
        path,
        dtype=plan.model.dtype,
        quantization=plan.model.quantization,
        device=plan.device,
        tokenizer=tokenizer[0] if tokenizer else None,
        template_version=plan.model.template_version,
        num_threads=plan.num_threads,
        memory_share=memory_share(plan.cluster, on_cuda=plan.device != "cpu", num_cpus=os.cpu_count() or 1),
        image_limits=_image_limits(plan),
        on_progress=on_progress,
    )


def _image_limits(plan: WorkerPlan) -> ImageLimits:
    """All attempts at an image, with the pauses between them, end before the worker counts as stalled."""
    limits = plan.jobs[0].dataset.image_limits
    return replace(limits, timeout_s=min(limits.timeout_s, plan.stall_timeout_s / 8))


def _offer(plan: WorkerPlan) -> AbstractContextManager[None]:
    from cogbatch.batch.weights import offer_weights

    return offer_weights(plan)


def _own_dtype(model_dir: Path) -> str:
    config = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
    return str(config.get("dtype") or config.get("torch_dtype") or "float32")


def _no_tokenizer(where: str) -> CheckpointError:
    return CheckpointError(
        f"{where}: no tokenizer files; set model.tokenizer (--tokenizer) to a directory or hub id"
        " (CogVLM v1 uses lmsys/vicuna-7b-v1.5)"
    )
