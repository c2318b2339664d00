"""OpenAI's chat format for fine-tuning with images: JSON lines of messages, images as data URLs or addresses.

As developers.openai.com/api/docs/guides/vision-fine-tuning: JPEG, PNG or WebP in RGB or RGBA, at most 10 MB
each, only in messages of the user; at most 50,000 examples with images a file.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from cogbatch.eval.export.example import Example, Split
from cogbatch.eval.export.files import JsonFiles
from cogbatch.eval.export.format import About, Format
from cogbatch.eval.export.options import ExportOptions
from cogbatch.eval.export.picture import MIME_TYPES

MAX_IMAGE_BYTES = 10_000_000
MAX_EXAMPLES = 50_000  # with images, of one file


class OpenAIChatWriter:
    """train.jsonl, validation.jsonl: everything is inside."""

    def __init__(self, folder: Path, options: ExportOptions, about: About) -> None:
        del about
        self._files, self._by_address = JsonFiles(folder, "lines"), options.image_urls

    def write(self, example: Example, split: Split) -> None:
        content: str | list[dict[str, Any]] = example.prompt
        if example.picture is not None:
            image = {"type": "image_url", "image_url": {"url": self._url(example)}}
            content = [{"type": "text", "text": example.prompt}, image]
        messages = [
            {"role": "user", "content": content},
            {"role": "assistant", "content": example.chosen.text},
        ]
        self._files.write({"messages": messages}, split)

    def close(self) -> None:
        self._files.close()

    def _url(self, example: Example) -> str:
        if self._by_address and example.url is not None:
            return example.url
        assert example.picture is not None
        data = base64.b64encode(example.picture.data).decode()
        return f"data:{MIME_TYPES[example.picture.extension]};base64,{data}"


def refuse(example: Example) -> str | None:
    """An image that OpenAI would refuse."""
    picture = example.picture
    return "with an image over 10 MB" if picture and len(picture.data) > MAX_IMAGE_BYTES else None


OPENAI_CHAT = Format(
    source="OpenAI, guide to vision fine-tuning",
    open=OpenAIChatWriter,
    data_files="{split}.jsonl",
    task="image-text-to-text",
    reading='client.files.create(file=open("{out}/train.jsonl", "rb"), purpose="fine-tune")',
    refuse=refuse,
    modes=("RGB", "RGBA"),
    may_be_remote=True,
)
