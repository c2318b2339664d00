"""Hugging Face directory, or weights in memory, to a single-rank SAT directory as SAT itself writes it."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from cogbatch.checkpoint.convert import rotary_table
from cogbatch.checkpoint.manifest import weight_files
from cogbatch.checkpoint.names import is_rotary, tensor_names
from cogbatch.checkpoint.sat import RANK_0
from cogbatch.checkpoint.sat_config import to_sat
from cogbatch.checkpoint.staging import staged_directory
from cogbatch.errors import CheckpointError
from cogbatch.model.configuration_cogvlm import CogVLMConfig
from cogbatch.model.directory import read_config


def export_sat(
    model: str | Path | Mapping[str, Tensor],
    sat_dir: str | Path,
    *,
    config: CogVLMConfig | None = None,
    iteration: int = 1,
    overwrite: bool = False,
) -> Path:
    """Writes model_config.json, latest and <iteration>/mp_rank_00_model_states.pt. Returns sat_dir.

    Args:
        model: a model directory, or a state dict with Hugging Face names; then config is required.
        config: of a state dict only; a directory has its own.
        iteration: folder name, and what `latest` says; above 0.
        overwrite: replace an existing SAT directory.

    Raises:
        ValueError: config given with a directory or missing with a state dict; iteration below 1.
        CheckpointError: tensors are missing, unknown or misshapen, or sat_dir exists.
    """
    if iteration < 1:
        raise ValueError(f"iteration is {iteration}, expected 1 or more")
    if isinstance(model, Mapping) == (config is None):
        raise ValueError("config must be given with a state dict, and only then")
    if isinstance(model, Mapping):
        state, where = model, "state dict"
    else:
        folder = Path(model).expanduser()
        config, state, where = read_config(folder), _load(folder), str(folder)
    assert config is not None
    module = to_sat_state(state, config, where=where)
    target = Path(sat_dir).expanduser()
    with staged_directory(target, overwrite=overwrite, marker="model_config.json") as out:
        (out / "model_config.json").write_text(json.dumps(to_sat(config), indent=4), encoding="utf-8")
        (out / "latest").write_text(str(iteration), encoding="utf-8")
        (out / str(iteration)).mkdir()
        torch.save({"module": module}, out / str(iteration) / RANK_0)
    return target


def to_sat_state(
    state: Mapping[str, Tensor], config: CogVLMConfig, *, where: str = "state dict"
) -> OrderedDict[str, Tensor]:
    """SAT's state dict from Hugging Face tensors: SAT's names, in SAT's order.

    Raises CheckpointError: a tensor is missing, has no SAT name, or has another shape than config says.
    """
    names = tensor_names(config)
    expected = {name.hf: name for name in names if name.hf is not None}
    missing = [hf for hf in expected if hf not in state]
    extra = [hf for hf in state if hf not in expected and not is_rotary(hf)]
    for problem, keys in (("lacks", missing), ("holds tensors that SAT has no name for:", extra)):
        if keys:
            more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
            raise CheckpointError(
                f"{where} {problem} {', '.join(keys[:5])}{more}; is the configuration its own?"
            )
    module: OrderedDict[str, Tensor] = OrderedDict()
    for name in names:
        tensor = _rotary(config, state) if name.hf is None else state[name.hf]
        if tuple(tensor.shape) != name.shape:
            raise CheckpointError(
                f"{where}: {name.hf!r} has shape {list(tensor.shape)}, but "
                f"its configuration means {list(name.shape)}"
            )
        module[name.sat] = tensor.detach().cpu().contiguous()
    return module


def _rotary(config: CogVLMConfig, state: Mapping[str, Tensor]) -> Tensor:
    """[D/2] in the model's dtype, as SAT's buffer is after `.bfloat16()` and the like."""
    return rotary_table(config).to(state["model.embed_tokens.weight"].dtype)


def _load(folder: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for file in weight_files(folder):
        with safe_open(file, framework="pt") as tensors:
            state |= {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118 - not a dict
    return state
