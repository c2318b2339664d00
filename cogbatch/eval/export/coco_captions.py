"""COCO captions: one JSON object with info, licenses, images and annotations, and the image files.

As cocodataset.org/#format-data and pycocotools: integer ids, width, height and file_name of each image, and
an annotation for each caption. Captions have no prompts, and every item an image.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import IO

from cogbatch.eval.export.example import Example, Split
from cogbatch.eval.export.files import ImageFiles, to_json
from cogbatch.eval.export.format import About, Format
from cogbatch.eval.export.options import ExportOptions


class CocoCaptionsWriter:
    """annotations/captions_<split>.json, images/."""

    def __init__(self, folder: Path, options: ExportOptions, about: About) -> None:
        del options
        self._folder, self._about = folder / "annotations", about
        self._folder.mkdir()
        self._images = ImageFiles(folder)
        self._sides: dict[Split, _Side] = {}
        self._annotations = 0

    def write(self, example: Example, split: Split) -> None:
        picture = example.picture
        assert picture is not None
        side = self._side(split)
        image_id = side.ids.get(picture.content)
        if image_id is None:
            image_id = side.ids[picture.content] = sum(len(each.ids) for each in self._sides.values()) + 1
            name = self._images.add(picture).removeprefix("images/")
            size = {"width": picture.width, "height": picture.height}
            _add(side.images, {"id": image_id, "file_name": name, **size}, first=len(side.ids) == 1)
        self._annotations += 1
        caption = {"id": self._annotations, "image_id": image_id, "caption": example.chosen.text}
        _add(side.annotations, caption, first=not side.has_annotations)
        side.has_annotations = True

    def _side(self, split: Split) -> _Side:
        if split not in self._sides:
            self._sides[split] = _Side(self._folder)
        return self._sides[split]

    def close(self) -> None:
        info = {
            "year": int(self._about.day[:4] or 0),
            "version": "1.0",
            "description": self._about.title,
            "contributor": "",
            "url": "",
            "date_created": self._about.day.replace("-", "/"),
        }
        for split, side in self._sides.items():
            with (self._folder / f"captions_{split}.json").open("w+b") as file, side:
                file.write(f'{{"info": {to_json(info)}, "licenses": [],\n"images": [\n'.encode())
                _append(side.images, file)
                file.write(b'\n],\n"annotations": [\n')
                _append(side.annotations, file)
                file.write(b"\n]}\n")


class _Side:
    """What one split has so far: ids in memory, about 200 bytes an image, all else in temporary files."""

    def __init__(self, folder: Path) -> None:
        self.ids: dict[str, int] = {}
        self.has_annotations = False
        self.images: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self.annotations: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115

    def __enter__(self) -> _Side:
        return self

    def __exit__(self, *_: object) -> None:
        self.images.close()
        self.annotations.close()


def _add(file: IO[bytes], record: dict[str, object], *, first: bool) -> None:
    file.write((("" if first else ",\n") + to_json(record)).encode())


def _append(source: IO[bytes], target: IO[bytes]) -> None:
    source.seek(0)
    shutil.copyfileobj(source, target)


def refuse(example: Example) -> str | None:
    """A caption needs something to be a caption of."""
    return "without an image" if example.picture is None else None


COCO_CAPTIONS = Format(
    source="COCO, format of caption annotations",
    open=CocoCaptionsWriter,
    data_files=None,
    task="image-to-text",
    reading='pycocotools.coco.COCO("{out}/annotations/captions_train.json"), image folder {out}/images',
    refuse=refuse,
    has_prompts=False,
)
