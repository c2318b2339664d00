"""A SAT checkpoint directory, read as data: which files make up an iteration, and the tensors of each.

Layout: DIR/model_config.json, DIR/latest (the iteration), DIR/<iteration>/mp_rank_XX_model_states.pt, one
for each model-parallel rank. What the tensors mean together is in source.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cogbatch.checkpoint.lora import lora_keys
from cogbatch.checkpoint.sat_config import check_fields
from cogbatch.checkpoint.torch_file import load_torch_file
from cogbatch.errors import CheckpointError

RANK_0 = "mp_rank_00_model_states.pt"
_MOST_RANKS = 1000
_RANK = re.compile(r"mp_rank_(\d{2,})_model_states\.pt")
# A number, "release", "800-ema": one folder, never a path.
_ITERATION = re.compile(r"\w[\w.-]*")

# (part of a key that only this kind has, what it is, what to do)
_DEQUANTISE = "dequantise and merge the model with SAT first"
_UNSUPPORTED = "only CogVLM v1 and v2 are supported"
_REFUSED_KEYS = (
    ("quant_state", "QLoRA (quantised) weights", _DEQUANTISE),
    (".absmax", "QLoRA (quantised) weights", _DEQUANTISE),
    ("mixins.ptuning.", "P-tuning prefixes", "Hugging Face has no place for them; train without use_ptuning"),
    (".cross_attention.", "CogAgent weights", _UNSUPPORTED),
    ("mixins.encoder.", "CogAgent weights", _UNSUPPORTED),
    ("mixins.eva.pos_embed", "CogAgent weights", _UNSUPPORTED),
)
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
# What training notes beside the weights and all ranks of one save share.
_RUN_FIELDS = ("iteration", "global_steps", "global_samples", "mp_world_size")


@dataclass(frozen=True)
class SatFiles:
    """Which files of a SAT directory make up one iteration; weights: in the order of ranks."""

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


class SatRank(NamedTuple):
    """One rank file. tensors: keys are SAT's. run: what a training file says of its run; else empty."""

    tensors: dict[str, Tensor]
    run: dict[str, int]


def find_sat_files(sat_dir: Path, *, iteration: int | str | None = None) -> SatFiles:
    """The files of one iteration, without loading weights.

    Args:
        iteration: a number, "release", or a folder's name such as "800-ema"; None takes what DIR/latest
            says, and without that file the only iteration.

    Raises:
        ValueError: iteration is not the name of a folder.
        CheckpointError: a file is missing or unreadable, the class is not supported, a field is missing or
            of the wrong type, or the rank files are not those of model_parallel_size.
    """
    if iteration is not None and not _ITERATION.fullmatch(str(iteration)):
        raise ValueError(f"iteration is {str(iteration)!r}, expected a number or a folder's name")
    config = _read_model_config(sat_dir)
    check_fields(config, where=sat_dir / "model_config.json")
    name = _iteration(sat_dir) if iteration is None else str(iteration)
    folder = sat_dir / name
    if not folder.is_dir():
        raise CheckpointError(
            f"{sat_dir}: no folder for iteration {name!r}; found {_found(sat_dir)}. "
            "Pass --iteration, or restore it"
        )
    if any(folder.glob("z3_rank_*")) or any(folder.glob("zero_pp_rank_*_model_states.pt")):
        raise CheckpointError(
            f"{folder}: ZeRO-3 partitions (z3_rank_*) cannot be converted; save with ZeRO 1 or 2"
        )
    return SatFiles(sat_dir, name, config, _rank_files(folder, config))


def load_sat_tensors(file: Path, *, lora: bool = False) -> dict[str, Tensor]:
    """The state dict of one rank file, memory-mapped where the format allows; keys are SAT's.

    Args:
        lora: give unmerged LoRA matrices too, as they are (`original`, `matrix_A`, `matrix_B`).

    Raises:
        CheckpointError: truncated, not a SAT file, holds code, or is of a refused kind; unmerged LoRA
            without lora.
    """
    tensors = load_sat_rank(file).tensors
    if not lora and (keys := lora_keys(tensors)):
        raise CheckpointError(
            f"{file}: unmerged LoRA weights ({keys[0]!r} and {len(keys) - 1} more); let convert merge them "
            "(--merge-lora), or give the merged_lora_* folder written at the end of training"
        )
    return tensors


def load_sat_rank(file: Path) -> SatRank:
    """load_sat_tensors with LoRA, and what the file says of its run."""
    payload = load_torch_file(file)
    module = payload.get("module") if isinstance(payload, Mapping) else None
    if not isinstance(payload, Mapping) or not isinstance(module, Mapping):
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
        if not isinstance(key, str) or not isinstance(value, Tensor):
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
    run = {name: payload[name] for name in _RUN_FIELDS if isinstance(payload.get(name), int)}
    return SatRank({key: value.detach() for key, value in module.items()}, run)


def _rank_files(folder: Path, config: Mapping[str, Any]) -> tuple[Path, ...]:
    """All rank files, in order: as many as model_parallel_size says, which SAT always writes."""
    found = {int(match[1]): file for file in folder.iterdir() if (match := _RANK.fullmatch(file.name))}
    size = config.get("model_parallel_size")
    if size is None:
        size = max(found, default=0) + 1
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= _MOST_RANKS:
        raise CheckpointError(
            f"{folder.parent / 'model_config.json'}: model_parallel_size is {size!r}, expected a whole "
            f"number from 1 to {_MOST_RANKS}; restore it from the training run"
        )
    if missing := [rank for rank in range(size) if rank not in found]:
        raise CheckpointError(_missing_ranks(folder, missing, size=size))
    if len(found) > size:
        raise CheckpointError(
            f"{folder}: {len(found)} rank files, but model_config.json says model_parallel_size {size}; "
            "do they belong together? Correct the field, or move away the files of another run"
        )
    return tuple(found[rank] for rank in range(size))


def _missing_ranks(folder: Path, missing: list[int], *, size: int) -> str:
    """Training may scatter ranks over folders named after different minutes (CogVLM#269): where are they?"""
    names = [f"mp_rank_{rank:02}_model_states.pt" for rank in missing]
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    elsewhere = [str(file) for name in names for file in _in_siblings(folder.parent, f"{folder.name}/{name}")]
    where = (
        f"there is {', '.join(elsewhere[:5])}: if it is of the same run, copy it into this folder"
        if elsewhere
        else "copy what is missing into this folder (training may scatter ranks over two run folders)"
    )
    return (
        f"{folder}: no {shown}, expected {size} model-parallel rank{'s' * (size != 1)}; "
        f"found {_listing(folder)}; {where}"
    )


def _in_siblings(sat_dir: Path, path: str) -> list[Path]:
    """path below the other directories beside sat_dir, wherever it exists."""
    own = sat_dir.resolve()
    try:
        return sorted(file for file in own.parent.glob(f"*/{path}") if own not in file.parents)
    except OSError:  # a neighbour that may not be listed
        return []


def _read_model_config(sat_dir: Path) -> Mapping[str, Any]:
    file = sat_dir / "model_config.json"
    if not file.is_file():
        raise CheckpointError(
            f"{sat_dir}: no model_config.json, which every SAT checkpoint has; "
            f"{_advice_without_config(sat_dir)}"
        )
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise CheckpointError(
            f"{file}: not readable as JSON ({err}); restore it from the training run"
        ) from err
    if not isinstance(config, dict):
        raise CheckpointError(f"{file}: expected a JSON object, found {type(config).__name__}")
    return config


def _advice_without_config(sat_dir: Path) -> str:
    if sat_dir.is_dir() and any(_RANK.fullmatch(entry.name) for entry in sat_dir.iterdir()):
        return "this is an iteration folder, give its parent"
    for rank_file in sorted(sat_dir.glob("*/mp_rank_*_model_states.pt")):
        for other in _in_siblings(sat_dir, rank_file.parent.name):
            if (config := other.parent / "model_config.json").is_file():
                return f"there is {config}: if it is of the same run, bring its files and these together"
    return "copy it from the training run"


def _iteration(sat_dir: Path) -> str:
    latest = sat_dir / "latest"
    if not latest.is_file():
        names = _iterations(sat_dir)
        if len(names) == 1:
            return names[0]
        raise CheckpointError(f"{sat_dir}: no file 'latest'; pass --iteration (found {_found(sat_dir)})")
    name = latest.read_text(encoding="utf-8", errors="replace").strip()
    if not _ITERATION.fullmatch(name):
        raise CheckpointError(
            f"{latest}: {name[:40]!r} is not an iteration; pass --iteration (found {_found(sat_dir)})"
        )
    return name


def _iterations(sat_dir: Path) -> list[str]:
    names = {file.parent.name for file in sat_dir.glob("*/*_model_states.pt")}
    return sorted(names, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name))


def _found(sat_dir: Path) -> str:
    return ", ".join(_iterations(sat_dir)) or "none"


def _listing(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir())
    return (", ".join(names[:5]) + (", ..." if len(names) > 5 else "")) or "nothing"
