"""What a model directory holds, official or converted: configuration, shapes, tokenizer. Does not travel.

Official config.json files leave what differs between v1 and v2 to class defaults of the code beside them;
here the tensors decide.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from cogbatch.errors import CheckpointError
from cogbatch.model.config_fields import wrong_fields
from cogbatch.model.configuration_cogvlm import CogVLMConfig

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

_V2_ROPE_THETA = 500000.0
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json")
# Official code keeps these in class defaults, which differ between v1 and v2.
_LEFT_TO_CODE = (
    "num_multi_query_heads",
    "num_vision_expert_layers",
    "vision_expert_qkv_bias",
    "rope_theta",
)
_INDEX = "model.safetensors.index.json"
_QKV = "model.layers.0.self_attn.language_expert_query_key_value.weight"
_VISION_QKV_BIAS = "model.layers.0.self_attn.vision_expert_query_key_value.bias"
_CONV = "model.vision.conv.weight"


def read_config(model_dir: Path) -> CogVLMConfig:
    """The complete configuration of a model directory.

    Raises:
        CheckpointError: no directory, no readable config.json, not CogVLM's, a field of another type or range
            than it should have, or no safetensors weights.
    """
    file = model_dir / "config.json"
    if not file.is_file():
        raise CheckpointError(
            f"{model_dir} is not a model directory: it has no config.json. Expected a directory written by "
            "'cogbatch convert' or an official CogVLM one"
        )
    try:
        values = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(
            f"{file} holds a JSON {type(values).__name__}, expected an object; copy it again"
        )
    kind = values.get("model_type") or "cogvlm"
    classes = values.get("architectures") or ["CogVLMForCausalLM"]
    if kind != "cogvlm" or not isinstance(classes, list) or classes[0] != "CogVLMForCausalLM":
        shown = classes[0] if isinstance(classes, list) else classes
        raise CheckpointError(
            f"{file} describes {shown} ({kind}): only CogVLM v1 and v2 (CogVLMForCausalLM) are supported"
        )
    vision = {} if values.get("vision_config") is None else values["vision_config"]
    if not isinstance(vision, dict):
        raise CheckpointError(
            f"{file} is not a CogVLM configuration: vision_config is {vision!r}, expected an object"
        )
    if wrong := wrong_fields(values, vision):
        raise CheckpointError(f"{file}: {'; '.join(wrong)}; copy it again")
    heads = values.get("num_attention_heads", CogVLMConfig.num_attention_heads)
    for transient in ("auto_map", "architectures", "transformers_version"):
        values.pop(transient, None)
    # An official file, or one that official code saved again, which writes some of these and not others.
    if not (values.keys() >= set(_LEFT_TO_CODE) and "downsample" in vision):
        decided = _from_tensors(model_dir, num_heads=heads)
        values["vision_config"] = {"downsample": decided.pop("downsample"), **vision}
        values = decided | values
    try:
        return CogVLMConfig(**values)
    except Exception as error:  # huggingface_hub raises its own validation errors
        raise CheckpointError(f"{file} is not a CogVLM configuration: {error}") from error


def load_tokenizer(folder: Path, *, shown_as: str | Path | None = None) -> Any:
    """transformers' tokenizer of a directory; code that comes with it is never run.

    Args:
        shown_as: what errors call the directory.

    Raises:
        CheckpointError: there is none, or it cannot be loaded.
    """
    # Slow to import, and whoever has no tokenizer never needs it.
    from transformers import AutoTokenizer

    name = shown_as or folder
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        raise CheckpointError(
            f"{name} has no tokenizer ({', '.join(_TOKENIZER_FILES)}): pass one (--tokenizer DIR; CogVLM v1 "
            "uses lmsys/vicuna-7b-v1.5), or convert with --tokenizer"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # With a config given, transformers does not look for one that would ask to run the folder's code.
            return AutoTokenizer.from_pretrained(
                folder, config=CogVLMConfig(), local_files_only=True, trust_remote_code=False
            )
    except Exception as err:  # whatever a damaged file makes of it
        reason = str(err).strip().splitlines()[0][:200] if str(err).strip() else type(err).__name__
        raise CheckpointError(
            f"{name}: the tokenizer does not load with AutoTokenizer ({reason}); copy it again"
        ) from err


def tensor_shapes(model_dir: Path) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor in the safetensors files that from_pretrained reads, from their headers alone.

    Raises:
        CheckpointError: there are none, or one is missing or unreadable.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in weight_files(model_dir):
        try:
            with safe_open(file, framework="pt") as tensors:
                shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
        except Exception as error:
            raise CheckpointError(f"{file} is not a readable safetensors file: {error}") from error
    if not shapes:
        raise CheckpointError(f"{model_dir} has no *.safetensors weights")
    return shapes


def weight_files(model_dir: Path) -> list[Path]:
    """transformers' order: one whole file, then those of the index. Other files may lie beside them."""
    single, index = model_dir / "model.safetensors", model_dir / _INDEX
    if single.is_file():
        return [single]
    if not index.is_file():
        return sorted(model_dir.glob("*.safetensors"))
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{index}: not a weight index ({error!r}); run cogbatch doctor") from error
    return [model_dir / name for name in names]


def _from_tensors(model_dir: Path, *, num_heads: int) -> dict[str, Any]:
    """What official files leave to class defaults: grouped heads, bias, rotary base, downsampling."""
    shapes = tensor_shapes(model_dir)
    if _QKV not in shapes:
        raise CheckpointError(
            f"{model_dir}: the weights have no tensor {_QKV}: this is not a CogVLM directory"
        )
    if len(shapes[_QKV]) != 2 or shapes[_QKV][1] < num_heads:
        raise CheckpointError(
            f"{model_dir}: {_QKV} has shape {list(shapes[_QKV])}, expected two dimensions, the second at "
            f"least config.json's num_attention_heads, {num_heads}; do they belong together?"
        )
    rows, hidden = shapes[_QKV]
    downsample = _CONV in shapes
    return {
        "num_multi_query_heads": (rows - hidden) // (2 * (hidden // num_heads)),
        "vision_expert_qkv_bias": _VISION_QKV_BIAS in shapes,
        "num_vision_expert_layers": sum(name.endswith("vision_expert_dense.weight") for name in shapes),
        "rope_theta": _V2_ROPE_THETA if downsample else CogVLMConfig.rope_theta,
        "downsample": downsample,
    }
