"""LLaVA's conversations: a JSON array of id, image and turns between human and gpt.

As docs/Finetune_Custom_Data.md of haotian-liu/LLaVA and its train.py read them: `image` is relative to
--image_folder, absent for text only, and `<image>` stands in the first human turn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cogbatch.eval.export.example import Example, Split
from cogbatch.eval.export.files import ImageFiles, JsonFiles
from cogbatch.eval.export.format import About, Format
from cogbatch.eval.export.options import ExportOptions
from cogbatch.eval.export.placeholders import asked, refuse

TURNS = [{"name": "from", "dtype": "string"}, {"name": "value", "dtype": "string"}]


def turns(example: Example) -> list[dict[str, str]]:
    """The conversation of an example."""
    return [{"from": "human", "value": asked(example)}, {"from": "gpt", "value": example.chosen.text}]


class LlavaWriter:
    """train.json, validation.json, images/."""

    def __init__(self, folder: Path, options: ExportOptions, about: About) -> None:
        del options, about
        self._images, self._files = ImageFiles(folder), JsonFiles(folder, "array")

    def write(self, example: Example, split: Split) -> None:
        record: dict[str, Any] = {"id": example.id}
        if example.picture is not None:
            record["image"] = self._images.add(example.picture)
        self._files.write(record | {"conversations": turns(example)}, split)

    def close(self) -> None:
        self._files.close()


LLAVA = Format(
    source="LLaVA, docs/Finetune_Custom_Data.md",
    open=LlavaWriter,
    data_files="{split}.json",
    features=[
        {"name": "id", "dtype": "string"},
        {"name": "image", "dtype": "string"},
        {"name": "conversations", "list": TURNS},
    ],
    task="image-text-to-text",
    reading="llava/train/train_mem.py --data_path {out}/train.json --image_folder {out}",
    refuse=refuse,
)
