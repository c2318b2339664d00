"""The runs that were named: run directories, and sweeps as the runs of their points. Reads no rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cogbatch.dataset.atomic import read_json
from cogbatch.dataset.object_path import Place, names_in, place_of
from cogbatch.dataset.parts import list_parts
from cogbatch.errors import RunDirectoryError
from cogbatch.eval.report.reported import names_of
from cogbatch.eval.runs import Run, open_run
from cogbatch.types import JudgeOptions


@dataclass(frozen=True)
class Opened:
    """Runs with a name for each, and what the first sweep among them, if any, says of how to judge.

    Args:
        absent: names of points without a finished part; they are not among the runs.
    """

    title: str
    runs: tuple[Run, ...]
    names: tuple[str, ...]
    absent: tuple[str, ...]
    judge: JudgeOptions | None = None
    quality: str | None = None
    diversity: str | None = None


def open_runs(run_dirs: Sequence[str | Place]) -> Opened:
    """Opens them all.

    Raises RunDirectoryError: not a run directory or without a part, a sweep without any part, or a damaged
    sweep.json.
    """
    runs, names, absent, sweeps = list[Run](), list[str](), list[str](), list[Mapping[str, Any]]()
    for path in map(place_of, run_dirs):
        if not (path / "sweep.json").exists():
            runs.append(open_run(path))
            names.append(str(runs[-1].job["spec"].get("name", "job")))
            continue
        sweeps.append(_read(path))
        for name in _points(path, sweeps[-1]):
            if list_parts(path / "points" / name):
                runs.append(open_run(path / "points" / name))
                names.append(name)
            else:
                absent.append(name)
    if not runs:
        raise RunDirectoryError(f"{run_dirs[0]} has no point with a finished part; run the sweep first")
    sweep = sweeps[0] if sweeps else {}
    is_one_sweep = len(run_dirs) == 1 and bool(sweeps)
    judge = sweep.get("judge")
    return Opened(
        title=str(sweep.get("name", place_of(run_dirs[0]).name)) if is_one_sweep else "Comparison",
        runs=tuple(runs),
        names=names_of(runs, names),
        absent=tuple(absent),
        judge=JudgeOptions(**judge) if judge else None,
        quality=sweep.get("quality"),
        diversity=sweep.get("diversity"),
    )


def _read(sweep: Place) -> Mapping[str, Any]:
    try:
        found = read_json(sweep / "sweep.json")
    except (OSError, ValueError) as err:
        raise RunDirectoryError(f"{sweep / 'sweep.json'} cannot be read ({err})") from err
    return found if isinstance(found, dict) else {}


def _points(sweep: Place, said: Mapping[str, Any]) -> Iterator[str]:
    """Names of points: in the order of the sweep, where it says so, then others that have a run directory."""
    listed = [str(point["name"]) for point in said.get("points", ()) if isinstance(point, dict)]
    yield from listed
    for name in sorted(names_in(sweep / "points")):
        if name not in listed and (sweep / "points" / name / "job.json").exists():
            yield name
