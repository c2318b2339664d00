"""Preference pairs for TRL's DPOTrainer: Parquet with images, prompt, chosen and rejected.

The conversational vision form of docs/source/dataset_formats.md of huggingface/trl: `images` is a list, the
user's message holds a part of type image for it. Scores go by the names of trl-lib's own datasets.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from cogbatch.eval.export.example import Example, Split
from cogbatch.eval.export.format import About, Format
from cogbatch.eval.export.options import ExportOptions
from cogbatch.eval.export.parquet_files import IMAGE, MESSAGES, ParquetFiles, image_value, message

SCHEMA = pa.schema(
    [
        ("images", pa.list_(IMAGE)),
        ("prompt", MESSAGES),
        ("chosen", MESSAGES),
        ("rejected", MESSAGES),
        ("score_chosen", pa.float64()),
        ("score_rejected", pa.float64()),
    ]
)


class DpoWriter:
    """data/train-00000.parquet and on."""

    def __init__(self, folder: Path, options: ExportOptions, about: About) -> None:
        del about
        self._files = ParquetFiles(folder, SCHEMA, max_bytes=options.shard_bytes)

    def write(self, example: Example, split: Split) -> None:
        chosen, rejected, picture = example.chosen, example.rejected, example.picture
        assert rejected is not None
        row = {
            "images": [] if picture is None else [image_value(picture)],
            "prompt": [message("user", example.prompt, image=picture is not None)],
            "chosen": [message("assistant", chosen.text)],
            "rejected": [message("assistant", rejected.text)],
            "score_chosen": chosen.score,
            "score_rejected": rejected.score,
        }
        texts = len(chosen.text) + len(rejected.text) + len(example.prompt)
        self._files.write(row, split, size_bytes=texts + (len(picture.data) if picture else 0))

    def close(self) -> None:
        self._files.close()


DPO = Format(
    source="TRL, dataset formats: preference, conversational, vision",
    open=DpoWriter,
    data_files="data/{split}-*.parquet",
    task="image-text-to-text",
    reading='trl.DPOTrainer(..., train_dataset=datasets.load_dataset("{out}", split="train"))',
    may_be_remote=True,
)
