"""The tensors of a model directory: read once, in threads, file by file. No model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from cogbatch.checkpoint.convert import rotary_table
from cogbatch.checkpoint.names import is_rotary, rotary_names, tensor_names
from cogbatch.checkpoint.safetensors_writer import DTYPE_NAMES, INDEX, TensorDigest, raw_bytes
from cogbatch.checkpoint.source import is_finite
from cogbatch.checkpoint.verify.check import Check
from cogbatch.checkpoint.verify.threads import in_threads, some
from cogbatch.errors import CheckpointError
from cogbatch.model.configuration_cogvlm import CogVLMConfig


@dataclass(frozen=True)
class StoredTensor:
    """One tensor as it lies in its file. rotary: the values of a rotary table; of nothing else."""

    digest: TensorDigest
    file: str
    is_finite: bool
    rotary: Tensor | None


def read_tensors(files: Sequence[Path]) -> list[StoredTensor]:
    """Every tensor of every file. Raises CheckpointError: a file cannot be read."""
    return [tensor for tensors in in_threads(_read_file, files) for tensor in tensors]


def check_tensors(folder: Path, stored: Sequence[StoredTensor], config: CogVLMConfig) -> Check:
    """Names and shapes, and whether the index tells where each tensor is."""
    expected = {name.hf: name.shape for name in tensor_names(config) if name.hf is not None}
    rotary = dict.fromkeys(rotary_names(config), (config.head_dim // 2,))
    found = {tensor.digest.name: tensor.digest.shape for tensor in stored}
    dtypes = {tensor.digest.name: tensor.digest.dtype for tensor in stored}
    shapes = {**expected, **rotary}
    ills = (
        ("missing", [name for name in expected if name not in found]),
        ("not CogVLM's", [name for name in found if name not in shapes]),
        (
            "of another shape than config.json means",
            [
                f"{name} {list(found[name])} instead of {list(shape)}"
                for name, shape in shapes.items()
                if found.get(name, shape) != shape
            ],
        ),
        (
            "neither float32, float16 nor bfloat16",
            [n for n in found if dtypes[n] not in DTYPE_NAMES.values()],
        ),
        (f"not where {INDEX} says", _misplaced(folder, stored)),
    )
    texts = [f"{len(names)} {ill}: {some(names, 3)}" for ill, names in ills if names]
    if texts:
        return Check("tensors", "FAILED", f"{'; '.join(texts)}; copy the directory again, or convert again")
    count = sum(torch.Size(shape).numel() for shape in expected.values())
    kinds = some(sorted({dtypes[name] for name in expected}))
    detail = f"{len(expected)} tensors, {count:,} parameters ({kinds}), names and shapes as config.json means"
    return Check("tensors", "ok", detail)


def check_finite(stored: Sequence[StoredTensor], config: CogVLMConfig, *, official: bool) -> Check:
    """Every number is one, and the rotary tables that official code reads are those of the configuration."""
    bad = [tensor.digest.name for tensor in stored if not tensor.is_finite]
    if bad:
        advice = "cogbatch doctor --fix mends rotary tables" if all(map(is_rotary, bad)) else "copy it again"
        return Check("finite", "FAILED", f"NaN or infinity in {some(bad, 3)}; {advice}")
    if not official:
        table = rotary_table(config)
        tables = {tensor.digest.name: tensor.rotary for tensor in stored if tensor.rotary is not None}
        # Another machine's pow may round the last bit otherwise.
        wrong = [
            name
            for name in rotary_names(config)
            if name not in tables or not torch.allclose(tables[name].float(), table, rtol=1e-6, atol=0)
        ]
        if wrong:
            detail = f"rotary tables missing, or not those of config.json: {some(wrong, 3)}; convert again"
            return Check("finite", "FAILED", detail)
    return Check("finite", "ok", f"no NaN, no infinity in {len(stored)} tensors")


def _read_file(file: Path) -> list[StoredTensor]:
    try:
        with safe_open(file, framework="pt") as tensors:
            return [_read(name, tensors, file.name) for name in tensors.keys()]  # noqa: SIM118 - not a dict
    except Exception as err:  # SafetensorError has no public base besides Exception
        raise CheckpointError(f"{file}: not readable as safetensors ({err}); copy it again") from err


def _read(name: str, tensors: Any, file: str) -> StoredTensor:
    part, tensor = tensors.get_slice(name), tensors.get_tensor(name)
    sha256 = hashlib.sha256(raw_bytes(tensor)).hexdigest()
    digest = TensorDigest(name, part.get_dtype(), tuple(part.get_shape()), sha256)
    finite = not tensor.is_floating_point() or not tensor.numel() or is_finite(tensor)
    return StoredTensor(digest, file, finite, tensor.clone() if is_rotary(name) else None)


def _misplaced(folder: Path, stored: Sequence[StoredTensor]) -> list[str]:
    """Tensors that lie in another file, or in more files, than the index says; there may be no index."""
    index = folder / INDEX
    if not index.is_file():
        return []
    weight_map: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    found = {(tensor.digest.name, tensor.file) for tensor in stored}
    return sorted({name for name, _ in found ^ set(weight_map.items())})
