"""The input of a run, opened again as job.json names it. Nothing is read from it yet."""

from __future__ import annotations

from cogbatch.dataset.dataset import Dataset, open_dataset
from cogbatch.dataset.known import known_input
from cogbatch.dataset.listing import as_listed
from cogbatch.dataset.options import InputOptions
from cogbatch.eval.runs import Run


def open_input(run: Run) -> Dataset:
    """The dataset of the job, a folder of images with the rows that it had when the run began.

    Its fingerprint differs from job["dataset_fingerprint"] where files were copied or changed since.

    Raises DatasetError, OSError: it cannot be opened any more. TypeError, ValueError: job.json has input keys
    that this version does not know.
    """
    section = run.job["spec"]["input"]
    options = InputOptions(**{**section, "columns": tuple(section["columns"])})
    return as_listed(run.path, open_dataset(options, known=known_input(run.job, options)))
