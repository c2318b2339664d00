"""The images of a run's items, read again from its input, as small data URIs for a page. Writes nothing."""

from __future__ import annotations

import base64
import io
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image

from cogbatch.dataset.dataset import Dataset
from cogbatch.dataset.shards import Shard
from cogbatch.errors import CogbatchError
from cogbatch.eval.run_input import open_input
from cogbatch.eval.runs import Item, Run
from cogbatch.images import ImageLimits, load_image

MAX_SIDE_PX = 256
JPEG_QUALITY = 85


@dataclass(frozen=True)
class Picture:
    """A small image, or why there is none. data_uri: PNG or JPEG; sizes in pixels."""

    data_uri: str | None = None
    width: int = 0
    height: int = 0
    note: str = ""


@dataclass(frozen=True)
class Album:
    """The pictures of some items, in their order; remark: what concerns all of them, or nothing."""

    pictures: tuple[Picture, ...]
    remark: str = ""


def read_pictures(run: Run, items: Sequence[Item]) -> Album:
    """The picture of each item, by its place (input_file, input_row) in the input of job.json.

    Never raises for what is wrong with the input or an image: the note or the remark says it. An input that
    was copied or changed since is read all the same, and a row that now has another id gets no picture.
    Quick where the items are in input order: what was last read of a file, for example a row group, is kept.
    """
    if not items:
        return Album(())
    try:
        dataset = open_input(run)
    except (CogbatchError, OSError, TypeError, ValueError) as err:
        note = Picture(note="the input cannot be opened")
        return Album((note,) * len(items), f"No images: the input cannot be opened again: {_line(err)}")
    remark = ""
    if dataset.fingerprint != run.job["dataset_fingerprint"]:
        remark = (
            "The input's files have another size or time than when the job ran: images may not be those seen."
        )
    shards = _Shards(run)
    return Album(tuple(_picture(dataset, shards.of(item), item) for item in items), remark)


def thumbnail(image: Image.Image) -> Picture:
    """The image within 256 x 256 pixels, as PNG or JPEG, whichever is smaller."""
    small = image.copy()
    small.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.LANCZOS)  # never enlarges
    png, jpeg = io.BytesIO(), io.BytesIO()
    small.save(png, "PNG", optimize=True)
    small.save(jpeg, "JPEG", quality=JPEG_QUALITY)
    kind, data = min(("png", png.getvalue()), ("jpeg", jpeg.getvalue()), key=lambda found: len(found[1]))
    uri = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return Picture(uri, small.width, small.height)


def _picture(dataset: Dataset, shard: Shard | None, item: Item) -> Picture:
    if shard is None:
        return Picture(note="no such row in the job")
    try:
        (row,) = dataset.read(shard.part_of(start=item.input_row - shard.first_row, num_rows=1))
        if row.id != item.id:
            return Picture(note=f"the input has {row.id} there now")
        if row.image is None:
            return Picture(note=row.error.message if row.error else "text only, no image")
        return thumbnail(load_image(row.image, limits=_impatient(dataset.image_limits)))
    except (CogbatchError, OSError, IndexError, ValueError) as err:
        return Picture(note=f"the image cannot be read: {_line(err)}")


def _impatient(limits: ImageLimits) -> ImageLimits:
    return replace(limits, timeout_s=10, attempts=1)  # a report need not wait for a slow server


class _Shards:
    """The shard of an item, found without going through all of them."""

    def __init__(self, run: Run) -> None:
        self._files = {name: index for index, name in enumerate(run.job["files"])}
        self._shards = sorted(run.shards, key=_start)

    def of(self, item: Item) -> Shard | None:
        file_index = self._files.get(item.input_file)
        if file_index is None:
            return None
        place = bisect_right(self._shards, (file_index, item.input_row), key=_start) - 1
        shard = self._shards[place] if place >= 0 else None
        if shard is None or shard.file_index != file_index:
            return None
        return shard if item.input_row < shard.first_row + shard.num_rows else None


def _start(shard: Shard) -> tuple[int, int]:
    return shard.file_index, shard.first_row


def _line(err: BaseException) -> str:
    return " ".join(str(err).split()) or type(err).__name__
