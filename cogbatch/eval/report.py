"""cogbatch report: one run directory in, one self-contained HTML page out. Does not compare runs."""

from __future__ import annotations

from cogbatch.dataset.atomic import write_atomically
from cogbatch.dataset.object_path import Place
from cogbatch.eval.digest import digest_run
from cogbatch.eval.page import render
from cogbatch.eval.pictures import read_pictures
from cogbatch.eval.runs import open_run


def write_report(run_dir: str | Place, *, max_items: int = 60) -> Place:
    """Writes report.html into the run directory, replacing an earlier one, and returns its path.

    A run that is not finished is reported as far as it is. Images are read again through the input that
    job.json names; those that cannot be read are notes on the page.

    Args:
        max_items: items with image and candidates on the page, drawn with a fixed seed; 0 shows none.

    Raises RunDirectoryError: not a run directory, no finished part, a damaged part. ValueError: max_items
    below 0.
    """
    run = open_run(run_dir)
    digest = digest_run(run, max_items=max_items)
    page = render(run.job, digest, read_pictures(run, digest.sample)).encode(errors="replace")
    path = run.path / "report.html"
    write_atomically(path, lambda file: file.write(page))
    return path
