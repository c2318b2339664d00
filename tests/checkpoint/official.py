"""Directories as the official repositories lay them out, tiny: their config keys, shards and code files.

The code files stand for code of an older transformers: importing one is seen (see `was_run`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

CODE_FILES = ("configuration_cogvlm.py", "modeling_cogvlm.py", "visual.py", "util.py")

# Keys of config.json in the order of the official files. v2 has no more keys: grouped heads and the rotary
# base are class defaults of its code.
_KEYS = (
    "bos_token_id",
    "eos_token_id",
    "hidden_act",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "pad_token_id",
    "rms_norm_eps",
    "template_version",
    "use_cache",
    "vocab_size",
)
_VISION_KEYS = (
    "dropout_prob",
    "hidden_act",
    "hidden_size",
    "image_size",
    "in_channels",
    "intermediate_size",
    "layer_norm_eps",
    "num_heads",
    "num_hidden_layers",
    "num_positions",
    "patch_size",
)


def make_official(converted: Path, folder: Path, *, num_shards: int = 3, dtype: str = "float32") -> Path:
    """The official layout of a converted directory's weights.

    dtype: of every tensor, rotary tables included, as `model.to(dtype).save_pretrained` makes them.
    """
    folder.mkdir(parents=True)
    explicit = json.loads((converted / "config.json").read_text())
    is_v2 = explicit["vision_config"]["downsample"]
    config: dict[str, Any] = {
        "_name_or_path": "cogvlm2-llama3-chat-19B" if is_v2 else "cogvlm-chat-v1.1",
        "architectures": ["CogVLMForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration_cogvlm.CogVLMConfig",
            "AutoModelForCausalLM": "modeling_cogvlm.CogVLMForCausalLM",
        },
        **{key: explicit[key] for key in _KEYS},
        **({} if is_v2 else {"tie_word_embeddings": False}),
        "torch_dtype": dtype,
        "transformers_version": "4.41.0" if is_v2 else "4.35.0",
        "vision_config": {key: explicit["vision_config"][key] for key in _VISION_KEYS},
    }
    write_json(folder / "config.json", config)
    ids = {key: explicit[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    write_json(folder / "generation_config.json", {"_from_model_config": True, **ids})
    for name in CODE_FILES:
        (folder / name).write_text(
            f"from pathlib import Path\nPath({str(folder)!r}).with_suffix('.was-run').touch()\n"
            "from .util import FastRotaryEmbedding\n"
        )
    tensors = {name: t.to(getattr(torch, dtype)) for name, t in read_tensors(converted).items()}
    write_shards(folder, tensors, num_shards=num_shards)
    return folder


def was_run(folder: Path) -> bool:
    """Whether a code file of make_official was executed."""
    return folder.with_suffix(".was-run").exists()


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor in the folder's safetensors files."""
    return {name: t for file in sorted(folder.glob("*.safetensors")) for name, t in load_file(file).items()}


def write_shards(folder: Path, tensors: dict[str, torch.Tensor], *, num_shards: int) -> None:
    """model-0000i-of-0000N.safetensors and their index."""
    names = list(tensors)
    weight_map: dict[str, str] = {}
    for i in range(num_shards):
        file = f"model-{i + 1:05d}-of-{num_shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[i::num_shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    total = sum(t.nbytes for t in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    write_json(folder / "model.safetensors.index.json", index)


def write_json(file: Path, value: object) -> None:
    file.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
