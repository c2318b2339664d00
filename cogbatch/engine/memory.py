"""How much memory a model, its working tensors, and keys and values take. Arithmetic on shapes only.

No weights are read: the model is built on torch's meta device, which has shapes and no data.

A heads, K key-value heads, D head size, E tower width, H hidden, I inner width, L layers, Q = (A + 2K) D
width of the fused projection, R rows, S tokens of a prompt, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch

from cogbatch.engine.quantization import nf4_block, part_of
from cogbatch.engine.system_memory import available_bytes
from cogbatch.model.configuration_cogvlm import CogVLMConfig
from cogbatch.model.modeling_cogvlm import CogVLMForCausalLM

# Of what is free, what is left alone. CUDA: the allocator's fragments, and what libraries take when first
# used, at least half a GiB. CPU: other processes grow, and Linux kills instead of refusing.
_KEPT_BACK = {"cuda": 0.1, "cpu": 0.5}
_LEAST_KEPT_ON_CUDA = 2**29

_NESTED_BLOCK = 256  # scales that share one, when scales are quantized too
_FLOAT32 = 4
_SCRATCH = 1.1  # what matrix products and attention take for themselves; up to 2 % was seen on a CPU


def token_bytes(config: CogVLMConfig, dtype: torch.dtype) -> int:
    """Keys and values of one token: 2 * L * K * D numbers."""
    return 2 * config.num_hidden_layers * config.num_multi_query_heads * config.head_dim * dtype.itemsize


def image_tokens(config: CogVLMConfig) -> int:
    """Tokens that all prompts about an image share: bos, boi, patches and eoi."""
    return 1 + config.num_image_tokens


def weight_bytes(
    config: CogVLMConfig,
    dtype: torch.dtype,
    *,
    quantization: str | None = None,
    parts: Collection[str] = ("language", "vision", "vit"),
) -> int:
    """All weights, as they lie on the device.

    Args:
        dtype: of what is not quantized. quantization: int8, nf4 or None. parts: that it is applied to.

    Raises:
        ValueError: unknown quantization.
    """
    if quantization not in (None, "int8", "nf4"):
        raise ValueError(f"quantization is {quantization!r}: expected int8, nf4 or null")
    with torch.device("meta"):
        model = CogVLMForCausalLM(config)
    total = 0
    for name, weight in model.named_parameters():
        if quantization is not None and part_of(name) in parts:
            total += _int8_bytes(weight) if quantization == "int8" else _nf4_bytes(weight)
        else:
            total += weight.numel() * dtype.itemsize
    return total


def _int8_bytes(weight: torch.Tensor) -> int:
    """A byte each and a float32 scale per output row (bitsandbytes Linear8bitLt: CB and SCB)."""
    return weight.numel() + weight.shape[0] * _FLOAT32


def _nf4_bytes(weight: torch.Tensor) -> int:
    """Two to the byte, a byte of scale per block, a float32 per 256 of those, their mean, and the tables of
    16 and 256 float32 that decode both (bitsandbytes Linear4bit, compress_statistics)."""
    blocks = weight.numel() // nf4_block(weight.shape[1])
    scales = blocks + math.ceil(blocks / _NESTED_BLOCK) * _FLOAT32
    return math.ceil(weight.numel() / 2) + scales + (1 + 16 + 256) * _FLOAT32


def activation_bytes(config: CogVLMConfig, dtype: torch.dtype, *, rows: int, prompt_tokens: int) -> int:
    """An upper bound of what a prefill or a decode step holds beside weights, keys and values.

    Counted from the code that runs: whatever has a name, or is an argument of a call that has not returned.
    docs/memory.md compares it with measured peaks.

    Args:
        rows: decoded together. prompt_tokens: the longest prompt, its image included.
    """
    image = image_tokens(config)
    most = max(
        _tower_bytes(config, dtype),
        _prefill_bytes(config, dtype, tokens=image, of_image=True),
        _prefill_bytes(config, dtype, tokens=prompt_tokens),
        _merge_bytes(config, dtype, tokens=max(prompt_tokens - image, 0)),
        _decode_bytes(config, dtype, rows=rows),
    )
    return _table_bytes(config, dtype) + int(most * _SCRATCH)


def _table_bytes(config: CogVLMConfig, dtype: torch.dtype) -> int:
    """The runner's rotary tables, sine and cosine."""
    return 2 * config.max_position_embeddings * config.head_dim * dtype.itemsize


def _tower_bytes(config: CogVLMConfig, dtype: torch.dtype) -> int:
    """One image through the vision tower, then its projection."""
    vision = config.vision_config
    pixels = vision.in_channels * vision.image_size**2
    tokens = (vision.image_size // vision.patch_size) ** 2 + 1
    # The tower's input, the layer's, and its residual; then queries, keys, values, context, the same with
    # heads last, and output; or both sides of the activation.
    layer = tokens * (3 * vision.hidden_size + max(6 * vision.hidden_size, 2 * vision.intermediate_size))
    # The tower's output; the projection's input, gate, up and their product.
    projected = config.hidden_size + 3 * config.intermediate_size
    projection = tokens * vision.hidden_size + vision.num_patches * projected
    return (pixels + max(layer, projection)) * dtype.itemsize


def _prefill_bytes(config: CogVLMConfig, dtype: torch.dtype, *, tokens: int, of_image: bool = False) -> int:
    """S tokens through a layer; attention is fused and makes no matrix of scores.

    of_image: the tower's output is there too.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    grouped = config.num_multi_query_heads * config.head_dim
    qkv = hidden + 2 * grouped
    # The embeddings, the layer's input and the norm of it; then the projection, twice while the experts' rows
    # are put together; or with the queries being turned; or with queries and keys turned, keys and values
    # repeated for the heads of a group, context and the same with heads last.
    repeated = 2 * hidden if grouped < hidden else 0
    attention = 3 * hidden + max(2 * qkv, qkv + 3 * hidden, qkv + grouped + repeated + 3 * hidden)
    # The same with the residual; activation of the gate, up, and their product.
    mlp = 4 * hidden + 3 * inner
    # Three steps in float32, whatever the dtype.
    norm = 3 * hidden * dtype.itemsize + 3 * hidden * _FLOAT32
    # Sines and cosines; for an image the features that the embeddings were put together from.
    beside = 2 * config.head_dim + (hidden if of_image else 0)
    return tokens * (beside * dtype.itemsize + max(max(attention, mlp) * dtype.itemsize, norm))


def _merge_bytes(config: CogVLMConfig, dtype: torch.dtype, *, tokens: int) -> int:
    """S tokens behind an image: attention to it and to themselves, put together in float32."""
    hidden, grouped = config.hidden_size, config.num_multi_query_heads * config.head_dim
    # As in a prefill, up to queries and keys turned; both contexts, then in float32, and their mean.
    qkv = hidden + 2 * grouped
    repeated = 2 * hidden if grouped < hidden else 0
    attention = 3 * hidden + qkv + hidden + grouped + repeated + 2 * hidden
    return tokens * (attention * dtype.itemsize + 3 * hidden * _FLOAT32)


def _decode_bytes(config: CogVLMConfig, dtype: torch.dtype, *, rows: int) -> int:
    """R rows, one token each: the layers are small, the vocabulary is not.

    Ten numbers of 4 bytes for every row and token, if all rows are one item's and under the costliest warper
    (typical): log-probabilities, warped, normalised, distances, order (8 bytes), gathered, cumulated twice,
    noise. Most settings need half of that.
    """
    layer = 4 * config.hidden_size + 3 * config.intermediate_size
    return rows * (layer * dtype.itemsize + config.vocab_size * (10 * _FLOAT32 + dtype.itemsize))


def kv_budget_bytes(
    config: CogVLMConfig,
    dtype: torch.dtype,
    *,
    device: torch.device,
    max_rows: int,
    share: float = 1.0,
) -> int:
    """What keys and values may take on a device that holds the weights already; never negative.

    Args:
        max_rows: decoded together at most. share: of the node's memory that is this process's, on a CPU.
    """
    free = free_bytes(device) * (1.0 if device.type == "cuda" else share)
    working = activation_bytes(config, dtype, rows=max_rows, prompt_tokens=config.max_position_embeddings)
    return max(0, usable_bytes(int(free), device.type) - working)


def free_bytes(device: torch.device) -> int:
    """Memory that can be taken now. CUDA: never run, no GPU at hand."""
    if device.type != "cuda":
        return available_bytes()
    free, _ = torch.cuda.mem_get_info(device)
    # torch keeps what was freed: it can take that again.
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def usable_bytes(free: int, device_type: str) -> int:
    """What is left of free memory once some is kept back."""
    kept = int(free * _KEPT_BACK[device_type])
    if device_type == "cuda":
        kept = max(kept, _LEAST_KEPT_ON_CUDA)
    return free - kept


@dataclass(frozen=True)
class Footprint:
    """What a model and one of its requests take.

    Args:
        token_bytes: keys and values of a token. image_tokens: shared by all prompts about an image.
        text_tokens: of a prompt behind its image, of all prompts of a request together. rows: of a request.
        max_new_tokens: of a row. working_bytes: beside weights, keys and values.
    """

    weight_bytes: int
    working_bytes: int
    token_bytes: int
    image_tokens: int
    text_tokens: int
    rows: int
    max_new_tokens: int

    @property
    def item_bytes(self) -> int:
        """Keys and values of a request: its image and prompts once, new tokens for every row."""
        own = self.rows * self.max_new_tokens
        return self.token_bytes * (self.image_tokens + self.text_tokens + own)

    @property
    def expanded_item_bytes(self) -> int:
        """The same in a cache that gives every row its own copy of the prompt."""
        return self.token_bytes * self.rows * (self.image_tokens + self.text_tokens + self.max_new_tokens)
