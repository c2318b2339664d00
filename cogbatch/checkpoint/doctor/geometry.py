"""A complete configuration out of a config.json that may say little: the tensors decide what they can.

Three sources: what is stated and of the right type, what shapes prove, and what all published models share.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cogbatch.checkpoint.names import is_rotary, vision_config
from cogbatch.model.configuration_cogvlm import CogVLMConfig, CogVLMVisionConfig

Shapes = Mapping[str, tuple[int, ...]]

_LAYERS = "model.layers."
_QKV = "self_attn.language_expert_query_key_value.weight"
_TOWER = "model.vision.transformer.layers."
_PATCH = "model.vision.patch_embedding."
_LANGUAGE_LAYERS = ("num_hidden_layers", "num_vision_expert_layers")
_VISION_LAYERS = "vision_config.num_hidden_layers"
# Attention heads are in no tensor's shape: widths of all published models -> their heads.
_PUBLISHED_HEADS = {4096: 32}
_PUBLISHED_VISION_HEADS = {1792: 16}
_ROPE_THETA = {1: 10_000.0, 2: 500_000.0}
_POSITIONS = {1: 2048, 2: 8192}
_LLAMA3_VOCABULARY = 128_256
# What tensors prove, or the class behind them fixes; the rest of a configuration is what its author says.
_PROVEN = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_multi_query_heads",
    "num_vision_expert_layers",
    "vision_expert_qkv_bias",
    "rope_theta",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)
_PROVEN_VISION = (
    "hidden_size",
    "image_size",
    "in_channels",
    "intermediate_size",
    "num_heads",
    "num_hidden_layers",
    "num_positions",
    "patch_size",
    "downsample",
)


@dataclass(frozen=True)
class Geometry:
    """config: complete, or None where `undecided` names fields that nothing decides."""

    config: CogVLMConfig | None
    undecided: tuple[str, ...]


def is_cogvlm(shapes: Shapes) -> bool:
    """Whether these are the tensors of a CogVLM."""
    return _of_any_layer(shapes, _LAYERS, _QKV) is not None


def complete(values: Mapping[str, Any], shapes: Shapes) -> Geometry:
    """The configuration of a config.json's values and the shapes of the tensors beside it.

    Layers that are stated and not stored stay: they are missing tensors, not a smaller model.
    """
    fields, vision = _stated(values)
    undecided: list[str] = []
    _decide_language(fields, shapes, undecided)
    _decide_vision(vision, shapes, undecided)
    if undecided:
        return Geometry(None, tuple(undecided))
    generation = 2 if vision["downsample"] else 1
    defaults: dict[str, Any] = {
        "rope_theta": _ROPE_THETA[generation],
        "max_position_embeddings": _POSITIONS[generation],
        "rms_norm_eps": 1e-5,
    }
    if fields["vocab_size"] >= _LLAMA3_VOCABULARY:
        defaults |= {"bos_token_id": 128_000, "eos_token_id": [128_001, 128_009], "pad_token_id": 128_002}
    return Geometry(CogVLMConfig(**defaults | fields, vision_config=CogVLMVisionConfig(**vision)), ())


def absent_layers(config: CogVLMConfig, shapes: Shapes) -> dict[str, tuple[int, int]]:
    """field -> (how many layers the configuration has, how many are stored), where fewer are stored."""
    stored, vision = _layers(shapes), vision_config(config)
    pairs = {name: (getattr(config, name), stored[name]) for name in _LANGUAGE_LAYERS}
    pairs[_VISION_LAYERS] = (vision.num_hidden_layers, stored[_VISION_LAYERS])
    return {name: pair for name, pair in pairs.items() if pair[0] > pair[1]}


def of_stored_layers(config: CogVLMConfig, shapes: Shapes) -> CogVLMConfig:
    """The configuration without layers of which nothing is stored."""
    if not (absent := absent_layers(config, shapes)):
        return config
    smaller = copy.deepcopy(config)
    for name, (_, stored) in absent.items():
        place = vision_config(smaller) if name == _VISION_LAYERS else smaller
        setattr(place, name.rpartition(".")[2], stored)
    return smaller


def disagreements(values: Mapping[str, Any], config: CogVLMConfig) -> dict[str, tuple[object, object]]:
    """field -> (what the shipped code would make of values, what it is), where the two differ."""
    fields, vision = _stated(values)
    stated = CogVLMConfig(**fields, vision_config=CogVLMVisionConfig(**vision))
    pairs = {name: (getattr(stated, name), getattr(config, name)) for name in _PROVEN}
    pairs |= {
        f"vision_config.{name}": (getattr(vision_config(stated), name), getattr(vision_config(config), name))
        for name in _PROVEN_VISION
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _stated(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What values say of the language model and of the vision tower, where the type is right."""
    vision = values.get("vision_config")
    tower = vision if isinstance(vision, dict) else {}
    return _fitting(CogVLMConfig, values), _fitting(CogVLMVisionConfig, tower)


def _fitting(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in cls.__annotations__ if name in values and _fits(cls, name, values)}


def _fits(cls: type, name: str, values: Mapping[str, Any]) -> bool:
    value, default = values[name], getattr(cls, name)
    if name == "vision_config":
        return False
    if name == "eos_token_id" and isinstance(value, list):
        return bool(value) and all(type(one) is int for one in value)
    if default is None:  # rope_inv_freq
        return value is None or (isinstance(value, list) and all(isinstance(one, float) for one in value))
    if isinstance(default, bool | str):
        return type(value) is type(default)
    if isinstance(default, float):
        return type(value) in (int, float) and value >= 0
    # 0 stands for "as many as there are" in grouped heads and expert layers: as good as absent.
    return type(value) is int and (value > 0 or (value == 0 and name.endswith("_id")))


def _decide_language(fields: dict[str, Any], shapes: Shapes, undecided: list[str]) -> None:
    rows, hidden = _of_any_layer(shapes, _LAYERS, _QKV) or (0, 0)
    fields["hidden_size"] = hidden
    _take(fields, "vocab_size", shapes.get("model.embed_tokens.weight"))
    _take(fields, "vocab_size", shapes.get("lm_head.weight"))
    _take(fields, "intermediate_size", _of_any_layer(shapes, _LAYERS, "mlp.language_mlp.gate_proj.weight"))
    stored = _layers(shapes)
    for name in _LANGUAGE_LAYERS:
        fields[name] = max(fields.get(name, 0), stored[name])
    bias = _of_any_layer(shapes, _LAYERS, "self_attn.vision_expert_query_key_value.bias")
    fields["vision_expert_qkv_bias"] = bias is not None
    if "lm_head.weight" in shapes:
        fields["tie_word_embeddings"] = False
    table = _of_any_layer(shapes, _LAYERS, "self_attn.rotary_emb.inv_freq")
    if table is not None and len(table) == 1 and table[0] and hidden % (2 * table[0]) == 0:
        fields["num_attention_heads"] = hidden // (2 * table[0])
    elif "num_attention_heads" not in fields and hidden in _PUBLISHED_HEADS:
        fields["num_attention_heads"] = _PUBLISHED_HEADS[hidden]
    heads = fields.get("num_attention_heads", 0)
    if not heads or hidden % heads or (rows - hidden) % (2 * (hidden // heads)):
        undecided.append("num_attention_heads")
    else:
        fields["num_multi_query_heads"] = (rows - hidden) // (2 * (hidden // heads))
    undecided += [name for name in ("vocab_size", "intermediate_size") if name not in fields]


def _decide_vision(vision: dict[str, Any], shapes: Shapes, undecided: list[str]) -> None:
    kernel = shapes.get(f"{_PATCH}proj.weight", ())
    if len(kernel) == 4:
        vision |= {"hidden_size": kernel[0], "in_channels": kernel[1], "patch_size": kernel[2]}
    _take(vision, "num_positions", shapes.get(f"{_PATCH}position_embedding.weight"))
    _take(vision, "intermediate_size", _of_any_layer(shapes, _TOWER, "mlp.fc1.weight"))
    vision["num_hidden_layers"] = max(vision.get("num_hidden_layers", 0), _layers(shapes)[_VISION_LAYERS])
    vision["downsample"] = "model.vision.conv.weight" in shapes or bool(vision.get("downsample"))
    hidden = vision.get("hidden_size", 0)
    if "num_heads" not in vision and hidden in _PUBLISHED_VISION_HEADS:
        vision["num_heads"] = _PUBLISHED_VISION_HEADS[hidden]
    if hidden % vision.get("num_heads", hidden + 1):
        undecided.append("vision_config.num_heads")
    needed = ("hidden_size", "in_channels", "patch_size", "num_positions", "intermediate_size")
    undecided += [f"vision_config.{name}" for name in needed if name not in vision]
    if "num_positions" in vision and "patch_size" in vision:
        side = math.isqrt(vision["num_positions"] - 1)
        if (vision.get("image_size", 0) // vision["patch_size"]) != side:
            vision["image_size"] = side * vision["patch_size"]


def _take(fields: dict[str, Any], name: str, shape: tuple[int, ...] | None) -> None:
    if shape:
        fields[name] = shape[0]


def _of_any_layer(shapes: Shapes, prefix: str, suffix: str) -> tuple[int, ...] | None:
    """Shape of a tensor that every layer has, from the first layer that has it."""
    pattern = re.compile(rf"{re.escape(prefix)}\d+\.{re.escape(suffix)}")
    return next((shape for name, shape in shapes.items() if pattern.fullmatch(name)), None)


def _layers(shapes: Shapes) -> dict[str, int]:
    """Layers of which tensors are stored, by the configuration's field."""
    experts = ("self_attn.vision_expert_", "mlp.vision_mlp.")
    return {
        "num_hidden_layers": _count(shapes, _LAYERS),
        "num_vision_expert_layers": max(_count(shapes, _LAYERS, part) for part in experts),
        _VISION_LAYERS: _count(shapes, _TOWER),
    }


def _count(shapes: Shapes, prefix: str, suffix: str = "") -> int:
    """One more than the highest index behind prefix.

    Rotary tables, which anyone can add, make no layer; nor does an index above the number of all tensors.
    """
    pattern = re.compile(rf"{re.escape(prefix)}(\d+)\.{re.escape(suffix)}")
    found = (int(m[1]) for name in shapes if (m := pattern.match(name)) and not is_rotary(name))
    return max((index + 1 for index in found if index < len(shapes)), default=0)
