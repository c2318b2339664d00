"""ShareGPT with images, as LLaMA-Factory reads it: conversations of human and gpt, and a list of image paths.

As data/README.md of hiyouga/LLaMA-Factory: one `<image>` in the text for each path in `images`. The file
dataset_info.json, which it asks for, is written too, so that the export is a dataset_dir.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cogbatch.eval.export.example import Example, Split
from cogbatch.eval.export.files import ImageFiles, JsonFiles
from cogbatch.eval.export.format import About, Format
from cogbatch.eval.export.llava import TURNS, turns
from cogbatch.eval.export.options import ExportOptions
from cogbatch.eval.export.placeholders import refuse

COLUMNS = {"messages": "conversations", "images": "images"}


class ShareGptWriter:
    """train.jsonl, validation.jsonl, images/, dataset_info.json."""

    def __init__(self, folder: Path, options: ExportOptions, about: About) -> None:
        del options, about
        self._folder = folder
        self._images, self._files = ImageFiles(folder), JsonFiles(folder, "lines")
        self._info: dict[str, Any] = {}

    def write(self, example: Example, split: Split) -> None:
        images = [self._images.add(example.picture)] if example.picture is not None else []
        self._files.write({"conversations": turns(example), "images": images}, split)
        self._info[split] = {"file_name": f"{split}.jsonl", "formatting": "sharegpt", "columns": COLUMNS}

    def close(self) -> None:
        self._files.close()
        (self._folder / "dataset_info.json").write_text(json.dumps(self._info, indent=2) + "\n")


SHAREGPT = Format(
    source="LLaMA-Factory, data/README.md",
    open=ShareGptWriter,
    data_files="{split}.jsonl",
    features=[
        {"name": "conversations", "list": TURNS},
        {"name": "images", "list": "string"},
    ],
    task="image-text-to-text",
    reading="llamafactory-cli train --dataset_dir {out} --media_dir {out} --dataset train",
    refuse=refuse,
)
