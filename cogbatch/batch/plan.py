"""A job checked, counted and estimated, and not run: no weights, no Ray."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cogbatch.batch.backend import Backend, cogvlm_backend
from cogbatch.batch.estimate import Estimate, kinds_of, known_speed, sample_rows
from cogbatch.batch.identity import identity_without_model
from cogbatch.batch.job import check_job, count_duplicates
from cogbatch.batch.spec import ClusterSpec, JobSpec
from cogbatch.dataset.dataset import Dataset
from cogbatch.dataset.run_directory import RunDirectory
from cogbatch.dataset.shards import Shard

FINE = "everything that can be checked without weights is fine"
CHANCE = 0.01  # below which a sample's errors are no bad luck


@dataclass(frozen=True)
class Plan:
    """A checked job that was not run.

    Args:
        missing_shards: None before the first start. problems: why it would not end well, a phrase each.
    """

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
    problems: tuple[str, ...]

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
            *problem_lines(self.problems),
        ]


def plan_job(
    spec: JobSpec,
    *,
    items_per_s: float | None = None,
    price_per_hour: float | None = None,
    backend: Backend | None = None,
    gpus_here: int | None = None,
) -> Plan:
    """Everything that can be checked, counted and estimated without weights and without Ray.

    Args:
        items_per_s, price_per_hour: of one worker, for hours and cost.
        gpus_here: of this machine; None: as torch counts them.

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
        problems=tuple(_problems(spec, estimate, gpus_here)) if missing else (),
    )


def _problems(spec: JobSpec, estimate: Estimate, gpus_here: int | None) -> Iterator[str]:
    here = list(cluster_problems(spec.cluster, gpus_here))
    yield from here or _memory_problems(spec.cluster, estimate)
    yield from _sample_problems(estimate, spec.errors.max_error_rate)


def problem_lines(problems: tuple[str, ...]) -> list[str]:
    """What a plan ends with."""
    return [f"problem: {problem}" for problem in problems] or [FINE]


def cluster_problems(cluster: ClusterSpec, gpus_here: int | None = None) -> Iterator[str]:
    """What workers ask for and this machine does not have, where they start on it."""
    if cluster.address != "local" or not cluster.gpus_per_worker:
        return
    if gpus_here is None:
        import torch

        gpus_here = torch.cuda.device_count()
    if cluster.gpus_per_worker > gpus_here:
        has = f"{gpus_here or 'no'} GPU{'s' * (gpus_here != 1)}"
        yield (
            f"cluster.gpus_per_worker is {cluster.gpus_per_worker:g} and this machine has {has};"
            " set it to 0 for the CPU, or cluster.address to auto on a cluster"
        )


def _memory_problems(cluster: ClusterSpec, estimate: Estimate) -> Iterator[str]:
    """What is free now, and how much an item takes, is said elsewhere and no reason to refuse."""
    if cluster.address != "local" or estimate.survey is None:
        return
    here, weight_bytes = estimate.survey.here, estimate.survey.need.weight_bytes
    if weight_bytes > here.memory_bytes:
        from cogbatch.engine.fit import gigabytes

        yield (
            f"the weights take {gigabytes(weight_bytes)}, {here.device} has {gigabytes(here.memory_bytes)}"
            " in all; set model.quantization, or use another machine"
        )


def _sample_problems(estimate: Estimate, max_error_rate: float) -> Iterator[str]:
    failed, sampled = sum(kind.count for kind in estimate.error_kinds), estimate.sampled
    if sampled and failed == sampled:
        yield f"every sampled row would be an error ({sampled} of {sampled})"
    elif failed and _at_least(failed, of=sampled, rate=max_error_rate) < CHANCE:
        yield (
            f"{failed} of {sampled} sampled rows would be errors; the job stops above "
            f"errors.max_error_rate {max_error_rate:g}"
        )


def _at_least(count: int, *, of: int, rate: float) -> float:
    """The probability of so many or more among `of`, when each has that probability (binomial)."""
    return sum(math.comb(of, k) * rate**k * (1 - rate) ** (of - k) for k in range(count, of + 1))


def missing_shards(
    spec: JobSpec, run: RunDirectory, dataset: Dataset, shards: tuple[Shard, ...]
) -> tuple[Shard, ...] | None:
    """The shards without a part; None before the first start. Changes nothing.

    Raises RunDirectoryError: the directory is another job's, as far as can be told without the model.
    """
    stored = run.read_job()
    if stored is None:
        return None
    known = identity_without_model(spec, dataset_fingerprint=dataset.fingerprint, shards=shards)
    run.refuse_other(stored, {**stored, "identity": {**stored.get("identity", {}), **known}})
    return run.missing(shards)
