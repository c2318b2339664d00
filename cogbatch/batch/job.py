"""A job from spec to summary: check what is cheap, prepare the model, resume, run what is missing, count.

Ray is imported and started only when a shard is missing.
"""

from __future__ import annotations

import platform
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from cogbatch.batch.backend import Backend, JobPlan, ReadyModel, WorkerPlan, cogvlm_backend
from cogbatch.batch.identity import fingerprint, job_identity
from cogbatch.batch.ongoing import Ongoing
from cogbatch.batch.progress import Progress, Silent, Status
from cogbatch.batch.spec import JobSpec
from cogbatch.batch.stored import stored_spec
from cogbatch.batch.summary import Summary, count_parts, error_kinds
from cogbatch.batch.tally import Tally, over_rate, too_many_errors
from cogbatch.dataset.dataset import Dataset, open_dataset
from cogbatch.dataset.known import known_input
from cogbatch.dataset.listing import save_listing
from cogbatch.dataset.object_path import place_of
from cogbatch.dataset.run_directory import RunDirectory
from cogbatch.dataset.run_lock import Guard
from cogbatch.dataset.shards import Shard, grid_to_json
from cogbatch.errors import JobError

PACKAGES = ("cogbatch", "torch", "transformers", "ray", "pyarrow", "pillow", "numpy", "bitsandbytes")

OpenInput = Callable[[JobSpec], tuple[Dataset, tuple[Shard, ...]]]


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
        job = start_job(spec, run, model, dataset, shards, say=progress.say)
        status = None
        if job.missing:
            said = f"{len(job.missing)} of {len(shards)} shards to do, {job.before.rows} rows are done"
            progress.say(f"{said}; starting Ray")
            ongoing = job.ongoing(guard)
            status = run_missing([ongoing], spec, model, backend=backend, progress=progress)
            if ongoing.failure:
                raise ongoing.failure
        return job.finish(status)


@dataclass(frozen=True)
class StartedJob:
    """A job whose directory is begun, under its lock.

    Args:
        job: job.json. before: counts of the parts there are. missing: shards that have none.
    """

    spec: JobSpec
    run: RunDirectory
    dataset: Dataset
    job: Mapping[str, Any]
    before: Tally
    missing: tuple[Shard, ...]

    def ongoing(self, guard: Guard) -> Ongoing:
        """The job as a driver takes it on. guard: of the lock."""
        return Ongoing(
            name=self.run.path.name,
            plan=job_plan(self.spec, self.run, self.dataset, self.job),
            work=self.run,
            left=self.missing,
            before=self.before,
            rows_total=self.dataset.num_rows,
            max_error_rate=self.spec.errors.max_error_rate,
            guard=guard,
        )

    def finish(self, status: Status | None) -> Summary:
        """Counts the parts and leaves the summary, once nothing is missing any more.

        Args:
            status: the last of the run that did it; None: nothing was missing, or speeds are not its own.

        Raises JobError: other rows than the job's, or too many errors among them.
        """
        tally = count_parts(self.run.parts, self.run.footers()) if self.missing else self.before
        summary = summarize(self.run, self.spec, self.job, tally, len(self.missing), status)
        if tally.rows != self.dataset.num_rows:
            raise JobError(
                f"{self.run.parts}: {tally.rows} rows, expected {self.dataset.num_rows};"
                " is something else in it?"
            )
        if self.missing or not (self.run.path / "summary.json").exists():
            self.run.finish(summary.to_json())
        if over_rate(tally, self.spec.errors.max_error_rate):
            raise too_many_errors(tally, self.spec.errors.max_error_rate, finished=True)
        return summary


def start_job(
    spec: JobSpec,
    run: RunDirectory,
    model: ReadyModel,
    dataset: Dataset,
    shards: tuple[Shard, ...],
    *,
    say: Callable[[str], None],
    duplicate_ids: int | None = None,
) -> StartedJob:
    """Begins or resumes a job in its directory, whose lock the caller holds.

    Args:
        duplicate_ids: where they have been counted in this input.

    Raises RunDirectoryError: another job's directory.
    """
    described = describe(
        spec, model, dataset, shards, stored=run.read_job() or {"duplicate_ids": duplicate_ids}
    )
    job = described | run.start(described)  # an older job.json may lack what is only said, not meant
    save_listing(run.path, dataset)
    if job["duplicate_ids"]:
        say(f"warning: ids shared with an earlier row: {job['duplicate_ids']} rows")
    footers = run.footers()
    missing = run.missing(shards, footers=footers)
    return StartedJob(spec, run, dataset, job, count_parts(run.parts, footers), missing)


def open_input(spec: JobSpec) -> tuple[Dataset, tuple[Shard, ...]]:
    """The opened input and its shards; what an earlier start found there is not looked for again.

    Raises DatasetError.
    """
    known = known_input(RunDirectory(spec.output.path).read_job(), spec.input)
    dataset = open_dataset(spec.input, known=known)
    return dataset, dataset.shards(spec.output.shard_size)


def check_job(
    spec: JobSpec, backend: Backend, *, open_input: OpenInput = open_input
) -> tuple[Dataset, tuple[Shard, ...]]:
    """The opened input and its shards, once all that is cheap to check is fine. Raises: as run_job."""
    RunDirectory(spec.output.path).check()
    try:
        backend.check_params(spec.generation)
    except ValueError as err:
        raise JobError(f"generation: {err}") from err
    backend.check_model(spec.model, "cuda" if spec.cluster.gpus_per_worker else "cpu")
    return open_input(spec)


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
        "duplicate_ids": count_duplicates(dataset, stored),
        "threads_per_worker": spec.cluster.cpus_per_worker,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": [file.path for file in dataset.files],
        "found": dataset.found(),
        "shards": grid_to_json(shards),
    }


def job_plan(spec: JobSpec, run: RunDirectory, dataset: Dataset, job: Mapping[str, Any]) -> JobPlan:
    """What workers are told of a job at this start of it."""
    return JobPlan(str(run.path), dataset, job["job_fingerprint"], spec.generation)


def worker_plan(jobs: Sequence[JobPlan], spec: JobSpec, model: ReadyModel, *, label: str = "") -> WorkerPlan:
    """What workers are told; spec: that of any of the jobs, whose model, cluster and errors are the same.

    label: for metrics; empty: the name of the first run directory.
    """
    return WorkerPlan(
        jobs=tuple(jobs),
        model=model,
        device="auto" if spec.cluster.gpus_per_worker else "cpu",
        num_threads=spec.cluster.cpus_per_worker,
        stall_timeout_s=spec.errors.stall_timeout_s,
        probe=secrets.token_hex(16),
        cluster=spec.cluster,
        label=label or place_of(jobs[0].run_path).name,
    )


def run_missing(
    jobs: Sequence[Ongoing],
    spec: JobSpec,
    model: ReadyModel,
    *,
    backend: Backend,
    progress: Progress,
    label: str = "",
) -> Status:
    """Starts or joins Ray, blocks until nothing is missing, and leaves Ray as it was.

    A job that is given up while others go on has its `failure` set.

    Args:
        jobs: all with this model and the settings of workers in spec. label: see worker_plan.

    Raises JobError: none of them can go on.
    """
    # A finished job must not pay for Ray.
    from cogbatch.batch.cluster import connected
    from cogbatch.batch.driver import Driver

    plan = worker_plan([job.plan for job in jobs], spec, model, label=label)
    home = RunDirectory(plan.home)
    try:
        shares_all = spec.cluster.address == "local"
        offer = nullcontext() if shares_all else backend.offer(plan)
        with connected(spec.cluster, log=home.logs / "ray.log"), offer:
            driver = Driver(
                jobs,
                plan,
                home=home,
                open_engine=backend.open_engine,
                progress=progress,
                shard_attempts=spec.errors.shard_attempts,
            )
            return driver.finish()
    finally:
        for log in home.logs.glob("worker-*.log"):  # made before a worker loads, written to when it stalls
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
        working_s=status.working_s if status else 0.0,
        items_per_s=status.items_per_s if status else 0.0,
        tokens_per_s=status.tokens_per_s if status else 0.0,
        parts=str(run.parts),
        model_fingerprint=job["model_fingerprint"],
        job_fingerprint=job["job_fingerprint"],
    )


def count_duplicates(dataset: Dataset, stored: Mapping[str, Any]) -> int:
    """As job.json has them, or counted."""
    known: int | None = stored.get("duplicate_ids")
    return dataset.count_duplicate_ids() if known is None else known


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
