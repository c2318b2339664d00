"""SAT's unmerged LoRA (sat/model/finetune/lora2.py): found by its keys, and merged. No files.

A wrapped layer stores `original.weight`, and matrix_A.i [r, in] and matrix_B.i [rows, r] for each part of
its rows (q, k and v apart). Merged: W + B @ A / r: the demos' lora_alpha is always 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from cogbatch.errors import CheckpointError

_KEY = re.compile(
    r"(?P<module>.+)\.(?:original\.(?P<what>weight|bias)|matrix_(?P<matrix>[AB])\.(?P<part>\d+))"
)


@dataclass(frozen=True)
class LoraWeight:
    """A layer's weight [out, in], and what training adds to each part of its rows, in order.

    down: [r, in] each (matrix_A). up: [rows of the part, r] each (matrix_B).
    """

    weight: Tensor
    down: tuple[Tensor, ...]
    up: tuple[Tensor, ...]

    @property
    def rank(self) -> int:
        return self.down[0].shape[0]

    @property
    def rows(self) -> tuple[int, ...]:
        """Of each part."""
        return tuple(up.shape[0] for up in self.up)

    def merged(self, part: int) -> Tensor:
        """[rows of the part, in] float32: not rounded yet. Bit for bit SAT's merge_lora, before its cast."""
        start = sum(self.rows[:part])
        rows = self.weight[start : start + self.rows[part]]
        product = (self.up[part].float() @ self.down[part].float()).mul_(1 / self.rank)
        for block, stored in zip(product.split(1024), rows.split(1024), strict=True):
            block.add_(stored)  # of a narrower dtype torch makes a float32 copy first: never of all rows
        return product


def lora_keys(keys: Iterable[str]) -> list[str]:
    """Those that only an unmerged checkpoint has."""
    return [key for key in keys if _KEY.fullmatch(key)]


def gather_lora(tensors: Mapping[str, Tensor], *, where: str) -> dict[str, Tensor | LoraWeight]:
    """The same tensors under their plain names, wrapped layers each as one LoraWeight.

    Raises:
        CheckpointError: a matrix without its partner, a gap, or shapes that do not fit each other.
    """
    plain: dict[str, Tensor | LoraWeight] = {}
    wrapped: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = _KEY.fullmatch(key)
        if match is None:
            plain[key] = tensor
        elif match["what"] == "bias":
            plain[f"{match['module']}.bias"] = tensor
        else:
            suffix = key.removeprefix(f"{match['module']}.")
            wrapped.setdefault(match["module"], {})[suffix] = tensor
    for module, parts in wrapped.items():
        name = f"{module}.weight"
        if name in plain:
            raise CheckpointError(f"{where}: {name!r} beside {module}.{min(parts)}; is it merged or not?")
        plain[name] = _lora_weight(module, parts, where=where)
    return plain


def _lora_weight(module: str, parts: Mapping[str, Tensor], *, where: str) -> LoraWeight:
    matrices = [name for name in parts if name.startswith("matrix_")]
    count = 1 + max((int(name.rpartition(".")[2]) for name in matrices), default=0)
    expected = ["original.weight", *(f"matrix_{letter}.{i}" for i in range(count) for letter in "AB")]
    if missing := [name for name in expected if name not in parts]:
        raise CheckpointError(
            f"{where}: {module!r} has {', '.join(sorted(parts))} but no {', '.join(missing)}; "
            "an incomplete LoRA cannot be merged, take the file from the training run again"
        )
    lora = LoraWeight(
        parts["original.weight"],
        tuple(parts[f"matrix_A.{i}"] for i in range(count)),
        tuple(parts[f"matrix_B.{i}"] for i in range(count)),
    )
    for problem in _misfits(lora):
        raise CheckpointError(f"{where}: {module!r}: {problem}; do the matrices belong to this weight?")
    return lora


def _misfits(lora: LoraWeight) -> Iterator[str]:
    for name, tensor in (("original.weight", lora.weight), ("matrix_A.0", lora.down[0])):
        if tensor.dim() != 2 or not tensor.numel():
            yield f"{name} has shape {list(tensor.shape)}, expected two dimensions"
            return
    for i, (down, up) in enumerate(zip(lora.down, lora.up, strict=True)):
        if tuple(down.shape) != (lora.rank, lora.weight.shape[1]):
            yield (
                f"matrix_A.{i} has shape {list(down.shape)}, expected {[lora.rank, lora.weight.shape[1]]} "
                f"(LoRA rank {lora.rank} of matrix_A.0, columns of original.weight)"
            )
        if up.dim() != 2 or up.shape[1] != lora.rank:
            yield f"matrix_B.{i} has shape {list(up.shape)}, expected [rows, {lora.rank}] (the LoRA rank)"
    if all(up.dim() == 2 for up in lora.up) and sum(lora.rows) != lora.weight.shape[0]:
        yield f"matrix_B have {' + '.join(map(str, lora.rows))} rows, original.weight {lora.weight.shape[0]}"
