"""The work that a batch of items cannot do without, stage by stage, and how fast this machine can do it.

Operations are those of matrix products, 2 for a multiplication and an addition. Bytes are what has to move
at least: weights once a pass, inputs and outputs of linear layers, keys, values, queries and contexts of
attention (scores stay on the chip), log-probabilities and noise of choosing. Norms, rotations, activations
and residuals count nothing, so nobody reaches 100 %.

The ideal time of a stage is that of its products alone, run in the model's order, each on weights (or keys,
or values) of its own, as cold as in the model; or its bytes at the rate of a copy, if that is longer.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from cogbatch.model.configuration_cogvlm import CogVLMConfig

_FLOAT32 = 4
_BLOCK = 128  # queries of a prompt that attend together: their scores stay in the cache
_MEASURE_S = 0.1  # at least so long


@dataclass(frozen=True)
class Product:
    """[batch, rows, inner] x [batch, inner, columns]. batch 0: a linear layer.

    numbers: that have to move, of any of the three. by_columns: the right side lies as [columns, inner], as
    weights and keys do.
    """

    rows: int
    inner: int
    columns: int
    numbers: int
    batch: int = 0
    by_columns: bool = True

    @property
    def operations(self) -> int:
        return 2 * max(self.batch, 1) * self.rows * self.inner * self.columns

    def prepared(self, scratch: dict[tuple[int, ...], torch.Tensor]) -> Callable[[], object]:
        """Runs it, every time on the same right side, its own; the others are whose shape they have."""
        lead = (self.batch,) if self.batch else ()
        shape = (self.columns, self.inner) if self.by_columns else (self.inner, self.columns)
        right = torch.full((*lead, *shape), 0.01)
        right = right.transpose(-1, -2) if self.by_columns else right
        left, out = (
            scratch.setdefault((side, *lead, self.rows, width), torch.full((*lead, self.rows, width), 0.01))
            for side, width in enumerate((self.inner, self.columns))
        )
        multiply = torch.bmm if self.batch else torch.mm
        return lambda: multiply(left, right, out=out)


@dataclass(frozen=True)
class Stage:
    """Products in the order of one pass.

    Args:
        name: "part" or "part: what". passes: how often. further_bytes: of a pass, beside the products'.
    """

    name: str
    products: tuple[Product, ...]
    passes: int
    further_bytes: int = 0

    @property
    def part(self) -> str:
        return self.name.split(":")[0]

    @property
    def operations(self) -> int:
        return self.passes * sum(product.operations for product in self.products)

    @property
    def bytes(self) -> int:
        numbers = sum(product.numbers for product in self.products)
        return self.passes * (numbers * _FLOAT32 + self.further_bytes)

    def pass_seconds(self) -> float:
        """Median of one pass, measured."""
        scratch: dict[tuple[int, ...], torch.Tensor] = {}
        runs = [product.prepared(scratch) for product in self.products]
        return _median_seconds(lambda: [run() for run in runs]) if runs else 0.0

    def ideal_s(self, products_s: float, copy_bytes_per_s: float) -> float:
        """products_s: of all passes."""
        return max(products_s, self.bytes / copy_bytes_per_s)


@dataclass(frozen=True)
class Work:
    """A batch of items with an image each. text_tokens: behind the image, of each item."""

    config: CogVLMConfig
    text_tokens: tuple[int, ...]
    k: int
    new_tokens: int

    @property
    def image_tokens(self) -> int:
        """bos, boi, patches, eoi."""
        return 1 + self.config.num_image_tokens

    @property
    def step_bytes(self) -> int:
        """What a decode step reads: language weights, keys and values."""
        decode = [stage for stage in stages(self) if stage.part == "decode"]
        return sum(stage.bytes // stage.passes for stage in decode)


def stages(work: Work) -> list[Stage]:
    """All stages of the work, in order."""
    config, items = work.config, len(work.text_tokens)
    rows, steps, vocab = items * work.k, work.new_tokens - 1, config.vocab_size
    layers, kv_heads, size = config.num_hidden_layers, config.num_multi_query_heads, config.head_dim
    heads = config.num_attention_heads
    prefixes = [work.image_tokens + text for text in work.text_tokens]
    found = [
        Stage("vision", tuple(_vision(config)), items),
        Stage("image", tuple(_image(config, work.image_tokens)) * layers, items),
    ]
    for text in work.text_tokens:
        layer = [
            *_linears(config, text),
            *_attention(heads, text, work.image_tokens, size),
            *_causal(heads, text, size),
        ]
        found.append(
            Stage(f"text: {text} tokens", (*layer * layers, _linear(1, config.hidden_size, vocab)), 1)
        )
    # The first token is the prefill's, so steps are one fewer, and a step sees new_tokens / 2 on average.
    shared = [
        product
        for prefix in prefixes
        for product in _attention(kv_heads, work.k * heads // kv_heads, prefix, size)
    ]
    own = _attention(rows * kv_heads, heads // kv_heads, round(work.new_tokens / 2), size)
    # Log-probabilities and noise, written and read.
    choosing = 4 * rows * vocab * _FLOAT32
    return [
        *found,
        Stage("decode: linear layers", tuple(_linears(config, rows)) * layers, steps),
        Stage("decode: attention over prefixes", tuple(shared) * layers, steps),
        Stage("decode: attention over suffixes", tuple(own) * layers, steps),
        Stage("decode: head", (_linear(rows, config.hidden_size, vocab),), steps),
        Stage("choosing", (), work.new_tokens, choosing),
    ]


def _linear(rows: int, inner: int, columns: int) -> Product:
    return Product(rows, inner, columns, numbers=inner * columns + rows * (inner + columns))


def _linears(config: CogVLMConfig, rows: int) -> list[Product]:
    """One expert of a layer."""
    hidden, inner = config.hidden_size, config.intermediate_size
    fused = hidden + 2 * config.num_multi_query_heads * config.head_dim
    outward = _linear(rows, hidden, inner)
    return [
        _linear(rows, hidden, fused),
        _linear(rows, hidden, hidden),
        outward,
        outward,
        _linear(rows, inner, hidden),
    ]


def _attention(
    heads: int, queries: int, keys: int, size: int, *, new_keys: int | None = None
) -> list[Product]:
    """Scores and context. new_keys: those that have to be read; the others were, a moment ago."""
    numbers = heads * size * (queries + (keys if new_keys is None else new_keys))
    scores = Product(queries, size, keys, numbers, heads)
    return [scores, Product(queries, keys, size, numbers, heads, by_columns=False)]


def _causal(heads: int, tokens: int, size: int) -> Iterator[Product]:
    """Tokens over themselves, block by block, later keys left out."""
    for start in range(0, tokens, _BLOCK):
        end = min(start + _BLOCK, tokens)
        yield from _attention(heads, end - start, end, size, new_keys=end - start)


def _image(config: CogVLMConfig, tokens: int) -> Iterator[Product]:
    """One layer over bos and image: bos and eoi are the language expert's."""
    yield from _linears(config, tokens - 2)
    yield from _linears(config, 2)
    yield from _causal(config.num_attention_heads, tokens, config.head_dim)


def _vision(config: CogVLMConfig) -> Iterator[Product]:
    """Tower and projection. Only v1's: no downsampling."""
    vision = config.vision_config
    assert not vision.downsample
    patches, wide, inner = vision.num_patches, vision.hidden_size, vision.intermediate_size
    tokens = patches + 1  # cls
    yield _linear(patches, vision.in_channels * vision.patch_size**2, wide)
    for _ in range(vision.num_hidden_layers):
        yield _linear(tokens, wide, 3 * wide)
        for start in range(0, tokens, _BLOCK):
            queries = min(_BLOCK, tokens - start)
            yield from _attention(
                vision.num_heads, queries, tokens, wide // vision.num_heads, new_keys=queries
            )
        yield _linear(tokens, wide, wide)
        yield _linear(tokens, wide, inner)
        yield _linear(tokens, inner, wide)
    hidden, gated = config.hidden_size, config.intermediate_size
    yield _linear(patches, wide, hidden)
    yield _linear(patches, hidden, gated)
    yield _linear(patches, hidden, gated)
    yield _linear(patches, gated, hidden)


def copy_bytes_per_s(size_bytes: int) -> float:
    """Bytes read and written in a second by a copy between two tensors of size_bytes together."""
    source = torch.full((max(1, size_bytes // 2 // _FLOAT32),), 0.01)
    target = torch.full_like(source, 0.02)
    return (source.nbytes + target.nbytes) / _median_seconds(lambda: target.copy_(source))


def _median_seconds(run: Callable[[], object]) -> float:
    run()
    seconds: list[float] = []
    while len(seconds) < 3 or sum(seconds) < _MEASURE_S:
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
