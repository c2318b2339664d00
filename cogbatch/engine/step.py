"""One decode step through the layers: the language experts only, rows of many items side by side.

The formula is DecoderLayer's. What is added: products in which no row depends on its company, and activations
computed item by item, because elementwise functions end a tensor with other instructions than they begin it.
All else either rounds every number by itself, or adds along a row.

R rows, H hidden, A heads, K key-value heads, D head size, I inner width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from cogbatch.engine.cache import ItemCache
from cogbatch.engine.products import RowBlocks, multiply
from cogbatch.model.decoder import MLP, DecoderLayer, VisionExpertAttention, rotate
from cogbatch.model.modeling_cogvlm import CogVLMForCausalLM


class Step:
    """The rows of some items for one step.

    Args:
        caches: of the items; each has its rows, in this order.
        blocks: None lets rows depend on their company in the last bits.
    """

    def __init__(self, caches: Sequence[ItemCache], blocks: RowBlocks | None) -> None:
        ends = torch.tensor([cache.num_rows for cache in caches]).cumsum(0).tolist()
        self._items = [slice(end - cache.num_rows, end) for cache, end in zip(caches, ends, strict=True)]
        self._caches = caches
        self._block_rows = None if blocks is None else blocks.largest
        self.num_rows: int = ends[-1]
        self.padding = 0 if blocks is None else blocks.padding(self.num_rows)

    def run(
        self, model: CogVLMForCausalLM, tokens: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> list[torch.Tensor]:
        """Log-probabilities of every item's rows, each [its rows, V] float32 in nats.

        Appends the tokens to the caches, whose `end_step` is the caller's.

        Args:
            tokens: [R + padding] last token of every row. cos, sin: [R + padding, 1, D] at their positions.
        """
        hidden = model.model.embed_tokens(tokens)  # [R, H]
        for layer in layers(model):
            hidden = self._layer(layer, hidden, cos, sin)
        logits = self._multiply(model.lm_head, model.model.norm(hidden))
        return [logits[rows].float().log_softmax(-1) for rows in self._items]

    def _layer(
        self, layer: DecoderLayer, hidden: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> torch.Tensor:
        attention = layer.self_attn
        qkv = self._multiply(attention.language_expert_query_key_value, layer.input_layernorm(hidden))
        context = self._attend(attention, qkv.view(qkv.shape[0], -1, attention.head_dim), cos, sin)
        hidden = hidden + self._multiply(attention.language_expert_dense, context)
        return hidden + self._mlp(layer.mlp.language_mlp, layer.post_attention_layernorm(hidden))

    def _attend(
        self, attention: VisionExpertAttention, heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> torch.Tensor:
        """[R, A + 2K, D] queries, keys and values -> [R, A * D]; padding gets zeros."""
        kv_heads = attention.config.num_multi_query_heads
        turned = rotate(heads[:, :-kv_heads], cos, sin)
        queries, keys, values = turned[:, :-kv_heads], turned[:, -kv_heads:], heads[:, -kv_heads:]
        contexts = [
            cache.attend(attention, queries[rows], keys[rows], values[rows])
            for cache, rows in zip(self._caches, self._items, strict=True)
        ]
        if self.padding:
            contexts.append(heads.new_zeros(self.padding, contexts[0].shape[1]))
        return contexts[0] if len(contexts) == 1 else torch.cat(contexts)

    def _mlp(self, mlp: MLP, hidden: torch.Tensor) -> torch.Tensor:
        gate, up = self._multiply(mlp.gate_proj, hidden), self._multiply(mlp.up_proj, hidden)  # [R, I]
        for rows in [slice(None)] if self._block_rows is None else self._items:
            gate[rows] = mlp.activation(gate[rows])
        return self._multiply(mlp.down_proj, gate * up)

    def _multiply(self, linear: nn.Module, rows: torch.Tensor) -> torch.Tensor:
        return multiply(linear, rows, block_rows=self._block_rows)


def layers(model: CogVLMForCausalLM) -> list[DecoderLayer]:
    return cast(list[DecoderLayer], list(model.model.layers))


def linears(model: CogVLMForCausalLM) -> list[nn.Module]:
    """All layers that a step multiplies by."""
    found: list[nn.Module] = [model.lm_head]
    for layer in layers(model):
        attention, mlp = layer.self_attn, layer.mlp.language_mlp
        found += [attention.language_expert_query_key_value, attention.language_expert_dense]
        found += [mlp.gate_proj, mlp.up_proj, mlp.down_proj]
    return found
