"""A SAT checkpoint directory, read as data: its configuration and its tensors. Nothing in a file is run.

Layout: DIR/model_config.json, DIR/latest (the iteration), DIR/<iteration>/mp_rank_XX_model_states.pt.
Only single-rank checkpoints of plain CogVLM v1 and v2 are read; every other kind is refused by its name.
"""

from __future__ import annotations

import argparse
import json
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cogbatch.checkpoint.sat_config import check_fields
from cogbatch.errors import CheckpointError

RANK_0 = "mp_rank_00_model_states.pt"

# (part of a key that only this kind has, what it is, what to do)
_REFUSED_KEYS = (
    ("quant_state", "QLoRA (quantised) weights", "dequantise and merge the model with SAT first"),
    (".absmax", "QLoRA (quantised) weights", "dequantise and merge the model with SAT first"),
    ("mixins.ptuning.", "P-tuning prefixes", "Hugging Face has no place for them; train without use_ptuning"),
    (
        ".matrix_A.",
        "unmerged LoRA weights",
        "convert the merged_lora_* folder written at the end of training",
    ),
    (
        ".matrix_B.",
        "unmerged LoRA weights",
        "convert the merged_lora_* folder written at the end of training",
    ),
    (".cross_attention.", "CogAgent weights", "only CogVLM v1 and v2 are supported"),
    ("mixins.encoder.", "CogAgent weights", "only CogVLM v1 and v2 are supported"),
    ("mixins.eva.pos_embed", "CogAgent weights", "only CogVLM v1 and v2 are supported"),
)

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class SatFiles:
    """Which files of a SAT directory make up one iteration; weights: one file per model-parallel rank."""

    path: Path
    iteration: str
    config: Mapping[str, Any]
    weights: tuple[Path, ...]

    @property
    def config_file(self) -> Path:
        return self.path / "model_config.json"

    @property
    def all(self) -> tuple[Path, ...]:
        """Every file that a conversion reads."""
        return (self.config_file, *self.weights)


def find_sat_files(sat_dir: Path, *, iteration: int | str | None = None) -> SatFiles:
    """The files of one iteration, without loading weights.

    Args:
        iteration: a number or "release"; None takes what DIR/latest says.

    Raises:
        CheckpointError: a file is missing or unreadable, the class is not supported, a field is missing or
            of the wrong type, or there is more than one model-parallel rank.
    """
    config = _read_model_config(sat_dir)
    check_fields(config, where=sat_dir / "model_config.json")
    name = _iteration(sat_dir) if iteration is None else str(iteration)
    folder = sat_dir / name
    if not folder.is_dir():
        found = ", ".join(_iterations(sat_dir)) or "none"
        raise CheckpointError(
            f"{sat_dir}: no folder for iteration {name!r}; found {found}. Pass --iteration, or restore it"
        )
    if any(folder.glob("z3_rank_*")) or any(folder.glob("zero_pp_rank_*_model_states.pt")):
        raise CheckpointError(
            f"{folder}: ZeRO-3 partitions (z3_rank_*) cannot be converted; save with ZeRO 1 or 2"
        )
    ranks = tuple(sorted(folder.glob("mp_rank_*_model_states.pt")))
    if folder / RANK_0 not in ranks:
        raise CheckpointError(
            f"{folder}: no {RANK_0}; found {_listing(folder)}. Copy the rank file into this folder "
            "(training may scatter files over two folders)"
        )
    parallel = max(len(ranks), _as_int(config.get("model_parallel_size", 1)))
    if parallel > 1:
        raise CheckpointError(
            f"{folder}: model-parallel checkpoints (size {parallel}) are not yet supported; merge the ranks "
            f"first, with SAT: torchrun --nproc_per_node {parallel} utils/merge_model.py"
        )
    return SatFiles(sat_dir, name, config, ranks)


def load_sat_tensors(file: Path) -> dict[str, Tensor]:
    """The state dict of one rank file, memory-mapped where the format allows; keys are SAT's.

    Raises:
        CheckpointError: truncated, not a SAT file, holds code, or is of a refused kind.
    """
    payload = _torch_load(file)
    module = payload.get("module") if isinstance(payload, Mapping) else None
    if not isinstance(module, Mapping):
        found = (
            ", ".join(map(str, list(payload)[:5])) if isinstance(payload, Mapping) else type(payload).__name__
        )
        raise CheckpointError(f"{file}: expected a dict with 'module' (SAT's state dict), found {found}")
    for part, kind, advice in _REFUSED_KEYS:
        hits = [key for key in module if part in str(key)]
        if hits:
            raise CheckpointError(
                f"{file}: {kind} ({hits[0]!r} and {len(hits) - 1} more) cannot be converted; {advice}"
            )
    for key, value in module.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{file}: {key!r} is a {type(value).__name__}, expected a tensor")
        if value.layout is not torch.strided:
            raise CheckpointError(
                f"{file}: {key!r} is a sparse tensor ({value.layout}), expected a dense one; "
                "save it with .to_dense()"
            )
        if value.dtype not in _FLOATS:
            raise CheckpointError(
                f"{file}: {key!r} has dtype {value.dtype}, expected float32, float16 or bfloat16; "
                "quantised checkpoints cannot be converted"
            )
    return {key: value.detach() for key, value in module.items()}


def _read_model_config(sat_dir: Path) -> Mapping[str, Any]:
    file = sat_dir / "model_config.json"
    if not file.is_file():
        inside = (sat_dir / RANK_0).is_file()
        advice = "this is an iteration folder, give its parent" if inside else "copy it from the training run"
        raise CheckpointError(f"{sat_dir}: no model_config.json, which every SAT checkpoint has; {advice}")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise CheckpointError(
            f"{file}: not readable as JSON ({err}); restore it from the training run"
        ) from err
    if not isinstance(config, dict):
        raise CheckpointError(f"{file}: expected a JSON object, found {type(config).__name__}")
    return config


def _iteration(sat_dir: Path) -> str:
    latest = sat_dir / "latest"
    found = ", ".join(_iterations(sat_dir)) or "none"
    if not latest.is_file():
        raise CheckpointError(f"{sat_dir}: no file 'latest'; pass --iteration (found {found})")
    name = latest.read_text(encoding="utf-8", errors="replace").strip()
    if not re.fullmatch(r"[\w-]+", name):
        raise CheckpointError(
            f"{latest}: {name[:40]!r} is not an iteration; pass --iteration (found {found})"
        )
    return name


def _iterations(sat_dir: Path) -> list[str]:
    return sorted({file.parent.name for file in sat_dir.glob("*/*_model_states.pt")})


def _listing(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir())
    return (", ".join(names[:5]) + (", ..." if len(names) > 5 else "")) or "nothing"


def _as_int(value: object) -> int:
    return value if isinstance(value, int) else 1


class _Inert:
    """Stands in for a training framework's object; whatever the file does to it has no effect."""

    def __init__(self, *args: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


# What training files hold besides tensors and plain containers: random states, scalars and option lists.
# All of these only build values. numpy 1 wrote the same functions under numpy.core.
_ALLOWED: dict[str, Callable[..., object]] = {
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    "numpy._core.multiarray._reconstruct": np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    "numpy.core.multiarray._reconstruct": np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    "numpy._core.multiarray.scalar": np._core.multiarray.scalar,  # type: ignore[attr-defined]
    "numpy.core.multiarray.scalar": np._core.multiarray.scalar,  # type: ignore[attr-defined]
    "argparse.Namespace": argparse.Namespace,
}
_DTYPES = tuple({type(np.dtype(code)) for code in np.typecodes["All"]})
_INERT_MODULES = ("deepspeed.", "sat.", "apex.", "megatron.")


def _torch_load(file: Path) -> object:
    """torch.load that never runs code from the file: weights_only, with an allow-list for training files."""
    try:
        with file.open("rb") as stream:
            is_zip = stream.read(4) == b"PK\x03\x04"
        allowed = _allow_list(file) if is_zip else []
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # how old files were written is not our reader's news
            return torch.load(file, map_location="cpu", mmap=is_zip, weights_only=True)
    except CheckpointError:
        raise
    except (
        Exception
    ) as err:  # torch raises RuntimeError, UnpicklingError, EOFError, KeyError, ... for bad bytes
        reason = str(err).splitlines()[0][:200] if str(err) else type(err).__name__
        if "weights_only" in reason:  # torch's advice to run whatever the file holds is not ours
            reason = "not only weights, or damaged"
        size = file.stat().st_size if file.exists() else 0
        raise CheckpointError(
            f"{file}: not a readable PyTorch file ({size:,} bytes: {reason}); truncated? copy it again"
        ) from err


def _allow_list(file: Path) -> list[Any]:
    allowed: list[Any] = [(value, name) for name, value in _ALLOWED.items()]
    allowed += _DTYPES
    for name in torch.serialization.get_unsafe_globals_in_checkpoint(file):
        if name in _ALLOWED or name.startswith("numpy.dtypes."):
            continue
        if not name.startswith(_INERT_MODULES):
            raise CheckpointError(f"{file}: asks to load {name}, which is not weights; nothing of it was run")
        allowed.append((_Inert, name))
    return allowed
