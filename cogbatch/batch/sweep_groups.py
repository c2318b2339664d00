"""Points of a sweep on shared workers: those that agree in their model and in what workers are told.

So weights are loaded once in each worker of a group, and not once for each point. Groups run one after the
other on one Ray.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cogbatch.batch.backend import Backend, ReadyModel
from cogbatch.batch.job import StartedJob, run_missing
from cogbatch.batch.progress import Progress, Status
from cogbatch.batch.spec import ClusterSpec
from cogbatch.dataset.run_lock import Guard
from cogbatch.errors import JobError


@dataclass(frozen=True)
class OpenPoint:
    """A point whose directory is locked and begun. guard: of that lock."""

    name: str
    model: ReadyModel
    started: StartedJob
    guard: Guard

    @property
    def group(self) -> Hashable:
        """Equal for points that workers can serve together."""
        spec, dataset = self.started.spec, self.started.dataset
        errors = (spec.errors.shard_attempts, spec.errors.stall_timeout_s)
        return self.model, spec.cluster, errors, dataset.image_limits


def run_points(
    points: Sequence[OpenPoint], *, name: str, log: Path, backend: Backend, progress: Progress
) -> dict[str, str]:
    """Blocks until nothing is missing; returns why points failed, by name. Without work no Ray is started.

    A point that is given up, or whose group finds no worker, does not keep the others from going on.

    Args:
        name: of the sweep, for metrics. log: of Ray.
    """
    todo = [point for point in points if point.started.missing]
    if not todo:
        return {}
    # A finished sweep must not pay for Ray.
    from cogbatch.batch.cluster import connected

    groups: dict[Hashable, list[OpenPoint]] = {}
    for point in todo:
        groups.setdefault(point.group, []).append(point)
    shards = sum(len(point.started.missing) for point in todo)
    alike = f" in {len(groups)} groups, one after the other" if len(groups) > 1 else ""
    progress.say(f"{shards} shards of {len(todo)} points to do{alike}; starting Ray")
    rows = {point.name: point.started.before.rows for point in points}
    failures: dict[str, str] = {}
    with connected(_widest([point.started.spec.cluster for point in todo]), log=log):
        for group in groups.values():
            seen = _of_all(progress, points, group, rows)
            failed = _run_group(group, name=name, backend=backend, progress=seen)
            failures |= failed
            rows |= {p.name: p.started.dataset.num_rows for p in group if p.name not in failed}
    return failures


def _run_group(
    group: Sequence[OpenPoint], *, name: str, backend: Backend, progress: Progress
) -> dict[str, str]:
    jobs = [point.started.ongoing(point.guard) for point in group]
    spec, model = group[0].started.spec, group[0].model
    try:
        run_missing(jobs, spec, model, backend=backend, progress=progress, label=name)
    except JobError as err:
        return {job.name: str(job.failure or err) for job in jobs if job.failure or job.missing()}
    return {job.name: str(job.failure) for job in jobs if job.failure}


def _widest(clusters: Sequence[ClusterSpec]) -> ClusterSpec:
    """The one that needs most of a machine: a Ray that is started here has room for each of them."""
    return max(clusters, key=lambda cluster: cluster.max_workers * cluster.cpus_per_worker)


@dataclass(frozen=True)
class _OfAll:
    """The progress of a group as that of the whole sweep. rest: rows and points of the others."""

    progress: Progress
    rest: Status

    def say(self, line: str) -> None:
        self.progress.say(line)

    def update(self, status: Status) -> None:
        self.progress.update(
            replace(
                status,
                rows=status.rows + self.rest.rows,
                rows_total=status.rows_total + self.rest.rows_total,
                rows_before=status.rows_before + self.rest.rows,
                errors=status.errors + self.rest.errors,
                jobs=status.jobs + self.rest.jobs,
                jobs_done=status.jobs_done + self.rest.jobs_done,
            )
        )

    def close(self) -> None:
        self.progress.close()


def _of_all(
    progress: Progress, points: Sequence[OpenPoint], group: Sequence[OpenPoint], rows: dict[str, int]
) -> Progress:
    names = {point.name for point in group}
    rest = [point for point in points if point.name not in names]
    return _OfAll(
        progress,
        Status(
            rows=sum(rows[point.name] for point in rest),
            rows_total=sum(point.started.dataset.num_rows for point in rest),
            errors=sum(point.started.before.errors for point in rest),
            jobs=len(rest),
            jobs_done=sum(rows[point.name] == point.started.dataset.num_rows for point in rest),
        ),
    )
