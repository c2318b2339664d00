"""The sorted listing of an image folder, saved with its run: a row stays that image when the folder grows."""

from __future__ import annotations

import json
from dataclasses import replace

from cogbatch.dataset.atomic import write_atomically
from cogbatch.dataset.dataset import Dataset
from cogbatch.dataset.object_path import Place
from cogbatch.dataset.source import FolderSource, open_folder

LISTING = "listing.json"  # in the run directory


def save_listing(run: Place, dataset: Dataset) -> None:
    """Writes the names in row order, unless they are there or the input is no folder of images."""
    if isinstance(dataset.source, FolderSource) and not (run / LISTING).exists():
        data = json.dumps(dataset.source.paths).encode()  # ASCII: names need not be UTF-8
        write_atomically(run / LISTING, lambda file: file.write(data))


def as_listed(run: Place, dataset: Dataset) -> Dataset:
    """The dataset with the rows that it had when the run began."""
    if not isinstance(dataset.source, FolderSource) or not (run / LISTING).exists():
        return dataset
    return replace(dataset, source=open_folder(json.loads((run / LISTING).read_bytes())))
