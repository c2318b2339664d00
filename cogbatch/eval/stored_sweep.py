"""A sweep as it left itself in its sweep.json: its points and how they are compared. Reads no rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cogbatch.dataset.atomic import read_json
from cogbatch.dataset.object_path import Place, place_of
from cogbatch.errors import RunDirectoryError
from cogbatch.types import JudgeOptions


@dataclass(frozen=True)
class PointRun:
    """A point as it was run.

    settings: every key that a point of the sweep sets, with its value here. failure: why it has no numbers.
    """

    name: str
    path: str
    settings: Mapping[str, Any]
    failure: str | None = None


@dataclass(frozen=True)
class StoredSweep:
    """What was run. judge, quality, diversity: None where the sweep leaves them open."""

    name: str
    points: tuple[PointRun, ...]
    judge: JudgeOptions | None = None
    quality: str | None = None
    diversity: str | None = None


def open_sweep(path: str | Place) -> StoredSweep:
    """The sweep in a directory. Raises RunDirectoryError: no sweep.json there, or a damaged one."""
    folder = place_of(path)
    try:
        said = read_json(folder / "sweep.json")
        judge = said["judge"]
        return StoredSweep(
            name=said["name"],
            points=tuple(
                PointRun(
                    point["name"],
                    str(folder / "points" / point["name"]),
                    point["settings"],
                    point["failure"],
                )
                for point in said["points"]
            ),
            judge=JudgeOptions(**judge) if judge else None,
            quality=said["quality"],
            diversity=said["diversity"],
        )
    except (OSError, ValueError) as err:
        raise RunDirectoryError(f"{folder / 'sweep.json'} cannot be read ({err})") from err
    except (KeyError, TypeError) as err:
        raise RunDirectoryError(
            f"{folder / 'sweep.json'} is not as this version writes it ({type(err).__name__}: {err});"
            " run the sweep again: finished parts are kept"
        ) from err
