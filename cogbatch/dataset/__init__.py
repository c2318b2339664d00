"""Datasets in, parts out: readers, shards, the one Parquet schema, the run directory. No torch, no Ray."""

from cogbatch.dataset.dataset import Dataset, open_dataset
from cogbatch.dataset.options import InputOptions
from cogbatch.dataset.rows import Row
from cogbatch.dataset.run_directory import RunDirectory
from cogbatch.dataset.shards import Shard

__all__ = ["Dataset", "InputOptions", "Row", "RunDirectory", "Shard", "open_dataset"]
