"""SAT directories of any geometry, number of ranks and LoRA, written as SAT writes them."""

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cogbatch.checkpoint.names import TensorName, tensor_names
from cogbatch.checkpoint.ranks import split
from cogbatch.checkpoint.sat_config import from_sat
from cogbatch.model.configuration_cogvlm import CogVLMConfig

State = dict[str, Tensor]
TINY = {
    "model_class": "CogVLMModel",
    "num_layers": 2,
    "hidden_size": 16,
    "num_attention_heads": 4,
    "vocab_size": 1004,
    "inner_hidden_size": 24,
    "eva_args": {
        "num_layers": 2,
        "hidden_size": 8,
        "num_attention_heads": 4,
        "inner_hidden_size": 12,
        "image_size": [28, 28],
        "patch_size": 14,
    },
}
TINY_2 = TINY | {"model_class": "CogVLM2Model", "num_multi_query_heads": 4, "num_attention_heads": 8}


def config_of(values: dict[str, Any]) -> CogVLMConfig:
    keys = {"mixins.eva.conv.weight"} if "2" in values["model_class"] else set()
    return from_sat(values, keys=keys, where=Path("model_config.json"))


def whole_state(names: Collection[TensorName], *, dtype: torch.dtype, seed: int = 0) -> State:
    """Random tensors under SAT's plain names."""
    generator = torch.Generator().manual_seed(seed)
    return {name.sat: torch.randn(name.shape, generator=generator).to(dtype) for name in names}


def in_ranks(whole: State, names: Collection[TensorName], num_ranks: int) -> list[State]:
    """Each rank's state, as SAT shares it."""
    pieces = {name.sat: split(whole[name.sat], name, num_ranks) for name in names}
    return [{sat: pieces[sat][rank].clone() for sat in pieces} for rank in range(num_ranks)]


def wrap(rank: State, name: TensorName, *, lora_rank: int, num_ranks: int, seed: int = 0) -> None:
    """Makes one layer of a rank's state an unmerged LoRA layer, as SAT's lora2.py stores it."""
    generator = torch.Generator().manual_seed(seed)
    module = name.sat.removesuffix(".weight")
    weight = rank.pop(name.sat)
    rank[f"{module}.original.weight"] = weight
    if (bias := rank.pop(f"{module}.bias", None)) is not None:
        rank[f"{module}.original.bias"] = bias
    rows = [length // num_ranks for length in name.sections] if name.dim == 0 else [len(weight)]
    for i, length in enumerate(rows):
        for letter, shape in (("A", (lora_rank, weight.shape[1])), ("B", (length, lora_rank))):
            matrix = torch.randn(shape, generator=generator).to(weight.dtype)
            rank[f"{module}.matrix_{letter}.{i}"] = matrix


def merged_by_hand(rank: State, name: TensorName, *, dtype: torch.dtype) -> Tensor:
    """What wrap() stored, merged by the formula: W + cat(B @ A) / r in float32, rounded once."""
    module = name.sat.removesuffix(".weight")
    a = [rank[key].float() for key in sorted(rank) if key.startswith(f"{module}.matrix_A.")]
    b = [rank[key].float() for key in sorted(rank) if key.startswith(f"{module}.matrix_B.")]
    added = torch.cat([up @ down for up, down in zip(b, a, strict=True)]) * (1 / len(a[0]))
    return (rank[f"{module}.original.weight"].float() + added).to(dtype)


def write_sat(
    folder: Path, values: dict[str, Any], ranks: list[State], *, iteration: str = "1", **beside: Any
) -> Path:
    """A SAT directory; beside: what training puts next to the weights."""
    (folder / iteration).mkdir(parents=True)
    config = values | {"model_parallel_size": len(ranks)}
    (folder / "model_config.json").write_text(json.dumps(config))
    (folder / "latest").write_text(iteration)
    for number, state in enumerate(ranks):
        file = folder / iteration / f"mp_rank_{number:02}_model_states.pt"
        torch.save({"module": state} | beside, file)
    return folder


def build(
    folder: Path,
    values: dict[str, Any] = TINY,
    *,
    num_ranks: int = 1,
    dtype: torch.dtype = torch.float32,
    edit: Callable[[list[State]], None] | None = None,
) -> Path:
    """A SAT directory of random tensors, its ranks changed by edit on the way."""
    names = tensor_names(config_of(values))
    ranks = in_ranks(whole_state(names, dtype=dtype), names, num_ranks)
    if edit is not None:
        edit(ranks)
    return write_sat(folder, values, ranks)
