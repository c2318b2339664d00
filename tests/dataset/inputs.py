"""The same items written as every input format, and read back. No tests."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cogbatch.dataset import Dataset, InputOptions, Row, open_dataset

WITH_BYTES = ("parquet", "arrow", "tar", "tar.gz")  # formats that can hold images
KINDS = (*WITH_BYTES, "jsonl", "csv", "jsonl.gz", "csv.gz")


@dataclass(frozen=True)
class Item:
    """What a row holds; an image is in the row or, in text formats, a column of text instead."""

    id: str
    image: bytes = b""
    prompt: str = "Describe."


def encoded(items: Sequence[Item], kind: str, *, group: int = 10**6) -> bytes:
    """The items as one file of that kind. group: rows of a row group or record batch."""
    kind, _, packed = kind.partition(".")
    data = {"parquet": _parquet, "arrow": _arrow, "tar": _tar, "jsonl": _jsonl, "csv": _csv}[kind](
        items, group
    )
    return gzip.compress(data, 1) if packed else data


def write_folder(folder: Path, kind: str, files: Sequence[Sequence[Item]], *, group: int = 10**6) -> Path:
    """A folder with the files as "<number>.<kind>", with what save_to_disk adds for Arrow files."""
    for name, data in folder_of(kind, files, group=group).items():
        (folder / name).write_bytes(data)
    return folder


def folder_of(kind: str, files: Sequence[Sequence[Item]], *, group: int = 10**6) -> Mapping[str, bytes]:
    """The same as name -> content."""
    named = {f"{number}.{kind}": encoded(items, kind, group=group) for number, items in enumerate(files)}
    if kind == "arrow":
        state = {"_data_files": [{"filename": name} for name in named], "_split": None}
        return {**named, "state.json": json.dumps(state).encode(), "dataset_info.json": b"{}"}
    return named


def options_for(path: object, kind: str, *, limit: int | None = None) -> InputOptions:
    """Options that read all three values of an item back; text formats carry the image as text."""
    if kind.startswith("tar"):
        return InputOptions(str(path), prompt_column="txt", limit=limit)
    if kind in WITH_BYTES:
        return InputOptions(str(path), id_column="id", prompt_column="prompt", limit=limit)
    columns = ("blob",)
    return InputOptions(
        str(path), id_column="id", image_column=None, prompt_column="prompt", columns=columns, limit=limit
    )


def every_row(dataset: Dataset, size: int = 8) -> list[Row]:
    """All rows, shard by shard."""
    return [row for shard in dataset.shards(size) for row in dataset.read(shard)]


def opened(path: object, kind: str, *, limit: int | None = None) -> Dataset:
    """The dataset with the options above."""
    return open_dataset(options_for(path, kind, limit=limit))


def item_of(row: Row) -> Item | None:
    """What was written; None for an error row."""
    if row.error is not None:
        return None
    if "blob" in row.carried:
        return Item(row.id, base64.b64decode(str(row.carried["blob"] or "")), row.prompt)
    assert isinstance(row.image, bytes)
    return Item(row.id, row.image, row.prompt)


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """One plain file."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _table(items: Sequence[Item]) -> pa.Table:
    columns = {
        "id": [item.id for item in items],
        "image": [{"bytes": item.image, "path": None} for item in items],
        "prompt": [item.prompt for item in items],
    }
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.table(columns, pa.schema([("id", pa.string()), ("image", image), ("prompt", pa.string())]))


def _parquet(items: Sequence[Item], group: int) -> bytes:
    sink = io.BytesIO()
    options = {"compression": "none", "use_dictionary": False, "data_page_size": 64 * 1024}
    pq.write_table(_table(items), sink, row_group_size=group, **options)
    return sink.getvalue()


def _arrow(items: Sequence[Item], group: int) -> bytes:
    sink, table = io.BytesIO(), _table(items)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=group)
    return sink.getvalue()


def _tar(items: Sequence[Item], _group: int) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for item in items:
            add_member(tar, f"{item.id}.jpg", item.image)
            add_member(tar, f"{item.id}.txt", item.prompt.encode())
    return sink.getvalue()


def _rows(items: Sequence[Item]) -> list[dict[str, str]]:
    return [
        {"id": item.id, "prompt": item.prompt, "blob": base64.b64encode(item.image).decode()}
        for item in items
    ]


def _jsonl(items: Sequence[Item], _group: int) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in _rows(items)).encode()


def _csv(items: Sequence[Item], _group: int) -> bytes:
    sink = io.StringIO(newline="")
    writer = csv.DictWriter(sink, ["id", "prompt", "blob"])
    writer.writeheader()
    writer.writerows(_rows(items))
    return sink.getvalue().encode()
