"""How much memory a model, its working tensors, and keys and values take. Arithmetic on shapes only.

No weights are read: the model is built on torch's meta device, which has shapes and no data.

A heads, K key-value heads, D head size, E tower width, H hidden, I inner width, L layers, Q = (A + 2K) D
width of the fused projection, R rows, S tokens of a prompt, V vocabulary.
"""

from __future__ import annotations

import math

import torch

from cogbatch.engine.products import ONEDNN_DTYPES
from cogbatch.engine.quantization import nf4_block, part_of
from cogbatch.engine.system_memory import Memory, machine_memory
from cogbatch.model.configuration_cogvlm import CogVLMConfig
from cogbatch.model.modeling_cogvlm import CogVLMForCausalLM
from cogbatch.types import Quantization, QuantizationType

MAX_ROWS = 64  # decoded together, unless an engine is told otherwise

# Of what is free, what is left alone. CUDA: the allocator's fragments, and what libraries take when first
# used, at least half a GiB. CPU: other processes grow, and Linux kills instead of refusing.
_KEPT_BACK = {"cuda": 0.1, "cpu": 0.5}
_LEAST_KEPT_ON_CUDA = 2**29

_NESTED_BLOCK = 256  # scales that share one, when scales are quantized too
_FLOAT32 = 4
_BFLOAT16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "avx_ne_convert", "bf16")  # of x86, the last of Arm
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
    quantization: Quantization | QuantizationType | None = None,
) -> int:
    """All weights, as they lie on the device.

    Args:
        dtype: of what is not quantized. quantization: a type alone is for all parts.

    Raises:
        ValueError: nf4 of a layer whose width it cannot divide into blocks.
    """
    if isinstance(quantization, str):
        quantization = Quantization(quantization)
    with torch.device("meta"):
        model = CogVLMForCausalLM(config)
    reduced = _int8_bytes if quantization and quantization.type == "int8" else _nf4_bytes
    parts = quantization.parts if quantization else ()
    return sum(
        reduced(weight) if part_of(name) in parts else weight.numel() * dtype.itemsize
        for name, weight in model.named_parameters()
    )


def _int8_bytes(weight: torch.Tensor) -> int:
    """A byte each and a float32 scale per output row (bitsandbytes Linear8bitLt: CB and SCB)."""
    return weight.numel() + weight.shape[0] * _FLOAT32


def _nf4_bytes(weight: torch.Tensor) -> int:
    """Two to the byte, a byte of scale per block, a float32 per 256 of those, their mean, and the tables of
    16 and 256 float32 that decode both (bitsandbytes Linear4bit, compress_statistics)."""
    blocks = weight.numel() // nf4_block(weight.shape[1])
    scales = blocks + math.ceil(blocks / _NESTED_BLOCK) * _FLOAT32
    return math.ceil(weight.numel() / 2) + scales + (1 + 16 + 256) * _FLOAT32


def activation_bytes(
    config: CogVLMConfig,
    dtype: torch.dtype,
    *,
    rows: int,
    prompt_tokens: int,
    quantization: Quantization | None = None,
) -> int:
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
    unpacked = 0 if quantization is None else _unpacked_bytes(config, dtype, quantization, prompt_tokens)
    return _table_bytes(config, dtype) + unpacked + int(most * _SCRATCH)


def float32_sum_bytes(config: CogVLMConfig, dtype: torch.dtype, *, prompt_tokens: int) -> int:
    """What a CPU with AVX-512 but without bfloat16 instructions holds beside that: oneDNN keeps the sums of a
    product in float32 until it is done (seen). 0 for other dtypes and processors.

    Args:
        prompt_tokens: the longest prompt, its image included.
    """
    has_instructions = any(map(torch.cpu.get_capabilities().get, _BFLOAT16_INSTRUCTIONS))
    if dtype is not torch.bfloat16 or dtype not in ONEDNN_DTYPES or has_instructions:
        return 0
    vision = config.vision_config
    grouped = config.num_multi_query_heads * config.head_dim
    widest = max(config.hidden_size + 2 * grouped, config.intermediate_size)
    tower = max(3 * vision.hidden_size, vision.intermediate_size)
    patches = (vision.image_size // vision.patch_size) ** 2 + 1
    tokens = max(prompt_tokens, image_tokens(config))
    return _FLOAT32 * max(tokens * widest, patches * tower, vision.num_patches * config.intermediate_size)


def _unpacked_bytes(
    config: CogVLMConfig, dtype: torch.dtype, quantization: Quantization, prompt_tokens: int
) -> int:
    """What quantized layers hold while they multiply, the widest of all."""
    vision = config.vision_config
    if quantization.type == "nf4":  # the weight in full, layer by layer
        tower = vision.hidden_size * vision.intermediate_size
        return max(config.hidden_size * config.intermediate_size, tower) * dtype.itemsize
    # int8: sums in 32 bits, scaled in float32, and once more: 12.4 bytes a number were seen on a CPU.
    tokens = max(prompt_tokens, image_tokens(config))
    patches = (vision.image_size // vision.patch_size) ** 2 + 1
    return 13 * max(tokens * config.intermediate_size, patches * vision.intermediate_size)


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
    # Kernels for 16 bits copy the image, and its channels padded to 16, both twice (seen on a CPU).
    patches = 2 * (pixels + 16 * vision.image_size**2) if dtype.itemsize == 2 else 0
    return (pixels + max(layer, projection, patches)) * dtype.itemsize


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


def cached_tokens_that_fit(
    model: CogVLMForCausalLM, *, max_rows: int, share: float, quantization: Quantization | None = None
) -> int:
    """Tokens of keys and values for which a loaded model leaves room; arguments as of kv_budget_bytes."""
    budget_bytes = kv_budget_bytes(
        model.config,
        model.dtype,
        device=model.device,
        max_rows=max_rows,
        share=share,
        quantization=quantization,
    )
    return budget_bytes // token_bytes(model.config, model.dtype)


def kv_budget_bytes(
    config: CogVLMConfig,
    dtype: torch.dtype,
    *,
    device: torch.device,
    max_rows: int = MAX_ROWS,
    share: float = 1.0,
    quantization: Quantization | None = None,
) -> int:
    """What keys and values may take on a device that holds the weights already; never negative.

    Args:
        max_rows: decoded together at most. share: of the device that is this process's.
    """
    working = activation_bytes(
        config,
        dtype,
        rows=max_rows,
        prompt_tokens=config.max_position_embeddings,
        quantization=quantization,
    )
    if device.type == "cpu":
        working += float32_sum_bytes(config, dtype, prompt_tokens=config.max_position_embeddings)
    return max(0, usable_bytes(device_memory(device).left_bytes(share), device.type) - working)


def usable_bytes(left_bytes: int, device_type: str) -> int:
    """What may be taken of what is left of a device of this type (cpu or cuda)."""
    kept = int(left_bytes * _KEPT_BACK[device_type])
    return left_bytes - (max(kept, _LEAST_KEPT_ON_CUDA) if device_type == "cuda" else kept)


def device_memory(device: torch.device) -> Memory:
    """Of the card, or of the machine. CUDA: never run, no GPU at hand."""
    if device.type != "cuda":
        return machine_memory()
    free, total = torch.cuda.mem_get_info(device)
    allocated = torch.cuda.memory_allocated(device)
    # torch keeps what was freed: it can take that again.
    return Memory(free + torch.cuda.memory_reserved(device) - allocated, total, allocated)
