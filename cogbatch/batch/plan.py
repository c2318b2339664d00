"""A job checked, counted and estimated, and not run: no weights, no Ray."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cogbatch.batch.backend import Backend, cogvlm_backend
from cogbatch.batch.estimate import Estimate, kinds_of, known_speed, sample_rows
from cogbatch.batch.identity import identity_without_model
from cogbatch.batch.job import check_job, count_duplicates
from cogbatch.batch.spec import JobSpec
from cogbatch.dataset.dataset import Dataset
from cogbatch.dataset.run_directory import RunDirectory
from cogbatch.dataset.shards import Shard


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
    done = missing_shards(spec, run, dataset, shards)
    missing = shards if done is None else done
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
        missing_shards=None if done is None else len(done),
        candidates=dataset.num_rows * spec.generation.num_candidates,
        duplicate_ids=count_duplicates(dataset, run.read_job() or {}),
        workers=workers,
        run_path=str(run.path),
        estimate=estimate,
    )


def missing_shards(
    spec: JobSpec, run: RunDirectory, dataset: Dataset, shards: tuple[Shard, ...]
) -> tuple[Shard, ...] | None:
    """The shards without a part; None before the first start. Changes nothing.

    Raises RunDirectoryError: the directory is another job's, as far as can be told without the model.
    """
    run.check()
    stored = run.read_job()
    if stored is None:
        return None
    known = identity_without_model(spec, dataset_fingerprint=dataset.fingerprint, shards=shards)
    run.refuse_other(stored, {**stored, "identity": {**stored.get("identity", {}), **known}})
    return run.missing(shards)
