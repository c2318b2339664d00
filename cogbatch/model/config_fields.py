"""Which fields of a CogVLM configuration are not what they should be. Does not travel.

transformers takes a value of any type, and the error comes later, or never.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from typing import Any

from cogbatch.model.configuration_cogvlm import CogVLMConfig, CogVLMVisionConfig

# Smallest and largest: far above any model, and low enough that nothing is laid out for a typing error.
_SIZE, _MANY, _LENGTH = (1, 1 << 24), (1, 10_000), (1, (1 << 31) - 1)
_TOKEN_ID = (0, (1 << 31) - 1)
_WHOLE = {
    "vocab_size": _SIZE,
    "hidden_size": _SIZE,
    "intermediate_size": _SIZE,
    "num_hidden_layers": _MANY,
    "num_attention_heads": _MANY,
    # 0: as many as there are.
    "num_multi_query_heads": (0, 10_000),
    "num_vision_expert_layers": (0, 10_000),
    "max_position_embeddings": _LENGTH,
    "bos_token_id": _TOKEN_ID,
    "eos_token_id": _TOKEN_ID,
    "pad_token_id": _TOKEN_ID,
}
_VISION_WHOLE = {
    "hidden_size": _SIZE,
    "image_size": _MANY,
    "in_channels": _MANY,
    "intermediate_size": _SIZE,
    "num_heads": _MANY,
    "num_hidden_layers": _MANY,
    "num_positions": _SIZE,
    "patch_size": _MANY,
}
_ABOVE_0 = ("rms_norm_eps", "rope_theta", "layer_norm_eps")
_KINDS = {
    "hidden_act": (str, "a string"),
    "template_version": (str, "a string"),
    "rope_dtype": (str, "a string"),
    "vision_expert_qkv_bias": (bool, "true or false"),
    "tie_word_embeddings": (bool, "true or false"),
    "downsample": (bool, "true or false"),
}


def wrong_fields(values: Mapping[str, Any], vision: Mapping[str, Any]) -> list[str]:
    """One text for each field of config.json and of its vision_config that is wrong; absent ones are not."""
    wrong = [*_wrong(values, _WHOLE), *(f"vision_config.{text}" for text in _wrong(vision, _VISION_WHOLE))]
    if wrong:
        return wrong
    hidden, heads, kv_heads = (
        values.get(name, getattr(CogVLMConfig, name))
        for name in ("hidden_size", "num_attention_heads", "num_multi_query_heads")
    )
    if hidden % heads:
        wrong.append(f"hidden_size is {hidden}, expected a multiple of num_attention_heads, {heads}")
    if heads % (kv_heads or heads):
        wrong.append(
            f"num_multi_query_heads is {kv_heads}, expected a divisor of num_attention_heads, {heads}"
        )
    hidden, heads = (vision.get(n, getattr(CogVLMVisionConfig, n)) for n in ("hidden_size", "num_heads"))
    if hidden % heads:
        wrong.append(f"vision_config.hidden_size is {hidden}, expected a multiple of num_heads, {heads}")
    return wrong


def _wrong(values: Mapping[str, Any], whole: Mapping[str, tuple[int, int]]) -> Iterator[str]:
    for name, value in values.items():
        expected = ""
        if name in whole:
            lowest, highest = whole[name]
            several = value if name == "eos_token_id" and isinstance(value, list) and value else [value]
            if not all(type(one) is int and lowest <= one <= highest for one in several):
                expected = f"a whole number from {lowest} to {highest}"
        elif name in _ABOVE_0:
            if not _is_number(value) or value <= 0:
                expected = "a number above 0"
        elif name in _KINDS:
            kind, expected = _KINDS[name]
            expected = "" if isinstance(value, kind) else expected
        elif name == "rope_inv_freq" and not (
            value is None or (isinstance(value, list) and all(map(_is_number, value)))
        ):
            expected = "null or a list of numbers"
        if expected:
            yield f"{name} is {reprlib.repr(value)}, expected {expected}"


def _is_number(value: object) -> bool:
    """One that a 32-bit float can hold; NaN is not."""
    return type(value) in (int, float) and -3e38 < value < 3e38  # type: ignore[operator]
