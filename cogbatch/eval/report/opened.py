"""The runs that were named: run directories, and sweeps as the runs of their points. Reads no rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cogbatch.dataset.object_path import Place, place_of
from cogbatch.dataset.parts import list_parts
from cogbatch.dataset.run_directory import is_sweep
from cogbatch.errors import RunDirectoryError
from cogbatch.eval.report.reported import names_of
from cogbatch.eval.runs import Run, open_run
from cogbatch.eval.stored_sweep import StoredSweep, open_sweep
from cogbatch.types import JudgeOptions


@dataclass(frozen=True)
class Opened:
    """Runs with a name for each, and what the first sweep among them, if any, says of how to judge.

    Args:
        remarks: which points of sweeps are not among the runs, and why.
    """

    title: str
    runs: tuple[Run, ...]
    names: tuple[str, ...]
    remarks: tuple[str, ...]
    judge: JudgeOptions | None = None
    quality: str | None = None
    diversity: str | None = None


def open_runs(run_dirs: Sequence[str | Place]) -> Opened:
    """Opens them all; of a sweep the points that did not fail, as its table does.

    Raises RunDirectoryError: not a run directory or without a part, a sweep without any such point, or a
    damaged sweep.json.
    """
    runs, names, remarks, sweeps = list[Run](), list[str](), list[str](), list[StoredSweep]()
    for path in map(place_of, run_dirs):
        if not is_sweep(path):
            runs.append(open_run(path))
            names.append(str(runs[-1].job["spec"].get("name", "job")))
            continue
        sweeps.append(open_sweep(path))
        points = [point for point in sweeps[-1].points if not point.failure]
        done = [point for point in points if list_parts(point.path)]
        runs += [open_run(point.path) for point in done]
        names += [point.name for point in done]
        remarks += [f"{point.name} failed: {point.failure}" for point in sweeps[-1].points if point.failure]
        if absent := [point.name for point in points if point not in done]:
            remarks.append(f"Points without a finished part: {', '.join(absent)}.")
    if not runs:
        why = " ".join(remarks)
        raise RunDirectoryError(f"{run_dirs[0]} has no point to report; run the sweep again. {why}")
    sweep = sweeps[0] if sweeps else StoredSweep("Comparison", ())
    return Opened(
        title=sweep.name if len(run_dirs) == 1 else "Comparison",
        runs=tuple(runs),
        names=names_of(runs, names),
        remarks=tuple(remarks),
        judge=sweep.judge,
        quality=sweep.quality,
        diversity=sweep.diversity,
    )
