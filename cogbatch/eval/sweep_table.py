"""The points of a sweep side by side: every metric with its interval, what it cost, and who is on the front.

Reads run directories, runs nothing. How it is written down: sweep_files.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from cogbatch.dataset.parts import read_part
from cogbatch.eval.digest import digest_run
from cogbatch.eval.judge import Judge, open_judge
from cogbatch.eval.metrics import Average, averages
from cogbatch.eval.pareto import DIVERSITY, QUALITY, pareto_front, rising
from cogbatch.eval.runs import Run, open_run
from cogbatch.eval.stored_sweep import PointRun, StoredSweep
from cogbatch.metric_names import COST
from cogbatch.types import JudgeOptions


@dataclass(frozen=True)
class PointResult:
    """A point in numbers.

    Args:
        items, errors: rows of the run, and those of them that are errors. averages: by metric, over the items
            without error; none for a point that failed.
        engine_seconds: that engines worked for all its items, see cost().
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


def tabulate(sweep: StoredSweep) -> SweepTable:
    """Reads the parts of every point that did not fail, judges them and compares them.

    Raises:
        RunDirectoryError: a run cannot be read. EvaluationError: the judge failed.
    """
    judges: dict[str, Judge] = {}
    points = []
    for run in sweep.points:
        points.append(PointResult(run) if run.failure else _measure(run, sweep.judge, judges))
    there = {metric for point in points for metric, one in point.averages.items() if one.mean is not None}
    quality = sweep.quality or next((metric for metric in QUALITY if metric in there), QUALITY[-1])
    diversity = sweep.diversity or next((metric for metric in DIVERSITY if metric in there), DIVERSITY[0])
    places = [(rising(quality, one.mean(quality)), rising(diversity, one.mean(diversity))) for one in points]
    judged = next(iter(judges.values())).name if judges else None
    return SweepTable(
        sweep.name,
        tuple(
            replace(point, on_front=on_front)
            for point, on_front in zip(points, pareto_front(places), strict=True)
        ),
        quality,
        diversity,
        judged,
    )


def _measure(point: PointRun, options: JudgeOptions | None, judges: dict[str, Judge]) -> PointResult:
    run = open_run(point.path)
    judge = None
    if options is not None:
        same_input = json.dumps([run.job["dataset_fingerprint"], run.job["spec"]["input"]], sort_keys=True)
        if same_input not in judges:  # what it knows of all references is the same for all points over it
            judges[same_input] = open_judge(options, run)
        judge = judges[same_input]
    digest = digest_run(run, max_items=0, judge=judge)
    total_s, average = cost(run)
    found = {one.metric: one for one in (average, *digest.averages)}
    return PointResult(point, digest.rows_out, digest.num_errors, found, total_s, digest.no_pass_at_k)


def cost(run: Run) -> tuple[float, Average]:
    """Engine seconds of all rows, and their average over the items without error.

    The column `seconds` of a row is its share of the time that its engine worked: its own prefill, of every
    step of decoding the part that its rows (of the whole pool or all beams) are of all rows in that step, and
    the choice of its candidates. So the sum over all rows of all points is the time that engines worked, and
    what ran beside a point does not count for it. Loading, reading, writing and waiting do not count.
    """
    total = 0.0

    def items() -> Iterator[Mapping[str, float | None]]:
        nonlocal total
        for part in run.parts:
            table = read_part(run.path / "parts", part.name, ["seconds", "error"])
            for seconds, is_error in zip(
                table["seconds"].to_pylist(), table["error"].is_valid().to_pylist(), strict=True
            ):
                total += seconds or 0.0
                if not is_error:
                    yield {COST: seconds}

    found = averages(items())
    average = next((one for one in found if one.metric == COST), Average(COST, 0, None, None, None))
    return total, average
