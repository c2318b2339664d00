"""A sweep: its points are ordinary jobs over shared workers. Judges and compares nothing: eval does.

What lies in the points' directories is the only state: running a sweep again does what is missing.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import yaml

from cogbatch.batch.backend import Backend, ReadyModel, cogvlm_backend
from cogbatch.batch.identity import fingerprint, job_identity
from cogbatch.batch.job import check_job, open_input, start_job
from cogbatch.batch.plan import cluster_problems, missing_shards, problem_lines
from cogbatch.batch.progress import Progress, Silent
from cogbatch.batch.spec import JobSpec, all_mistakes
from cogbatch.batch.stored import stored_spec
from cogbatch.batch.sweep_groups import OpenPoint, run_points
from cogbatch.batch.sweep_spec import Point, Sweep, said_once
from cogbatch.dataset.atomic import write_json, write_text
from cogbatch.dataset.dataset import Dataset
from cogbatch.dataset.object_path import Place, make_folder, place_of
from cogbatch.dataset.run_directory import RunDirectory
from cogbatch.dataset.shards import Shard
from cogbatch.errors import CogbatchError, JobError, RunDirectoryError
from cogbatch.redact import sayable


@dataclass(frozen=True)
class SweepPlan:
    """A checked sweep that was not run.

    Args:
        points: name, rows, shards and those missing, of each. problems: as of a Plan, but of no rows.
    """

    name: str
    path: str
    points: tuple[Mapping[str, Any], ...]
    problems: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The same for a person."""
        width = max(len(point["name"]) for point in self.points)
        rows = sum(point["rows"] for point in self.points)
        return [
            f"{self.name}: {len(self.points)} points, {rows} rows in all",
            *(
                f"  {point['name']:<{width}}  {point['rows']} rows, "
                f"{point['missing_shards']} of {point['shards']} shards to do"
                for point in self.points
            ),
            f"would write to {self.path}",
            *problem_lines(self.problems),
        ]


@dataclass(frozen=True)
class _Checked:
    """A point with its opened input."""

    point: Point
    dataset: Dataset
    shards: tuple[Shard, ...]


def plan_sweep(sweep: Sweep, *, backend: Backend | None = None, gpus_here: int | None = None) -> SweepPlan:
    """Everything that can be checked and counted without weights and without Ray. Raises: as run_sweep.

    gpus_here: of this machine; None: as torch counts them.
    """
    points, problems = [], dict[str, None]()
    for one in _check(sweep, _remembering(backend or cogvlm_backend())):
        run = RunDirectory(one.point.spec.output.path)
        missing = missing_shards(one.point.spec, run, one.dataset, one.shards)
        if missing is None or missing:
            problems |= dict.fromkeys(cluster_problems(one.point.spec.cluster, gpus_here))
        points.append(
            {
                "name": one.point.name,
                "rows": one.dataset.num_rows,
                "shards": len(one.shards),
                "missing_shards": len(one.shards if missing is None else missing),
            }
        )
    return SweepPlan(sweep.name, sayable(sweep.path), tuple(points), tuple(problems))


def run_sweep(
    sweep: Sweep, *, progress: Progress | None = None, backend: Backend | None = None
) -> dict[str, str]:
    """Runs what is missing of every point, and leaves sweep.json; returns why points failed, by name.

    A point that has too many errors, or whose workers cannot start, fails alone; the others go on.

    Raises:
        CogbatchError: whatever can be known before Ray is started, all points at once.
    """
    progress, backend = progress or Silent(), _remembering(backend or cogvlm_backend())
    checked = _check(sweep, backend)
    models = {one.point.name: backend.prepare(one.point.spec.model, progress.say) for one in checked}
    _refuse_equal(checked, models)
    folder = place_of(sweep.path)
    with ExitStack() as locks:
        opened = _open(checked, models, locks, progress.say)
        _leave_specs(sweep, folder)
        _leave_sweep(sweep, folder, opened, failures={})
        log = RunDirectory(folder).logs / "ray.log"
        failures = run_points(opened, name=folder.name, log=log, backend=backend, progress=progress)
        for point in opened:
            if point.name not in failures:
                try:
                    point.started.finish(None)
                except JobError as err:
                    failures[point.name] = str(err)
        if failures:
            _leave_sweep(sweep, folder, opened, failures=failures)
    return failures


def _remembering(backend: Backend) -> Backend:
    """The same, asked once for each model."""
    return replace(backend, check_model=cache(backend.check_model), prepare=cache(backend.prepare))


def _check(sweep: Sweep, backend: Backend) -> list[_Checked]:
    """All points with their inputs. Raises JobError that says what is wrong with any of them."""
    if (place_of(sweep.path) / "job.json").exists():
        raise RunDirectoryError(f"{sweep.path} is the run directory of a job; use another output.path")
    inputs: dict[Hashable, tuple[Dataset, tuple[Shard, ...]]] = {}

    def opening(spec: JobSpec) -> tuple[Dataset, tuple[Shard, ...]]:
        """Once for all points over it."""
        key = (spec.input, spec.output.shard_size)
        if key not in inputs:
            inputs[key] = open_input(spec)
        return inputs[key]

    checked, wrong = [], {}
    for point in sweep.points:
        try:
            checked.append(_Checked(point, *check_job(point.spec, backend, open_input=opening)))
        except (CogbatchError, ValueError) as err:
            wrong[point.name] = [str(err)]
    if wrong:
        raise all_mistakes(f"sweep {sweep.name}", said_once(wrong, of=len(sweep.points)))
    return checked


def _refuse_equal(checked: Iterable[_Checked], models: Mapping[str, ReadyModel]) -> None:
    first: dict[str, str] = {}
    for one in checked:
        name = one.point.name
        identity = job_identity(
            one.point.spec,
            model=models[name],
            dataset_fingerprint=one.dataset.fingerprint,
            shards=one.shards,
        )
        other = first.setdefault(fingerprint(identity), name)
        if other != name:
            raise JobError(f"points {other} and {name} are the same job: their models and inputs are equal")


def _open(
    checked: Iterable[_Checked],
    models: Mapping[str, ReadyModel],
    locks: ExitStack,
    say: Callable[[str], None],
) -> list[OpenPoint]:
    duplicates: dict[int, int] = {}  # by the dataset, which points share
    opened = []
    for one in checked:
        run = RunDirectory(one.point.spec.output.path)
        guard = locks.enter_context(run.lock(say))
        started = start_job(
            one.point.spec,
            run,
            models[one.point.name],
            one.dataset,
            one.shards,
            say=lambda _: None,
            duplicate_ids=duplicates.get(id(one.dataset)),
        )
        if (count := started.job["duplicate_ids"]) and id(one.dataset) not in duplicates:
            say(f"warning: ids shared with an earlier row: {count} rows")
        duplicates[id(one.dataset)] = count
        opened.append(OpenPoint(one.point.name, models[one.point.name], started, guard))
    return opened


def _leave_specs(sweep: Sweep, folder: Place) -> None:
    """Beside each point's directory its job spec, with which `run` goes on with it alone."""
    make_folder(folder / "points")
    for point in sweep.points:
        text = yaml.safe_dump(stored_spec(point.spec), sort_keys=False, allow_unicode=True)
        write_text(folder / "points" / f"{point.name}.yaml", text)


def _leave_sweep(
    sweep: Sweep, folder: Place, opened: Sequence[OpenPoint], *, failures: Mapping[str, str]
) -> None:
    """sweep.json, which eval reads: the points, how they came out, and how they are to be compared."""
    points = [
        {
            "name": given.name,
            "overrides": given.overrides,
            "settings": given.settings,
            "failure": failures.get(given.name),
            "job_fingerprint": point.started.job["job_fingerprint"],
            "spec": stored_spec(given.spec),
        }
        for given, point in zip(sweep.points, opened, strict=True)
    ]
    write_json(
        folder / "sweep.json",
        {
            "name": sweep.name,
            "judge": asdict(sweep.judge) if sweep.judge else None,
            "quality": sweep.quality,
            "diversity": sweep.diversity,
            "cogbatch": importlib.metadata.version("cogbatch"),
            "points": points,
        },
    )
