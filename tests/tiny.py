"""Small stand-ins that tests and benchmarks share: a byte tokenizer and random models."""

from __future__ import annotations

from typing import Any

import torch

from cogbatch.model.configuration_cogvlm import CogVLMConfig
from cogbatch.model.modeling_cogvlm import CogVLMForCausalLM


class ByteTokenizer:
    """id = 3 + UTF-8 byte, as in the golden fixtures; pad 0, bos 1, eos 2."""

    bos_token_id, eos_token_id, pad_token_id = 1, 2, 0

    def __len__(self) -> int:
        return 259

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        del add_special_tokens
        return [3 + byte for byte in text.encode()]

    def decode(self, ids: list[int], *, skip_special_tokens: bool = True) -> str:
        del skip_special_tokens
        return bytes(token - 3 for token in ids if 3 <= token < 259).decode(errors="replace")


def tiny_config(*, v2: bool = False, **changes: Any) -> CogVLMConfig:
    """56-px images: 16 vision tokens in v1, 4 in v2."""
    values: dict[str, Any] = {
        "vocab_size": 300,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_multi_query_heads": 2 if v2 else 4,
        "vision_expert_qkv_bias": v2,
        "rope_theta": 500000.0 if v2 else 10000.0,
        "max_position_embeddings": 512,
        "initializer_range": 0.15,  # logits far enough from uniform to tell mistakes
        "template_version": "base",
        "vision_config": {
            "image_size": 56,
            "num_positions": 17,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "num_hidden_layers": 2,
            "downsample": v2,
        },
    }
    return CogVLMConfig(**{**values, **changes})


def tiny_model(
    *, v2: bool = False, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any
) -> CogVLMForCausalLM:
    """Random weights, fixed by the seed."""
    torch.manual_seed(seed)
    return CogVLMForCausalLM(tiny_config(v2=v2, **changes)).eval().to(dtype)
