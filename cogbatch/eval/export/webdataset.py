"""WebDataset: tar files of bounded size with <key>.jpg (or png, webp), <key>.json and <key>.txt.

As the webdataset library groups them: members with one base name are one sample. Keys are ours, so that no
name of the data becomes a path; the item's own id is in the JSON.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from cogbatch.eval.export.example import Example, Split
from cogbatch.eval.export.files import to_json
from cogbatch.eval.export.format import About, Format
from cogbatch.eval.export.options import ExportOptions

MEMBER_OVERHEAD = 1024  # a header and padding, roughly


class WebDatasetWriter:
    """train-000000.tar and on."""

    def __init__(self, folder: Path, options: ExportOptions, about: About) -> None:
        del about
        self._folder, self._max_bytes = folder, options.shard_bytes
        self._tars: dict[Split, tarfile.TarFile] = {}
        self._bytes: dict[Split, int] = {}
        self._numbers: dict[Split, int] = {}

    def write(self, example: Example, split: Split) -> None:
        members = {"json": to_json(_record(example)).encode(), "txt": example.chosen.text.encode()}
        if example.picture is not None:
            members = {example.picture.extension: example.picture.data} | members
        tar = self._open(split, sum(len(data) + MEMBER_OVERHEAD for data in members.values()))
        for extension, data in members.items():
            info = tarfile.TarInfo(
                f"{example.id}.{extension}"
            )  # time, owner and group 0: same data, same tar
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

    def close(self) -> None:
        for tar in self._tars.values():
            tar.close()

    def _open(self, split: Split, size_bytes: int) -> tarfile.TarFile:
        """The tar for a sample of this size: the next one where it would grow beyond its bound."""
        if split in self._tars and self._bytes[split] + size_bytes > self._max_bytes:
            self._tars.pop(split).close()
        if split not in self._tars:
            number = self._numbers.get(split, 0)
            self._tars[split] = tarfile.open(self._folder / f"{split}-{number:06d}.tar", "w")  # noqa: SIM115
            self._numbers[split], self._bytes[split] = number + 1, 0
        self._bytes[split] += size_bytes
        return self._tars[split]


def _record(example: Example) -> dict[str, object]:
    return {
        "id": example.id,
        "source_id": example.source_id,
        "prompt": example.prompt,
        "text": example.chosen.text,
        "score": example.chosen.score,
        "logprob_per_token": example.chosen.logprob_per_token,
    }


WEBDATASET = Format(
    source="webdataset",
    open=WebDatasetWriter,
    data_files="{split}-*.tar",
    task="image-text-to-text",
    reading='webdataset.WebDataset("{out}/train-000000.tar").decode("pil").to_tuple("jpg;png;webp", "json")',
    may_be_remote=True,
)
