"""Parquet files of bounded size that `datasets` loads as what they are: images as images. Knows no format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cogbatch.eval.export.example import SPLITS, Split
from cogbatch.eval.export.picture import Picture

GROUP_BYTES = 32 * 2**20  # of one row group; what is held in memory before it is written, for each split
GROUP_ROWS = 1000
TEXT = pa.string()
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
PART = pa.struct([("type", TEXT), ("text", TEXT)])
MESSAGES = pa.list_(pa.struct([("role", TEXT), ("content", pa.list_(PART))]))


def message(role: str, text: str, *, image: bool = False) -> dict[str, Any]:
    """A conversational message with content parts, as TRL, chat templates and Axolotl take it."""
    parts = [{"type": "image", "text": None}] if image else []
    return {"role": role, "content": [*parts, {"type": "text", "text": text}]}


def image_value(picture: Picture) -> dict[str, Any]:
    """A picture as `datasets` stores it."""
    return {"bytes": picture.data, "path": picture.name}


class ParquetFiles:
    """data/<split>-<number>.parquet, each closed once it has `max_bytes`."""

    def __init__(self, folder: Path, schema: pa.Schema, *, max_bytes: int) -> None:
        features = {field.name: _feature(field.type) for field in schema}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        folder = folder / "data"
        folder.mkdir()
        self._splits = {
            split: _Files(folder, split, schema.with_metadata(metadata), max_bytes) for split in SPLITS
        }

    def write(self, row: Mapping[str, Any], split: Split, *, size_bytes: int) -> None:
        """Adds a row of about this size."""
        self._splits[split].add(row, size_bytes)

    def close(self) -> None:
        """Writes what is left."""
        for files in self._splits.values():
            files.close()


class _Files:
    def __init__(self, folder: Path, split: Split, schema: pa.Schema, max_bytes: int) -> None:
        self._folder, self._split, self._schema, self._max_bytes = folder, split, schema, max_bytes
        self._rows: list[Mapping[str, Any]] = []
        self._held_bytes = self._file_bytes = self._number = 0
        self._writer: pq.ParquetWriter | None = None

    def add(self, row: Mapping[str, Any], size_bytes: int) -> None:
        self._rows.append(row)
        self._held_bytes += size_bytes
        if len(self._rows) >= GROUP_ROWS or self._held_bytes >= min(GROUP_BYTES, self._max_bytes):
            self._flush()

    def close(self) -> None:
        self._flush()
        self._end()

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._writer is None:
            path = self._folder / f"{self._split}-{self._number:05d}.parquet"
            self._writer = pq.ParquetWriter(path, self._schema)
            self._number += 1
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._file_bytes += self._held_bytes
        self._rows, self._held_bytes = [], 0
        if self._file_bytes >= self._max_bytes:
            self._end()

    def _end(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer, self._file_bytes = None, 0


def _feature(kind: pa.DataType) -> Any:
    """The feature of `datasets` for an Arrow type; lists in the form that all its versions read."""
    if kind == IMAGE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return [_feature(kind.value_type)]
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    return {"dtype": {"double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}
