"""The plain tensors of a SAT checkpoint, whatever it is made of: ranks put together, LoRA merged.

Nothing is copied until it is asked for, and then a few megabytes at a time: files stay memory-mapped.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cogbatch.checkpoint.lora import LoraWeight, gather_lora
from cogbatch.checkpoint.names import TensorName
from cogbatch.checkpoint.ranks import merge, rank_shape
from cogbatch.checkpoint.sat import SatFiles, load_sat_rank, load_sat_tensors
from cogbatch.errors import CheckpointError

Part = Tensor | LoraWeight
"""What one rank holds under a plain name."""

# One block of rows in float32: large enough for full speed, small beside any model's tensors.
_BLOCK_BYTES = 4 << 20
# The integer of the same width, and the first bits without sign that are infinity or NaN: all ones above.
_BITS = {
    torch.float32: (torch.int32, 0xFF << 24),
    torch.float16: (torch.int16, 0x1F << 11),
    torch.bfloat16: (torch.int16, 0xFF << 8),
}


@dataclass(frozen=True)
class SatSource:
    """ranks: of each rank file, plain SAT name -> what it holds. All have the same names and dtypes.

    block_bytes: of the rows that are made at a time, as float32.
    """

    files: SatFiles
    ranks: tuple[Mapping[str, Part], ...]
    block_bytes: int = _BLOCK_BYTES

    @property
    def keys(self) -> Collection[str]:
        """The plain names of all tensors."""
        return self.ranks[0].keys()

    @property
    def merged(self) -> list[dict[str, Any]]:
        """What pieces() puts together, for the manifest."""
        found: list[dict[str, Any]] = []
        if len(self.ranks) > 1:
            found.append({"what": "model-parallel ranks", "count": len(self.ranks)})
        by_rank: dict[int, list[str]] = {}
        for name, part in self.ranks[0].items():
            if isinstance(part, LoraWeight):
                by_rank.setdefault(part.rank, []).append(name)
        return found + [{"what": "LoRA", "rank": rank, "tensors": names} for rank, names in by_rank.items()]

    def dtype(self, sat_name: str) -> torch.dtype:
        """As it is stored."""
        return _stored(self.ranks[0][sat_name]).dtype

    def common_dtype(self) -> str:
        """The dtype of most bytes."""
        sizes: Counter[torch.dtype] = Counter()
        for part in map(_stored, self.ranks[0].values()):
            sizes[part.dtype] += part.nbytes
        return str(sizes.most_common(1)[0][0]).removeprefix("torch.")

    def pieces(self, name: TensorName, *, dtype: torch.dtype) -> Iterator[Tensor]:
        """Consecutive parts of the whole tensor in row-major order, checked, and rounded to dtype once.

        Raises:
            CheckpointError: NaN or infinity, in the files or because dtype is too narrow.
        """
        for block in self._blocks(name):
            piece = block.to(dtype)
            if dtype != block.dtype and not is_finite(piece):
                raise CheckpointError(
                    f"{self.files.weights[0]}: {name.sat!r} does not fit into "
                    f"{str(dtype).removeprefix('torch.')}; use bfloat16 or float32"
                )
            yield piece

    def _blocks(self, name: TensorName) -> Iterator[Tensor]:
        """What pieces() rounds: blocks as they are stored, or in float32 where LoRA is merged."""
        num_ranks = 1 if name.dim is None else len(self.ranks)
        if num_ranks > 1 and name.dim == 1:  # every row goes through all ranks
            columns = [self._section(rank, name, 0) for rank in range(num_ranks)]
            yield from (merge(blocks, name) for blocks in zip(*columns, strict=True))
        else:
            for section in range(len(name.sections) if name.dim == 0 else 1):
                for rank in range(num_ranks):
                    yield from self._section(rank, name, section)

    def _section(self, rank: int, name: TensorName, section: int) -> Iterator[Tensor]:
        """One rank's share of a section of rows, in blocks that end at the same row in every rank."""
        part = self.ranks[rank][name.sat]
        lengths = _row_lengths(name, len(self.ranks))
        if isinstance(part, LoraWeight):
            rows = part.merged(section)
        else:
            rows = part.narrow(0, sum(lengths[:section]), lengths[section])
        step = max(1, self.block_bytes // (math.prod(name.shape[1:]) * 4))
        for start in range(0, lengths[section], step):
            block = rows[start : start + step]
            if not is_finite(block):
                file = self.files.weights[rank]
                raise CheckpointError(f"{file}: {name.sat!r} holds NaN or infinity; use an earlier iteration")
            yield block


def open_source(files: SatFiles, *, merge_lora: bool = True) -> SatSource:
    """Maps all rank files.

    Raises:
        CheckpointError: a file is unreadable, of a refused kind, or holds LoRA that may not be merged or does
            not fit together; the files are not ranks of one run.
    """
    if not merge_lora:
        for file in files.weights:
            load_sat_tensors(file)
    loaded = [load_sat_rank(file) for file in files.weights]
    ranks = tuple(
        gather_lora(rank.tensors, where=str(file)) for rank, file in zip(loaded, files.weights, strict=True)
    )
    for file, rank, parts in zip(files.weights[1:], loaded[1:], ranks[1:], strict=True):
        for field in rank.run.keys() & loaded[0].run.keys():
            if rank.run[field] != loaded[0].run[field]:
                raise _other_run(file, f"{field} is {rank.run[field]}, but {loaded[0].run[field]} in rank 0")
        if different := sorted(_kinds(ranks[0]) ^ _kinds(parts)):
            key, kind, dtype = different[0]
            raise _other_run(file, f"{key!r} ({kind}, {dtype}) is not the same in rank 0")
    return SatSource(files, ranks)


def check_source(source: SatSource, names: Sequence[TensorName]) -> None:
    """Whether source holds exactly these tensors, and each rank its share of them.

    Raises:
        CheckpointError: keys have no HF name, are missing, or have another shape than expected; a tensor that
            every rank holds in full is not the same in all.
    """
    _check_keys(source.keys, names, where=source.files.weights[0])
    for name in (name for name in names if name.sat in source.keys):
        for file, parts in zip(source.files.weights, source.ranks, strict=True):
            _check_shape(parts[name.sat], name, num_ranks=len(source.ranks), where=file)
    # After all shapes: these are read.
    for name in (name for name in names if name.dim is None and name.sat in source.keys):
        for file, parts in zip(source.files.weights[1:], source.ranks[1:], strict=True):
            if not _same_bits(_stored(source.ranks[0][name.sat]), _stored(parts[name.sat])):
                raise _other_run(file, f"{name.sat!r} is not rank 0's, though every rank has the whole of it")


def is_finite(tensor: Tensor) -> bool:
    """torch.isfinite(tensor).all() of a float tensor, at a hundred times its speed.

    numpy has one thread, and torch's, which wait for each other by spinning, would take it from the hashes.
    """
    bits, first = _BITS[tensor.dtype]
    without_sign = np.left_shift(tensor.detach().view(bits).numpy().view(f"u{tensor.element_size()}"), 1)
    return not tensor.numel() or int(without_sign.max()) < first


def _check_keys(found: Collection[str], names: Sequence[TensorName], *, where: Path) -> None:
    known = {name.sat for name in names}
    if extra := [key for key in found if key not in known]:
        raise CheckpointError(
            f"{where}: {_count(extra)} no Hugging Face name: {_some(extra)}; "
            "only CogVLM v1 and v2 are supported, and model_config.json must be this file's own"
        )
    if missing := [name.sat for name in names if name.hf is not None and name.sat not in found]:
        raise CheckpointError(
            f"{where}: {_count(missing)} been left out of the file: {_some(missing)}; "
            "is it complete, and is model_config.json its own?"
        )


def _check_shape(part: Part, name: TensorName, *, num_ranks: int, where: Path) -> None:
    try:
        expected = rank_shape(name, num_ranks)
    except ValueError as err:
        raise CheckpointError(f"{where.parent}: {err}; is model_config.json its own?") from err
    share = f" for each of {num_ranks} ranks" if num_ranks > 1 and name.dim is not None else ""
    found = tuple(_stored(part).shape)
    if found != expected:
        raise CheckpointError(
            f"{where}: {name.sat!r} has shape {list(found)}, but model_config.json means "
            f"{list(expected)}{share}; do the two files belong together?"
        )
    if isinstance(part, LoraWeight) and part.rows != _row_lengths(name, num_ranks):
        raise CheckpointError(
            f"{where}: LoRA of {name.sat!r} has parts of {list(part.rows)} rows, expected "
            f"{list(_row_lengths(name, num_ranks))}{share}; do the matrices belong to this weight?"
        )


def _row_lengths(name: TensorName, num_ranks: int) -> tuple[int, ...]:
    """Rows of each section in one rank's share."""
    if name.dim == 0:
        return tuple(length // num_ranks for length in name.sections)
    return (name.shape[0],)


def _stored(part: Part) -> Tensor:
    return part.weight if isinstance(part, LoraWeight) else part


def _kinds(parts: Mapping[str, Part]) -> set[tuple[str, str, str]]:
    """(name, plain or LoRA of which rank, dtype): what ranks of one run share."""
    return {
        (name, f"LoRA rank {part.rank}", str(part.weight.dtype))
        if isinstance(part, LoraWeight)
        else (name, "plain", str(part.dtype))
        for name, part in parts.items()
    }


def _same_bits(a: Tensor, b: Tensor) -> bool:
    bits, _ = _BITS[a.dtype]  # a NaN is never equal to itself
    return torch.equal(a.view(bits), b.view(bits))


def _other_run(file: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{file}: {what}; are these ranks of different runs? Copy all ranks of one run again"
    )


def _count(keys: list[str]) -> str:
    return "1 tensor has" if len(keys) == 1 else f"{len(keys)} tensors have"


def _some(keys: list[str]) -> str:
    shown = ", ".join(repr(key) for key in keys[:5])
    return f"{shown}, and {len(keys) - 5} more" if len(keys) > 5 else shown
