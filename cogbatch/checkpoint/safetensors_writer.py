"""Sharded safetensors written one tensor at a time, hashed on the way: memory is that of the largest tensor.

The safetensors library wants all tensors of a file in memory; converted ones are made here one by one.
Format: 8-byte little-endian header length, JSON header, raw bytes (https://github.com/huggingface/safetensors).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

INDEX = "model.safetensors.index.json"
DTYPE_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


class TensorSpec(NamedTuple):
    """What a tensor will be, before it is made."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class TensorDigest(NamedTuple):
    """What a tensor is, wherever it is stored. dtype: safetensors' name. sha256: of its bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str


@dataclass(frozen=True)
class WrittenWeights:
    """files: sha256 of every file written, by name."""

    files: dict[str, str]
    tensors: tuple[TensorDigest, ...]
    size_bytes: int


def write_safetensors(
    folder: Path,
    specs: Sequence[TensorSpec],
    *,
    make: Callable[[str], Tensor],
    max_shard_bytes: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> WrittenWeights:
    """Writes model-0000i-of-0000N.safetensors and their index into folder.

    Args:
        make: name -> tensor of the promised dtype and shape; called once for each spec.
        max_shard_bytes: a larger tensor gets a shard of its own.
        on_progress: called with (bytes done, bytes in total) after each tensor.
    """
    shards = _split(specs, max_shard_bytes)
    total = sum(spec.size_bytes for spec in specs)
    done = 0
    files: dict[str, str] = {}
    digests: list[TensorDigest] = []
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file_name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        file_hash = hashlib.sha256()
        with (folder / file_name).open("wb") as stream:
            header = _header(shard)
            stream.write(header)
            file_hash.update(header)
            for spec in shard:
                data = raw_bytes(_checked(make(spec.name), spec))
                stream.write(data)
                file_hash.update(data)
                digest = hashlib.sha256(data).hexdigest()
                digests.append(TensorDigest(spec.name, DTYPE_NAMES[spec.dtype], spec.shape, digest))
                weight_map[spec.name] = file_name
                done += spec.size_bytes
                if on_progress is not None:
                    on_progress(done, total)
        files[file_name] = file_hash.hexdigest()
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    text = json.dumps(index, indent=2) + "\n"
    (folder / INDEX).write_text(text, encoding="utf-8")
    files[INDEX] = hashlib.sha256(text.encode()).hexdigest()
    return WrittenWeights(files, tuple(digests), total)


def raw_bytes(tensor: Tensor) -> memoryview:
    """The tensor's elements in row-major order, little-endian, without a copy where it is contiguous."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _split(specs: Sequence[TensorSpec], max_shard_bytes: int) -> list[list[TensorSpec]]:
    shards: list[list[TensorSpec]] = [[]]
    size = 0
    for spec in specs:
        if shards[-1] and size + spec.size_bytes > max_shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(spec)
        size += spec.size_bytes
    # Widest elements first: every tensor starts at a multiple of its element size, which readers rely on.
    return [sorted(shard, key=lambda spec: -spec.dtype.itemsize) for shard in shards]


def _header(shard: Sequence[TensorSpec]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for spec in shard:
        end = start + spec.size_bytes
        dtype = DTYPE_NAMES[spec.dtype]
        entries[spec.name] = {"dtype": dtype, "shape": list(spec.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _checked(tensor: Tensor, spec: TensorSpec) -> Tensor:
    assert (tensor.dtype, tuple(tensor.shape)) == (spec.dtype, spec.shape), spec.name
    return tensor
