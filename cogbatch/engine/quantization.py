"""Which weights a quantized model keeps in fewer bits. Importing this does not import bitsandbytes."""

from __future__ import annotations

import re

# Only the large matrices of the repeated layers, and only their weights. Kept as they are: norms, biases,
# embeddings, boi and eoi, convolutions, lm_head, and the projection between vision tower and language model
# (under 1 % of the weights, and every image passes through it).
_NAMES = {
    "language": re.compile(
        r"model\.layers\.\d+\.(?:self_attn\.language_expert_(?:query_key_value|dense)"
        r"|mlp\.language_mlp\.(?:gate|up|down)_proj)\.weight"
    ),
    "vision": re.compile(
        r"model\.layers\.\d+\.(?:self_attn\.vision_expert_(?:query_key_value|dense)"
        r"|mlp\.vision_mlp\.(?:gate|up|down)_proj)\.weight"
    ),
    "vit": re.compile(
        r"model\.vision\.transformer\.layers\.\d+\.(?:attention\.(?:query_key_value|dense)"
        r"|mlp\.fc[12])\.weight"
    ),
}


def part_of(tensor_name: str) -> str | None:
    """The part that a tensor of a model directory belongs to: language, vision or vit; None is always kept.

    language, vision: the experts of the language model's layers. vit: the layers of the vision tower.
    """
    for part, pattern in _NAMES.items():
        if pattern.fullmatch(tensor_name):
            return part
    return None
