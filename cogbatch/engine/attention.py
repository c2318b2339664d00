"""Attention that also returns its log-sum-exp, and the exact merge of two such results.

The one place that touches torch's private attention operators. Merging lets k rows share a prefix: attention
over the prefix and over each row's own suffix are computed apart and combined (bifurcated attention,
arXiv:2403.08845; Hydragen, arXiv:2402.05099).

Shapes: B batch, A query heads, K key-value heads, S queries, T keys, D head size.
"""

from __future__ import annotations

import torch

Partial = tuple[torch.Tensor, torch.Tensor]  # context [B, A, S, D] over some keys, log-sum-exp [B, A, S]


def attention_with_lse(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, scale: float, causal: bool = False
) -> Partial:
    """(context [B, A, S, D], log-sum-exp of the scaled scores [B, A, S] float32).

    Args:
        query: [B, A, S, D]. key, value: [B, A, T, D], T >= 1.
        scale: what scores are multiplied by.
        causal: query i sees keys 0..i; needs S = T.
    """
    if query.device.type == "cpu":
        context, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, causal, attn_mask=None, scale=scale
        )
        return context, lse
    if query.device.type == "cuda":
        return _attention_on_cuda(query, key, value, scale=scale, causal=causal)
    return attention_by_matmul(query, key, value, scale=scale, causal=causal)


def _attention_on_cuda(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, scale: float, causal: bool
) -> Partial:
    """Never run: no GPU at hand. Flash attention takes no float32, memory-efficient attention does."""
    aten = torch.ops.aten
    if query.dtype == torch.float32:
        context, lse, *_ = aten._scaled_dot_product_efficient_attention(
            query, key, value, None, True, 0.0, causal, scale=scale
        )
        return context, lse[..., : query.shape[2]]  # padded to a multiple of 32
    context, lse, *_ = aten._scaled_dot_product_flash_attention(
        query, key, value, 0.0, causal, False, scale=scale
    )
    return context, lse


def attention_by_matmul(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, scale: float, causal: bool = False
) -> Partial:
    """The same from two matrix products, on any device and dtype; the reference for the fused operators."""
    scores = (query @ key.transpose(-1, -2)).float() * scale  # [B, A, S, T]
    if causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(future, -torch.inf)
    lse = scores.logsumexp(-1)
    return (scores - lse.unsqueeze(-1)).exp().to(value.dtype) @ value, lse


def merge(first: Partial, second: Partial) -> Partial:
    """Attention over the union of two disjoint sets of keys, from that over each."""
    return weigh(first, second), torch.logaddexp(first[1], second[1])


def weigh(first: Partial, second: Partial) -> torch.Tensor:
    """merge, where nothing is merged any further: the context alone."""
    (context1, lse1), (context2, lse2) = first, second
    share = torch.sigmoid(lse2 - lse1).unsqueeze(-1)  # exp(lse2) / (exp(lse1) + exp(lse2))
    return torch.lerp(context1.float(), context2.float(), share).to(context1.dtype)
