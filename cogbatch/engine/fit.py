"""What one request takes, and how many fit on a device at a time. Arithmetic; the cards are data."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cogbatch.decoding.parts import parts
from cogbatch.engine.memory import (
    MAX_ROWS,
    activation_bytes,
    float32_sum_bytes,
    image_tokens,
    token_bytes,
    usable_bytes,
    weight_bytes,
)
from cogbatch.model.configuration_cogvlm import CogVLMConfig
from cogbatch.types import GenerationParams, Quantization

# What the driver keeps, and what a process takes before its first tensor: torch reports up to half a GiB less
# than nvidia-smi, and context and kernels need about as much. From reports of others: no GPU was at hand.
_CONTEXT_BYTES = 2**30


@dataclass(frozen=True)
class Card:
    """A class of cards by the memory they are sold with. mib: what nvidia-smi shows of the one with least."""

    name: str
    mib: int
    examples: str


CARDS = (
    Card("16 GB", 15_360, "T4, V100 16 GB, RTX 4080"),
    Card("24 GB", 23_034, "L4, A10, RTX 4090"),
    Card("32 GB", 32_510, "V100 32 GB, RTX 5090"),
    Card("40 GB", 40_536, "A100 40 GB"),
    Card("48 GB", 46_068, "L40S, A40, RTX A6000"),
    Card("80 GB", 81_251, "A100 80 GB, H100"),
    Card("96 GB", 97_871, "H20, GH200, RTX PRO 6000"),
    Card("141 GB", 143_771, "H200"),
    Card("192 GB", 183_359, "B200"),
)


@dataclass(frozen=True)
class Footprint:
    """What a model and one of its requests take.

    Args:
        working_bytes: beside weights, keys and values. token_bytes: keys and values of one token.
        image_tokens: that all prompts about an image share; 0 without one. text_tokens: of the request's
            prompts behind it. rows: decoded together. new_tokens: of all rows. expanded_tokens: of a cache in
            which every row has its own copy of image and prompt. sum_bytes: more working memory on this
            machine's CPU.
    """

    weight_bytes: int
    working_bytes: int
    token_bytes: int
    image_tokens: int
    text_tokens: int
    rows: int
    new_tokens: int
    expanded_tokens: int
    sum_bytes: int = 0

    @property
    def item_bytes(self) -> int:
        """Keys and values of a request: image and prompts once, and the new tokens of its rows."""
        return self.token_bytes * (self.image_tokens + self.text_tokens + self.new_tokens)

    @property
    def expanded_item_bytes(self) -> int:
        """The same in an expanded cache."""
        return self.token_bytes * self.expanded_tokens


@dataclass(frozen=True)
class Fit:
    """How many requests a device decodes at a time.

    Args:
        items: 0: not even one fits. problem: why, in one phrase.
    """

    device: str
    memory_bytes: int
    items: int
    problem: str | None = None


def footprint(
    config: CogVLMConfig,
    dtype: torch.dtype,
    params: GenerationParams,
    *,
    quantization: Quantization | None = None,
    text_tokens: int,
    has_image: bool = True,
) -> Footprint:
    """What the weights and a request with these parameters take.

    Args:
        text_tokens: of a prompt behind its image, template included.
    """
    image = image_tokens(config) if has_image else 0
    runs = [(part.strategy.num_rows(part.params), part.params.max_new_tokens) for part in parts(params)]
    room = max(1, config.max_position_embeddings - image - text_tokens)
    runs = [(rows, min(new, room)) for rows, new in runs]
    return Footprint(
        weight_bytes=weight_bytes(config, dtype, quantization=quantization),
        working_bytes=activation_bytes(
            config,
            dtype,
            rows=MAX_ROWS,
            prompt_tokens=config.max_position_embeddings,
            quantization=quantization,
        ),
        token_bytes=token_bytes(config, dtype),
        image_tokens=image,
        text_tokens=text_tokens * len(runs),
        rows=sum(rows for rows, _ in runs),
        new_tokens=sum(rows * new for rows, new in runs),
        expanded_tokens=sum(rows * (image + text_tokens + new) for rows, new in runs),
        sum_bytes=float32_sum_bytes(config, dtype, prompt_tokens=config.max_position_embeddings),
    )


def fit(need: Footprint, *, device: str, memory_bytes: int, left_bytes: int, device_type: str) -> Fit:
    """How many such requests a device decodes at a time.

    Args:
        device: what to call it. memory_bytes: that it has. left_bytes: of it, before the weights are there.
        device_type: cpu or cuda.
    """
    left = left_bytes - need.weight_bytes
    if left < 0:
        return Fit(device, memory_bytes, 0, f"the weights take {gigabytes(need.weight_bytes)}")
    working = need.working_bytes + (need.sum_bytes if device_type == "cpu" else 0)
    budget = max(0, usable_bytes(left, device_type) - working)
    if budget < need.item_bytes:
        return Fit(
            device,
            memory_bytes,
            0,
            f"one item needs {gigabytes(need.item_bytes)} of keys and values, beside the weights and working"
            f" memory {gigabytes(budget)} are left",
        )
    return Fit(device, memory_bytes, min(budget // need.item_bytes, max(1, MAX_ROWS // need.rows)))


def fit_cards(need: Footprint) -> tuple[Fit, ...]:
    """The same for every class of cards, empty otherwise."""
    return tuple(
        fit(
            need,
            device=card.name,
            memory_bytes=card.mib * 2**20,
            left_bytes=card.mib * 2**20 - _CONTEXT_BYTES,
            device_type="cuda",
        )
        for card in CARDS
    )


def gigabytes(size_bytes: int) -> str:
    """In powers of 1,000, as sizes of weights and cards are given."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6)):
        if size_bytes >= scale / 10:
            return f"{size_bytes / scale:.1f} {unit}"
    return f"{size_bytes / 1000:.1f} kB"
