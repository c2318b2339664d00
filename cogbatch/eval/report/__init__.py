"""cogbatch report: run directories in, one self-contained HTML page out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cogbatch.dataset.atomic import write_atomically
from cogbatch.dataset.object_path import Place, place_of
from cogbatch.errors import EvaluationError
from cogbatch.eval.digests import digest_runs
from cogbatch.eval.pareto import plane_of
from cogbatch.eval.pictures import read_pictures
from cogbatch.eval.report.comparison import check_metrics, check_names
from cogbatch.eval.report.opened import open_runs
from cogbatch.eval.report.page import render
from cogbatch.eval.report.reported import Reported
from cogbatch.types import JudgeOptions

FILE_NAME = "report.html"
BEGIN = b"<!DOCTYPE html>"  # of every page


def write_report(
    *run_dirs: str | Place,
    max_items: int = 60,
    judge: JudgeOptions | None = None,
    quality: str | None = None,
    diversity: str | None = None,
    out: str | Place | None = None,
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> Place:
    """Writes the page, replacing an earlier one and nothing else, and returns its path.

    A run that is not finished is reported as far as it is. Images are read again through the input that
    job.json names; those that cannot be read are notes on the page.

    Args:
        run_dirs: run directories, or directories of sweeps, which stand for their points.
        max_items: items with image and candidates on the page, drawn with a fixed seed; 0 shows none.
        judge: of the candidates; None takes that of the sweep, and else judges nothing.
        quality, diversity: metrics that several runs are compared by; None takes the sweep's, or chooses.
        out: the page; None is report.html in the first directory.
        workers: processes that compute metrics, for large runs; see digest_run.
        on_progress: is told how many rows of how many are read.

    Raises RunDirectoryError: not a run directory, no finished part, a damaged part. EvaluationError: the
    judge cannot be opened, or failed, something else lies where the page shall be, or its folder does not
    exist. ValueError: no directory, max_items below 0, or no such metric.
    """
    if not run_dirs:
        raise ValueError("no run directory; expected at least one")
    path = place_of(run_dirs[0]) / FILE_NAME if out is None else place_of(out)
    if out is not None:
        _check_folder(path)
    _check_place(path)
    opened = open_runs(run_dirs)
    judge = judge or opened.judge
    check_names(judged=judge is not None, quality=quality, diversity=diversity)
    digests = digest_runs(
        opened.runs,
        max_items=max_items,
        judge=judge,
        workers=workers,
        on_progress=on_progress,
    )
    reported = [
        Reported(name, run, *digested)
        for name, run, digested in zip(opened.names, opened.runs, digests, strict=True)
    ]
    averages = [one.averages for one in reported]
    check_metrics(averages, quality=quality, diversity=diversity)
    plane = plane_of(averages, quality=quality or opened.quality, diversity=diversity or opened.diversity)
    album = read_pictures(opened.runs[0], reported[0].digest.sample)
    page = render(reported, album, title=opened.title, plane=plane, remarks=opened.remarks)
    write_atomically(path, lambda file: file.write(page.encode(errors="replace")))
    return path


def _check_folder(path: Place) -> None:
    """Raises EvaluationError: there is none to write into, most likely a slip. Object stores have none."""
    if isinstance(path, Path) and not path.parent.is_dir():
        raise EvaluationError(
            f"{path.parent}, the folder of {path.name}, does not exist; make it, or use another --out"
        )


def _check_place(path: Place) -> None:
    """Raises EvaluationError: something is there that is no page, for example a job.json, or a folder."""
    try:
        with path.open("rb") as file:
            start = file.read(len(BEGIN))
    except FileNotFoundError:
        return
    except IsADirectoryError:
        raise EvaluationError(
            f"{path} is a folder; expected the name of a page, for example report.html"
        ) from None
    if start and start != BEGIN:
        raise EvaluationError(f"{path} is no HTML page and is not replaced; use another --out, or move it")
