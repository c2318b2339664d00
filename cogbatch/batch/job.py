"""A job from spec to summary: check what is cheap, prepare the model, resume, run what is missing, count.

Ray is imported and started only when a shard is missing.
"""

from __future__ import annotations

import platform
import secrets
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from cogbatch.batch.backend import Backend, ReadyModel, WorkerPlan, cogvlm_backend
from cogbatch.batch.estimate import Estimate, kinds_of, known_speed, sample_rows
from cogbatch.batch.identity import fingerprint, identity_without_model, job_identity
from cogbatch.batch.progress import Progress, Silent, Status
from cogbatch.batch.spec import JobSpec
from cogbatch.batch.stored import stored_spec
from cogbatch.batch.summary import Summary, count_parts, error_kinds
from cogbatch.batch.tally import Tally, over_rate, too_many_errors
from cogbatch.dataset.dataset import Dataset, open_dataset
from cogbatch.dataset.known import known_input
from cogbatch.dataset.listing import save_listing
from cogbatch.dataset.retry import RetryRound
from cogbatch.dataset.run_directory import RunDirectory
from cogbatch.dataset.run_lock import Guard
from cogbatch.dataset.shards import Shard, grid_to_json
from cogbatch.errors import JobError

PACKAGES = ("cogbatch", "torch", "transformers", "ray", "pyarrow", "pillow", "numpy", "bitsandbytes")


@dataclass(frozen=True)
class Plan:
    """A checked job that was not run. missing_shards: None before the first start."""

    name: str
    rows: int
    shards: int
    rows_per_shard: int
    missing_shards: int | None
    candidates: int
    duplicate_ids: int
    workers: int
    run_path: str
    estimate: Estimate

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {**vars(self), "estimate": self.estimate.to_json()}

    def lines(self) -> list[str]:
        """The same for a person."""
        lines = [
            f"{self.name}: {self.rows} rows in {self.shards} shards of at most {self.rows_per_shard}, "
            f"{self.candidates} candidates asked for, up to {self.workers} worker{'s' * (self.workers != 1)}",
        ]
        if self.duplicate_ids:
            lines.append(f"ids shared with an earlier row: {self.duplicate_ids} rows")
        if self.missing_shards is not None:
            lines.append(
                f"started before: {self.shards - self.missing_shards} of {self.shards} shards are there"
            )
        return [
            *lines,
            *self.estimate.lines(),
            f"nothing is missing in {self.run_path}"
            if self.missing_shards == 0
            else f"would write to {self.run_path}",
            "everything that can be checked without weights is fine",
        ]


def plan_job(
    spec: JobSpec,
    *,
    items_per_s: float | None = None,
    price_per_hour: float | None = None,
    backend: Backend | None = None,
) -> Plan:
    """Everything that can be checked, counted and estimated without weights and without Ray.

    Args:
        items_per_s, price_per_hour: of one worker, for hours and cost.

    Raises: as run_job, before it starts anything.
    """
    backend = backend or cogvlm_backend()
    dataset, shards = check_job(spec, backend)
    run = RunDirectory(spec.output.path)
    run.check()
    stored = run.read_job()
    if stored is not None:
        known = identity_without_model(spec, dataset_fingerprint=dataset.fingerprint, shards=shards)
        run.refuse_other(stored, {**stored, "identity": {**stored.get("identity", {}), **known}})
    missing = shards if stored is None else run.missing(shards)
    workers = min(spec.cluster.max_workers, len(shards))
    sample = sample_rows(dataset, shards)
    found = backend.survey(spec, sample)
    errors = [row.error for row in sample if row.error is not None]
    estimate = Estimate(
        sampled=len(sample),
        error_kinds=kinds_of([*errors, *(found.errors if found else ())]),
        survey=found,
        rows=dataset.num_rows,
        rows_left=sum(shard.num_rows for shard in missing),
        workers=workers,
        speed=known_speed(run.path, items_per_s=items_per_s, workers=workers),
        price_per_hour=price_per_hour,
    )
    return Plan(
        name=spec.name,
        rows=dataset.num_rows,
        shards=len(shards),
        rows_per_shard=max(shard.num_rows for shard in shards),
        missing_shards=None if stored is None else len(missing),
        candidates=dataset.num_rows * spec.generation.num_candidates,
        duplicate_ids=_duplicate_ids(dataset, stored or {}),
        workers=workers,
        run_path=str(run.path),
        estimate=estimate,
    )


def run_job(spec: JobSpec, *, progress: Progress | None = None, backend: Backend | None = None) -> Summary:
    """Runs what is missing of a job and counts what is there.

    Args:
        progress: where to say how it goes; None says nothing.
        backend: the model's side; None is CogVLM.

    Raises:
        CogbatchError: wrong input, checkpoint, run directory (before Ray is started), or the job had to stop.
        ValueError: wrong generation parameters.
    """
    progress, backend = progress or Silent(), backend or cogvlm_backend()
    dataset, shards = check_job(spec, backend)
    run = RunDirectory(spec.output.path)
    with run.lock(progress.say) as guard:
        model = backend.prepare(spec.model, progress.say)
        described = describe(spec, model, dataset, shards, stored=run.read_job() or {})
        job = described | run.start(described)  # an older job.json may lack what is only said, not meant
        save_listing(run.path, dataset)
        if job["duplicate_ids"]:
            progress.say(f"warning: ids shared with an earlier row: {job['duplicate_ids']} rows")
        footers = run.footers()
        missing = run.missing(shards, footers=footers)
        tally, status = count_parts(run.parts, footers), None
        if missing:
            said = f"{len(missing)} of {len(shards)} shards to do, {tally.rows} rows are done"
            progress.say(f"{said}; starting Ray")
            plan = worker_plan(spec, run, model, dataset, job)
            status = run_missing(
                run,
                spec,
                plan,
                missing,
                before=tally,
                backend=backend,
                progress=progress,
                rows_total=dataset.num_rows,
                guard=guard,
            )
            tally = count_parts(run.parts, run.footers())
        summary = summarize(run, spec, job, tally, len(missing), status)
        if tally.rows != dataset.num_rows:
            raise JobError(
                f"{run.parts}: {tally.rows} rows, expected {dataset.num_rows}; is something else in it?"
            )
        if status is not None or not (run.path / "summary.json").exists():
            run.write_summary(summary.to_json())
    if over_rate(tally, spec.errors.max_error_rate):
        raise too_many_errors(tally, spec.errors.max_error_rate, finished=True)
    return summary


def check_job(spec: JobSpec, backend: Backend) -> tuple[Dataset, tuple[Shard, ...]]:
    """The opened input and its shards, once all that is cheap to check is fine. Raises: as run_job."""
    try:
        backend.check_params(spec.generation)
    except ValueError as err:
        raise JobError(f"generation: {err}") from err
    backend.check_model(spec.model, "cuda" if spec.cluster.gpus_per_worker else "cpu")
    known = known_input(RunDirectory(spec.output.path).read_job(), spec.input)
    dataset = open_dataset(spec.input, known=known)
    return dataset, dataset.shards(spec.output.shard_size)


def describe(
    spec: JobSpec,
    model: ReadyModel,
    dataset: Dataset,
    shards: Sequence[Shard],
    *,
    stored: Mapping[str, Any],
) -> dict[str, Any]:
    """job.json. The ids are counted once, at the first start: stored is the job.json of then."""
    identity = job_identity(
        spec,
        model=model,
        dataset_fingerprint=dataset.fingerprint,
        shards=shards,
    )
    return {
        "job_fingerprint": fingerprint(identity),
        "model_fingerprint": model.fingerprint,
        "model_files": [asdict(file) for folder in model.folders for file in folder.files],
        "dataset_fingerprint": dataset.fingerprint,
        "identity": identity,
        "spec": stored_spec(spec),
        "duplicate_ids": _duplicate_ids(dataset, stored),
        "threads_per_worker": spec.cluster.cpus_per_worker,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": [file.path for file in dataset.files],
        "found": dataset.found(),
        "shards": grid_to_json(shards),
    }


def worker_plan(
    spec: JobSpec, run: RunDirectory, model: ReadyModel, dataset: Dataset, job: Mapping[str, Any]
) -> WorkerPlan:
    """What workers are told at this start of the job."""
    return WorkerPlan(
        run_path=str(run.path),
        dataset=dataset,
        model=model,
        job_fingerprint=job["job_fingerprint"],
        params=spec.generation,
        device="auto" if spec.cluster.gpus_per_worker else "cpu",
        num_threads=spec.cluster.cpus_per_worker,
        stall_timeout_s=spec.errors.stall_timeout_s,
        probe=secrets.token_hex(16),
        cluster=spec.cluster,
    )


def run_missing(
    run: RunDirectory,
    spec: JobSpec,
    plan: WorkerPlan,
    shards: Sequence[Shard],
    *,
    before: Tally,
    backend: Backend,
    progress: Progress,
    rows_total: int,
    guard: Guard,
    retry: RetryRound | None = None,
) -> Status:
    """Starts or joins Ray, blocks until nothing is missing, and leaves Ray as it was.

    Args:
        before: counts of what is done. rows_total: those and the rows to do.
        guard: raises when the run is no longer this driver's.
        retry: do this round over error rows instead of missing shards.
    """
    # A finished job must not pay for Ray.
    from cogbatch.batch.cluster import connected
    from cogbatch.batch.driver import Driver

    try:
        shares_all = spec.cluster.address == "local"
        offer = nullcontext() if shares_all else backend.offer(plan)
        with connected(spec.cluster, log=run.logs / "ray.log"), offer:
            driver = Driver(
                run,
                spec,
                plan,
                open_engine=backend.open_engine,
                progress=progress,
                before=before,
                rows_total=rows_total,
                work=run if retry is None else retry,
                guard=guard,
            )
            return driver.finish(shards)
    finally:
        for log in run.logs.glob("worker-*.log"):  # made before a worker loads, written to when it stalls
            if not log.stat().st_size:
                log.unlink()


def summarize(
    run: RunDirectory, spec: JobSpec, job: Mapping[str, Any], tally: Tally, done: int, status: Status | None
) -> Summary:
    """The summary of a finished job. done: shards done by this run."""
    return Summary(
        name=spec.name,
        rows=tally.rows,
        ok=tally.rows - tally.errors,
        errors=tally.errors,
        error_kinds=error_kinds(tally),
        candidates=tally.candidates,
        candidates_missing=(tally.rows - tally.errors) * spec.generation.num_candidates - tally.candidates,
        tokens=tally.tokens,
        shards=job["identity"]["shards"]["count"],
        shards_done_now=done,
        duplicate_ids=job["duplicate_ids"],
        seconds=status.seconds if status else 0.0,
        items_per_s=status.items_per_s if status else 0.0,
        tokens_per_s=status.tokens_per_s if status else 0.0,
        parts=str(run.parts),
        model_fingerprint=job["model_fingerprint"],
        job_fingerprint=job["job_fingerprint"],
    )


def _duplicate_ids(dataset: Dataset, stored: Mapping[str, Any]) -> int:
    """As job.json has them, or counted."""
    known: int | None = stored.get("duplicate_ids")
    return dataset.count_duplicate_ids() if known is None else known


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
