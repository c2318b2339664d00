"""The points of a sweep side by side: every metric with its interval, what it cost, and who is on the front.

Reads run directories, runs nothing. How it is written down: sweep_files.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from cogbatch.eval.digest import Digest
from cogbatch.eval.digests import digest_runs
from cogbatch.eval.metrics import Average
from cogbatch.eval.pareto import plane_of
from cogbatch.eval.runs import open_run
from cogbatch.eval.stored_sweep import PointRun, StoredSweep
from cogbatch.metric_names import COST


@dataclass(frozen=True)
class PointResult:
    """A point in numbers.

    Args:
        items, errors: rows of the run, and those of them that are errors. averages: by metric, over the items
            without error; none for a point that failed.
        engine_seconds: that engines worked for all its items, errors too.
        no_pass_at_k: why there is no pass@k, where candidates were judged.
    """

    run: PointRun
    items: int = 0
    errors: int = 0
    averages: Mapping[str, Average] = field(default_factory=dict)
    engine_seconds: float | None = None
    no_pass_at_k: str | None = None
    on_front: bool = False

    @property
    def name(self) -> str:
        return self.run.name

    def mean(self, metric: str) -> float | None:
        """None where it is not defined."""
        return self.averages[metric].mean if metric in self.averages else None


@dataclass(frozen=True)
class SweepTable:
    """A sweep in numbers. quality, diversity: the axes of the front. judge: its name; None without one."""

    name: str
    points: tuple[PointResult, ...]
    quality: str
    diversity: str
    judge: str | None = None

    @property
    def failures(self) -> dict[str, str]:
        """Why points failed, by name."""
        return {point.name: point.run.failure for point in self.points if point.run.failure}

    @property
    def settings(self) -> tuple[str, ...]:
        """Every key that a point sets."""
        return tuple(dict.fromkeys(key for point in self.points for key in point.run.settings))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those that a point has, the axes and the cost first."""
        there = dict.fromkeys(metric for point in self.points for metric in point.averages)
        first = [metric for metric in (self.quality, self.diversity, COST) if metric in there]
        return tuple(dict.fromkeys([*first, *there]))


def tabulate(
    sweep: StoredSweep, *, workers: int = 1, on_progress: Callable[[int, int], None] | None = None
) -> SweepTable:
    """Reads the parts of every point that did not fail, judges them and compares them.

    Args:
        workers: processes that compute metrics, for large runs. on_progress: is told how many rows of how
            many are read.

    Raises:
        RunDirectoryError: a run cannot be read. EvaluationError: the judge failed.
    """
    runs = {point.name: open_run(point.path) for point in sweep.points if not point.failure}
    digests = digest_runs(list(runs.values()), judge=sweep.judge, workers=workers, on_progress=on_progress)
    measured = {}
    judge = None
    for name, (digest, judged) in zip(runs, digests, strict=True):
        judge = judge or judged
        measured[name] = digest
    points = [
        _result(point, measured[point.name]) if point.name in measured else PointResult(point)
        for point in sweep.points
    ]
    plane = plane_of([point.averages for point in points], quality=sweep.quality, diversity=sweep.diversity)
    return SweepTable(
        sweep.name,
        tuple(replace(one, on_front=on_front) for one, on_front in zip(points, plane.front, strict=True)),
        plane.quality,
        plane.diversity,
        judge.name if judge is not None else None,
    )


def _result(point: PointRun, digest: Digest) -> PointResult:
    return PointResult(
        point,
        items=digest.rows_out,
        errors=digest.num_errors,
        averages={one.metric: one for one in digest.averages},
        engine_seconds=digest.engine_seconds,
        no_pass_at_k=digest.no_pass_at_k,
    )
