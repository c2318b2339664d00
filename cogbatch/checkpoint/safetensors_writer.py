"""Sharded safetensors written one tensor at a time, hashed on the way: memory is that of a few pieces.

The safetensors library wants all tensors of a file in memory; converted ones are made here one by one.
Format: 8-byte little-endian header length, JSON header, raw bytes (https://github.com/huggingface/safetensors).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import torch
from torch import Tensor

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

INDEX = "model.safetensors.index.json"
# Pieces that were written and are still being hashed.
_PIECES_AHEAD = 4
_SYNC_EVERY_BYTES = 256 << 20
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
    make: Callable[[str], Tensor | Iterable[Tensor]],
    max_shard_bytes: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> WrittenWeights:
    """Writes model-0000i-of-0000N.safetensors and their index into folder.

    Args:
        make: name -> tensor of the promised dtype and shape, or its consecutive pieces in row-major order,
            each made when its turn comes; called once for each spec.
        max_shard_bytes: a larger tensor gets a shard of its own.
        on_progress: called with (bytes done, bytes in total) after each piece.
    """
    shards = _split(specs, max_shard_bytes)
    total = sum(spec.size_bytes for spec in specs)
    done = 0
    files: dict[str, str] = {}
    digests: list[TensorDigest] = []
    weight_map: dict[str, str] = {}
    with _Threads() as threads:
        for number, shard in enumerate(shards, start=1):
            file_name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            file_hash = hashlib.sha256()
            with (folder / file_name).open("wb") as stream:
                header = _header(shard)
                stream.write(header)
                file_hash.update(header)
                hashes = [hashlib.sha256() for _ in shard]
                for spec, tensor_hash in zip(shard, hashes, strict=True):
                    for data in _checked(make(spec.name), spec):
                        threads.hash(data, file_hash, tensor_hash)
                        stream.write(data)
                        threads.sync(folder / file_name, data.nbytes)
                        done += data.nbytes
                        if on_progress is not None:
                            on_progress(done, total)
            threads.wait()
            for spec, tensor_hash in zip(shard, hashes, strict=True):
                digest = tensor_hash.hexdigest()
                digests.append(TensorDigest(spec.name, DTYPE_NAMES[spec.dtype], spec.shape, digest))
                weight_map[spec.name] = file_name
            files[file_name] = file_hash.hexdigest()
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    text = json.dumps(index, indent=2) + "\n"
    (folder / INDEX).write_text(text, encoding="utf-8")
    files[INDEX] = hashlib.sha256(text.encode()).hexdigest()
    return WrittenWeights(files, tuple(digests), total)


class _Threads:
    """Hashes of file and tensor, and syncing, while the next piece is made. Leaving waits for all."""

    def __init__(self) -> None:
        self._threads = [ThreadPoolExecutor(max_workers=1) for _ in range(3)]
        self._hashing: deque[Future[None]] = deque()
        self._syncing: list[Future[None]] = []
        self._unsynced_bytes = 0

    def hash(self, data: memoryview, file_hash: Hash, tensor_hash: Hash) -> None:
        """Both hashes, each in a thread of its own: order is kept. Few pieces wait, and so few are held."""
        for thread, target in zip(self._threads, (file_hash, tensor_hash), strict=False):
            self._hashing.append(thread.submit(target.update, data))
        while len(self._hashing) > 2 * _PIECES_AHEAD:
            self._hashing.popleft().result()

    def wait(self) -> None:
        """Until all hashes are up to date."""
        while self._hashing:
            self._hashing.popleft().result()

    def sync(self, file: Path, written_bytes: int) -> None:
        """Now and then, what is written so far to disk: syncing at the end then waits for little."""
        self._unsynced_bytes += written_bytes
        if self._unsynced_bytes >= _SYNC_EVERY_BYTES:
            self._unsynced_bytes = 0
            self._syncing.append(self._threads[2].submit(_fsync, file))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for thread in self._threads:
            thread.shutdown(cancel_futures=kind is not None)
        if kind is None:
            for future in self._syncing:
                future.result()


def _fsync(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


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


def _checked(made: Tensor | Iterable[Tensor], spec: TensorSpec) -> Iterator[memoryview]:
    """The bytes of what was made, which must be what was promised."""
    assert not isinstance(made, Tensor) or tuple(made.shape) == spec.shape, spec.name
    size_bytes = 0
    for piece in [made] if isinstance(made, Tensor) else made:
        assert piece.dtype == spec.dtype, spec.name
        data = raw_bytes(piece)
        size_bytes += data.nbytes
        yield data
    assert size_bytes == spec.size_bytes, spec.name
