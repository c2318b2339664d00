"""A Hugging Face dataset: Parquet with an image column, for `datasets.load_dataset`.

`messages` is TRL's conversational vision form (docs/source/dataset_formats.md of huggingface/trl), which its
SFTTrainer and Axolotl take together with `image`; `text` is the answer alone, for plain loops.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from cogbatch.eval.export.example import Example, Split
from cogbatch.eval.export.format import About, Format
from cogbatch.eval.export.options import ExportOptions
from cogbatch.eval.export.parquet_files import IMAGE, MESSAGES, TEXT, ParquetFiles, image_value, message

SCHEMA = pa.schema(
    [
        ("id", TEXT),
        ("image", IMAGE),
        ("messages", MESSAGES),
        ("text", TEXT),
        ("source_id", TEXT),
        ("score", pa.float64()),
        ("logprob_per_token", pa.float64()),
    ]
)


class HfDatasetWriter:
    """data/train-00000.parquet and on."""

    def __init__(self, folder: Path, options: ExportOptions, about: About) -> None:
        del about
        self._files = ParquetFiles(folder, SCHEMA, max_bytes=options.shard_bytes)

    def write(self, example: Example, split: Split) -> None:
        chosen, picture = example.chosen, example.picture
        row = {
            "id": example.id,
            "image": None if picture is None else image_value(picture),
            "messages": [
                message("user", example.prompt, image=picture is not None),
                message("assistant", chosen.text),
            ],
            "text": chosen.text,
            "source_id": example.source_id,
            "score": chosen.score,
            "logprob_per_token": chosen.logprob_per_token,
        }
        size = len(chosen.text) + len(example.prompt) + (len(picture.data) if picture else 0)
        self._files.write(row, split, size_bytes=size)

    def close(self) -> None:
        self._files.close()


HF_DATASET = Format(
    source="Hugging Face datasets; TRL, dataset formats",
    open=HfDatasetWriter,
    data_files="data/{split}-*.parquet",
    task="image-text-to-text",
    reading='datasets.load_dataset("{out}")',
    may_be_remote=True,
)
