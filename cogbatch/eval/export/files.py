"""Files that grow record by record: JSON arrays, JSON lines, and one image file for each distinct image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any, Literal

from cogbatch.eval.export.example import Split
from cogbatch.eval.export.picture import Picture

Layout = Literal["array", "lines"]
IMAGES = "images"


class ImageFiles:
    """images/<two digits>/<content hash>.<extension>: names are ours, whatever the data calls its images."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[bytes, str] = {}  # about 200 bytes an image

    def add(self, picture: Picture) -> str:
        """The path of the image, relative to the export; written unless the same pixels were."""
        key = bytes.fromhex(picture.content)
        if key not in self._names:
            name = f"{IMAGES}/{picture.content[:2]}/{picture.name}"
            path = self._folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture.data)
            self._names[key] = name
        return self._names[key]


class JsonFiles:
    """One JSON file for each split that has records: an array with a record a line, or JSON lines."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self._folder, self._layout = folder, layout
        self._files: dict[Split, IO[str]] = {}

    def write(self, record: Any, split: Split) -> None:
        """Adds a record."""
        is_array = self._layout == "array"
        if split not in self._files:
            path = self._folder / f"{split}.{'json' if is_array else 'jsonl'}"
            self._files[split] = path.open("w", encoding="utf-8", newline="\n")
            self._files[split].write("[\n" if is_array else "")
        elif is_array:
            self._files[split].write(",\n")
        self._files[split].write(to_json(record) + ("" if is_array else "\n"))

    def close(self) -> None:
        """Ends the arrays."""
        for file in self._files.values():
            with file:
                file.write("\n]\n" if self._layout == "array" else "")


def to_json(value: Any) -> str:
    """On one line, text as it is."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
