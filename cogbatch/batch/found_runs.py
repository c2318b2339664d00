"""The runs in a folder and the points of a sweep, by their directories alone. Changes nothing there."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from cogbatch.batch.status import RunStatus, run_status
from cogbatch.dataset.object_path import Place, names_in, place_of
from cogbatch.dataset.run_directory import is_sweep
from cogbatch.errors import CogbatchError, RunDirectoryError
from cogbatch.redact import one_line


@dataclass(frozen=True)
class Unreadable:
    """A run directory of which nothing can be said, and why."""

    path: str
    problem: str
    state: str = "unreadable"

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return asdict(self)

    def line(self) -> str:
        """All of it in one line."""
        return f"{self.path}  unreadable: {self.problem}"


@dataclass(frozen=True)
class SweepStatus:
    """The points of a sweep, by name.

    state: the first of running, unknown, unreadable and stopped that one of them is; else finished, or
    stopped where none is left.
    """

    path: str
    points: tuple[RunStatus | Unreadable, ...]

    @property
    def state(self) -> str:
        states = {point.state for point in self.points} or {"stopped"}
        return next(
            (one for one in ("running", "unknown", "unreadable", "stopped") if one in states), "finished"
        )

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {
            "path": self.path,
            "state": self.state,
            "points": [point.to_json() for point in self.points],
        }

    def lines(self) -> list[str]:
        """The same for a person."""
        runs = [point for point in self.points if isinstance(point, RunStatus)]
        finished = sum(run.state == "finished" for run in runs)
        first = (
            f"{self.path}: a sweep, {self.state}, {finished} of {len(self.points)} points finished, "
            f"{sum(run.rows for run in runs)} of {sum(run.rows_total for run in runs)} rows, "
            f"{sum(run.errors for run in runs)} errors"
        )
        return [first, *(f"  {point.line()}" for point in self.points)]


def sweep_status(path: str | Place) -> SweepStatus | None:
    """The status of the sweep in that directory; None where there is none."""
    place = place_of(path)
    return SweepStatus(str(place), tuple(_runs_at(place))) if _is_sweep(place) else None


def find_runs(folder: str | Place) -> list[RunStatus | Unreadable]:
    """Every run directly in a folder, or the folder itself when it is one, by name: one cannot hide others.

    The points of a sweep stand in its place.

    Raises RunDirectoryError: no such folder.
    """
    place = place_of(folder)
    if isinstance(place, Path) and not place.is_dir():
        raise RunDirectoryError(f"{place}: no such folder; expected one that holds run directories")
    return [found for inside in (place, *_inside(place)) for found in _runs_at(inside)]


def _runs_at(place: Place) -> list[RunStatus | Unreadable]:
    """The run there, or the points of the sweep there."""
    try:
        runs = _inside(place / "points") if _is_sweep(place) else [place]
    except OSError as err:
        return [Unreadable(str(place), one_line(err))]
    return [_status_of(run) for run in runs if _has_job(run)]


def _inside(place: Place) -> list[Place]:
    return [place / name for name in names_in(place)]


def _is_sweep(place: Place) -> bool:
    try:
        return is_sweep(place)
    except OSError:  # a folder that may not be entered
        return False


def _has_job(run: Place) -> bool:
    """Whether a job began there; a folder that may not be entered may be a run."""
    try:
        return (run / "job.json").exists()
    except OSError:
        return True


def _status_of(run: Place) -> RunStatus | Unreadable:
    try:
        return run_status(run)
    except (CogbatchError, OSError, pa.ArrowException) as err:
        return Unreadable(str(run), one_line(err))
