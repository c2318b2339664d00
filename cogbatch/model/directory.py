"""The configuration of a model directory, official or converted. Does not travel: official files lack values.

Official config.json files leave what differs between v1 and v2 to class defaults of the code beside them;
here the tensors decide.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open

from cogbatch.errors import CheckpointError
from cogbatch.model.configuration_cogvlm import CogVLMConfig

_V2_ROPE_THETA = 500000.0
_QKV = "model.layers.0.self_attn.language_expert_query_key_value.weight"
_VISION_QKV_BIAS = "model.layers.0.self_attn.vision_expert_query_key_value.bias"
_CONV = "model.vision.conv.weight"


def read_config(model_dir: Path) -> CogVLMConfig:
    """The complete configuration of a model directory.

    Raises:
        CheckpointError: no directory, no readable config.json, or no safetensors weights.
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
    kind = (values.get("model_type") or "cogvlm", (values.get("architectures") or ["CogVLMForCausalLM"])[0])
    if kind != ("cogvlm", "CogVLMForCausalLM"):
        raise CheckpointError(
            f"{file} describes {kind[1]} ({kind[0]}): only CogVLM v1 and v2 (CogVLMForCausalLM) are supported"
        )
    for transient in ("auto_map", "architectures", "transformers_version"):
        values.pop(transient, None)
    if "num_multi_query_heads" not in values:  # an official file
        values |= _from_tensors(values, tensor_shapes(model_dir))
    try:
        return CogVLMConfig(**values)
    except Exception as error:  # huggingface_hub raises its own validation errors
        raise CheckpointError(f"{file} is not a CogVLM configuration: {error}") from error


def tensor_shapes(model_dir: Path) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor in the directory's safetensors files, from their headers alone."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(model_dir.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as tensors:
                shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
        except Exception as error:
            raise CheckpointError(f"{file} is not a readable safetensors file: {error}") from error
    if not shapes:
        raise CheckpointError(f"{model_dir} has no *.safetensors weights")
    return shapes


def _from_tensors(values: dict[str, object], shapes: dict[str, tuple[int, ...]]) -> dict[str, object]:
    """What official files leave to class defaults: grouped heads, bias, rotary base, downsampling."""
    if _QKV not in shapes:
        raise CheckpointError(f"the weights have no tensor {_QKV}: this is not a CogVLM directory")
    rows, hidden = shapes[_QKV]
    head_dim = hidden // int(str(values["num_attention_heads"]))
    downsample = _CONV in shapes
    vision = values.get("vision_config")
    return {
        "num_multi_query_heads": (rows - hidden) // (2 * head_dim),
        "vision_expert_qkv_bias": _VISION_QKV_BIAS in shapes,
        "num_vision_expert_layers": sum(name.endswith("vision_expert_dense.weight") for name in shapes),
        "vision_config": {**(vision if isinstance(vision, dict) else {}), "downsample": downsample},
        **({"rope_theta": _V2_ROPE_THETA} if downsample and "rope_theta" not in values else {}),
    }
