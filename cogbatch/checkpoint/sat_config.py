"""SAT's model_config.json <-> CogVLMConfig, and the names of templates. Values only, no files."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from cogbatch.checkpoint.names import CONV, vision_config
from cogbatch.errors import CheckpointError
from cogbatch.model.config_fields import wrong_fields
from cogbatch.model.configuration_cogvlm import CogVLMConfig, CogVLMVisionConfig
from cogbatch.model.templates import TEMPLATE_NAMES

# SAT's --version -> config.json's template_version. SAT's own chat ("[INST]") is unknown to official HF code.

_CLASS = re.compile(r"(FineTune(Train|Test))?CogVLM(?P<two>2)?Model")
_REQUIRED = ("num_layers", "hidden_size", "num_attention_heads", "vocab_size")
_REQUIRED_EVA = ("num_layers", "hidden_size", "num_attention_heads")
# Where they are absent or null, SAT has a default.
_OPTIONAL = ("inner_hidden_size", "num_multi_query_heads", "max_sequence_length", "image_length")
_OPTIONAL_EVA = ("inner_hidden_size", "in_channels", "patch_size")
# Hard-coded in CogVLMModel; CogVLM2Model has an expert in every layer.
_V1_EXPERT_LAYERS = 32
_MOST_LAYERS = 10_000
_ROPE_THETA = {1: 10_000.0, 2: 500_000.0}
_POSITIONS = {1: 2048, 2: 8192}


def template_version(version: str | None, config: Mapping[str, Any], *, where: Path) -> str:
    """config.json's template name for SAT's name, which defaults to the checkpoint's text_processor_version.

    where: the file that config was read from, for errors.

    Raises:
        ValueError: version is not one of SAT's names.
        CheckpointError: the checkpoint does not say, or says something unknown, and no version is given.
    """
    names = ", ".join(TEMPLATE_NAMES)
    if version is not None:
        if version not in TEMPLATE_NAMES:
            raise ValueError(f"unknown version {version!r}: expected one of {names} (SAT's names)")
        return TEMPLATE_NAMES[version]
    stored = config.get("text_processor_version")
    if stored is None:
        raise CheckpointError(f"{where} has no text_processor_version; pass --version, one of {names}")
    if not isinstance(stored, str) or stored not in TEMPLATE_NAMES:
        raise CheckpointError(
            f"{where}: text_processor_version {stored!r} is unknown; pass --version, one of {names}"
        )
    return TEMPLATE_NAMES[stored]


def from_sat(
    config: Mapping[str, Any], *, keys: Collection[str], where: Path, template: str = "chat"
) -> CogVLMConfig:
    """CogVLMConfig of a SAT checkpoint.

    Args:
        config: model_config.json. Keys that SAT leaves out when they have their default may be absent.
        keys: tensor names in the file; they must agree with the class on v1 or v2.
        where: the file that config was read from, for errors.
        template: config.json's template name.

    Raises:
        CheckpointError: unknown class, missing or contradictory fields.
    """
    generation = check_fields(config, where=where)
    _check_conv(config["model_class"], generation, has_conv=CONV in keys, where=where)
    two, eva = generation == 2, config["eva_args"]
    image_size, patch_size = _image_size(eva["image_size"], where), eva.get("patch_size") or 14
    vision = CogVLMVisionConfig(
        hidden_size=eva["hidden_size"],
        image_size=image_size,
        in_channels=eva.get("in_channels") or 3,
        intermediate_size=eva.get("inner_hidden_size") or 4 * eva["hidden_size"],
        layer_norm_eps=eva.get("layernorm_epsilon") or 1e-5,
        num_heads=eva["num_attention_heads"],
        num_hidden_layers=eva["num_layers"],
        num_positions=(image_size // patch_size) ** 2 + 1,
        patch_size=patch_size,
        downsample=two,
    )
    if (config.get("image_length") or vision.num_patches) != vision.num_patches:
        raise CheckpointError(
            f"{where}: image_length is {config['image_length']}, but eva_args image_size "
            f"{image_size} and patch_size {patch_size} make {vision.num_patches} tokens"
        )
    layers = config["num_layers"]
    bos, eos, pad = _special_ids(config, two=two)
    return CogVLMConfig(
        vocab_size=config["vocab_size"],
        hidden_size=config["hidden_size"],
        intermediate_size=config.get("inner_hidden_size") or 4 * config["hidden_size"],
        num_hidden_layers=layers,
        num_attention_heads=config["num_attention_heads"],
        num_multi_query_heads=config.get("num_multi_query_heads") or config["num_attention_heads"],
        num_vision_expert_layers=layers if two else min(_V1_EXPERT_LAYERS, layers),
        vision_expert_qkv_bias=two,
        max_position_embeddings=config.get("max_sequence_length") or _POSITIONS[generation],
        rms_norm_eps=config.get("layernorm_epsilon") or 1e-5,
        rope_theta=_ROPE_THETA[generation],
        template_version=template,
        bos_token_id=bos,
        eos_token_id=eos,
        pad_token_id=pad,
        vision_config=vision,
    )


def check_fields(config: Mapping[str, Any], *, where: Path) -> int:
    """1 or 2, the generation of CogVLM; what can be judged without weights has been checked then.

    Raises:
        CheckpointError: unsupported class, or all fields that are missing or not of the type they should be.
    """
    generation = _generation(str(config["model_class"]), where=where) if "model_class" in config else 0
    eva = config.get("eva_args", {})
    if not isinstance(eva, Mapping):
        raise CheckpointError(f"{where}: eva_args is {eva!r}, expected an object; restore it")
    missing = [name for name in ("model_class", *_REQUIRED, "eva_args") if name not in config]
    if "eva_args" in config:
        missing += [f"eva_args.{name}" for name in (*_REQUIRED_EVA, "image_size") if name not in eva]
    if missing:
        raise CheckpointError(f"{where} lacks {', '.join(missing)}; restore it from the training run")
    wrong = [
        *_wrong_fields(config, required=_REQUIRED, optional=_OPTIONAL),
        *(f"eva_args.{text}" for text in _wrong_fields(eva, required=_REQUIRED_EVA, optional=_OPTIONAL_EVA)),
    ]
    if wrong:
        raise CheckpointError(f"{where}: {'; '.join(wrong)}; restore it from the training run")
    for name, values in (("", config), ("eva_args.", eva)):
        hidden, heads = values["hidden_size"], values["num_attention_heads"]
        if hidden % heads:
            raise CheckpointError(
                f"{where}: {name}hidden_size is {hidden}, expected a multiple of num_attention_heads, {heads}"
            )
    if config["num_attention_heads"] % (config.get("num_multi_query_heads") or 1):
        raise CheckpointError(
            f"{where}: num_multi_query_heads is {config['num_multi_query_heads']}, expected a divisor of "
            f"num_attention_heads, {config['num_attention_heads']}"
        )
    _image_size(eva["image_size"], where)
    if config.get("layernorm_order", "pre") != "pre":
        raise CheckpointError(f"{where}: layernorm_order is {config['layernorm_order']!r}, expected 'pre'")
    return generation


def to_sat(config: CogVLMConfig, *, model_parallel_size: int = 1) -> dict[str, Any]:
    """model_config.json as SAT writes it: its fields, in its order, defaults left out.

    Raises:
        CheckpointError: a field is not of the type, or in the range, that it should be, or a value that SAT's
            code fixes (rotary base, layers with experts) is different here.
    """
    vision = vision_config(config)
    if wrong := wrong_fields(vars(config), vars(vision)):
        raise CheckpointError(f"config.json: {'; '.join(wrong)}; set what the weights were trained with")
    generation = 2 if vision.downsample else 1
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    fixed = {
        "rope_theta": (config.rope_theta, _ROPE_THETA[generation]),
        "num_vision_expert_layers": (
            config.num_vision_expert_layers,
            layers if generation == 2 else min(_V1_EXPERT_LAYERS, layers),
        ),
        "vision_expert_qkv_bias": (config.vision_expert_qkv_bias, generation == 2),
        "hidden_act": (config.hidden_act, "silu"),
        "tie_word_embeddings": (config.tie_word_embeddings, False),
        "vision_config.hidden_act": (vision.hidden_act, "gelu"),
        "vision_config.num_positions": (
            vision.num_positions,
            (vision.image_size // vision.patch_size) ** 2 + 1,
        ),
        # v1's expert projects to three times hidden_size, whatever num_multi_query_heads says.
        **({"num_multi_query_heads": (config.num_multi_query_heads, heads)} if generation == 1 else {}),
    }
    for name, (value, expected) in fixed.items():
        if value != expected:
            raise CheckpointError(
                f"config.json: {name} is {value}, but SAT's CogVLM v{generation} fixes {expected}"
            )
    stored = {hf: sat for sat, hf in TEMPLATE_NAMES.items()}.get(config.template_version)
    eps, kv_heads = config.rms_norm_eps, config.num_multi_query_heads
    return {
        "model_class": "CogVLM2Model" if generation == 2 else "CogVLMModel",
        **({"text_processor_version": stored} if stored else {}),
        "num_layers": layers,
        "hidden_size": config.hidden_size,
        "num_attention_heads": heads,
        "vocab_size": config.vocab_size,
        "layernorm_order": "pre",
        "model_parallel_size": model_parallel_size,
        "max_sequence_length": config.max_position_embeddings,
        "use_bias": False,
        "inner_hidden_size": config.intermediate_size,
        **({"layernorm_epsilon": eps} if eps != 1e-5 else {}),
        **({"num_multi_query_heads": kv_heads} if kv_heads != heads else {}),
        "image_length": vision.num_patches,
        "eva_args": {
            "model_class": "EVA2CLIPModel",
            "num_layers": vision.num_hidden_layers,
            "hidden_size": vision.hidden_size,
            "num_attention_heads": vision.num_heads,
            "vocab_size": 1,
            "layernorm_order": "post",
            "model_parallel_size": model_parallel_size,
            "max_sequence_length": vision.num_positions,
            "inner_hidden_size": vision.intermediate_size,
            "use_final_layernorm": False,
            **({"layernorm_epsilon": vision.layer_norm_eps} if vision.layer_norm_eps != 1e-5 else {}),
            "row_parallel_linear_final_bias": False,
            "image_size": [vision.image_size, vision.image_size],
            "pre_len": 1,
            "post_len": 0,
            "in_channels": vision.in_channels,
            "patch_size": vision.patch_size,
        },
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
    }


def _generation(model_class: str, *, where: Path) -> int:
    """1 or 2, from the class."""
    match = _CLASS.fullmatch(model_class)
    if match is None:
        kind = next((k for k in ("CogAgent", "Video") if k.lower() in model_class.lower()), "unknown class")
        raise CheckpointError(
            f"{where}: model_class {model_class!r} ({kind}) is not supported; only CogVLM v1 "
            "and v2 are (CogVLMModel, CogVLM2Model and their FineTuneTrain and FineTuneTest classes)"
        )
    return 2 if match["two"] else 1


def _check_conv(model_class: str, generation: int, *, has_conv: bool, where: Path) -> None:
    """The weights must confirm the class."""
    if has_conv != (generation == 2):
        raise CheckpointError(
            f"{where}: model_class {model_class!r} is CogVLM v{generation}, but the weights "
            f"{'have' if has_conv else 'lack'} {CONV!r}, which only v2 has; do the two files belong together?"
        )


def _wrong_fields(
    values: Mapping[str, Any], *, required: Sequence[str], optional: Sequence[str]
) -> Iterator[str]:
    """One text for each field that has not the type, or the range, that it should have."""
    for name in (*required, *optional):
        value = values.get(name)
        # SAT itself writes 0 for "no grouped heads".
        lowest = 1 if name in required else 0
        if (value is not None or name in required) and not (_is_int(value) and value >= lowest):
            yield f"{name} is {value!r}, expected a whole number of at least {lowest}"
        elif name == "num_layers" and _is_int(value) and value > _MOST_LAYERS:
            yield f"num_layers is {value}, expected at most {_MOST_LAYERS}"  # each gets rows in a table
    epsilon = values.get("layernorm_epsilon")
    if epsilon is not None and not (isinstance(epsilon, float) and epsilon > 0):
        yield f"layernorm_epsilon is {epsilon!r}, expected a number above 0"
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = values.get(name)
        several = value if name == "eos_token_id" and isinstance(value, list) and value else [value]
        if value is not None and not all(_is_int(one) and one >= 0 for one in several):
            yield f"{name} is {value!r}, expected a token id"


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _image_size(value: object, where: Path) -> int:
    sides = value if isinstance(value, list) and value else [value]
    side = sides[0]
    if not _is_int(side) or side <= 0 or any(other != side for other in sides):
        raise CheckpointError(
            f"{where}: eva_args.image_size is {value}, expected a square such as [490, 490]"
        )
    return side


def _special_ids(config: Mapping[str, Any], *, two: bool) -> tuple[int, int | list[int], int]:
    # CogVLM2's are Llama 3's, which a small vocabulary does not have.
    llama3 = two and config["vocab_size"] > 128_009
    bos, eos, pad = (128_000, [128_001, 128_009], 128_002) if llama3 else (1, 2, 0)
    ids = [config.get(name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")]
    return (
        bos if ids[0] is None else ids[0],
        eos if ids[1] is None else ids[1],
        pad if ids[2] is None else ids[2],
    )
