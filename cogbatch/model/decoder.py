"""The language model's layers, each with a second, visual set of weights. Travels with every checkpoint.

Image tokens (boi and patches, not eoi) use the visual expert, all others the language expert; both attend
to each other causally. Experts are routed by contiguous (start, end) spans, never by boolean masks: no
host synchronisation inside layers, and views instead of gathers. Where keys and values are kept is the
caller's business.

Shapes: B batch, S sequence, H hidden, A heads, K key-value heads, D head size.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the field's usual name
from transformers.activations import ACT2FN

from .configuration_cogvlm import CogVLMConfig

Spans = list[tuple[int, int]]
# attend(attention module, query [B, A, S, D], key [B, K, S, D], value [B, K, S, D]) -> [B, S, A * D].
# Whoever runs the layers decides where keys and values are kept and how attention is computed.
Attend = Callable[[Any, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


_FEW = 32  # text rows are few when they are less than one in this many


def image_positions(token_type_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
    """Rotary positions [B, S] from token types [B, S]: all patches of an image share one.

    Type 1 is boi, patches and eoi. bos 0, boi 1, every patch 2, eoi 3, text 4, 5, ...; padding (mask 0) does
    not advance.
    """
    image = token_type_ids == 1
    inner = image & F.pad(image, (1, 0))[:, :-1] & F.pad(image, (0, 1))[:, 1:]  # patches: neither boi nor eoi
    advances = ~(inner & F.pad(inner, (1, 0))[:, :-1])
    if attention_mask is not None:
        advances = advances & attention_mask.bool()
    return (advances.long().cumsum(-1) - 1).clamp(min=0)


def vision_spans(token_type_ids: torch.Tensor) -> Spans:
    """(start, end) of every run of visual-expert tokens in the flattened [B * S] sequence; one host read."""
    image = token_type_ids == 1
    expert = image & F.pad(image, (0, 1))[:, 1:]  # eoi, the last of its run, is a language token
    # Flattening is safe: a run cannot cross rows, since the last token of a row has no successor in it.
    edges = F.pad(expert.flatten().to(torch.int8), (1, 1)).diff()
    starts, ends = (edges == 1).nonzero().flatten().tolist(), (edges == -1).nonzero().flatten().tolist()
    return list(zip(starts, ends, strict=True))


def route(hidden: torch.Tensor, spans: Spans, language: nn.Module, vision: nn.Module | None) -> torch.Tensor:
    """Applies `vision` inside the spans and `language` outside: [B, S, X] -> [B, S, Y]."""
    if not spans or vision is None:
        return language(hidden)
    flat = hidden.reshape(-1, hidden.shape[-1])
    borders = [0, *(edge for span in spans for edge in span), flat.shape[0]]
    gaps = list(zip(borders[::2], borders[1::2], strict=True))
    read = language(_take(flat, gaps))
    if read.shape[0] * _FEW < flat.shape[0]:
        # An image and hardly any text: computing the few text rows twice is cheaper than moving the image.
        result = vision(flat)
    else:
        seen = vision(_take(flat, spans))
        result = seen.new_empty(flat.shape[0], seen.shape[-1])
        _place(result, spans, seen)
    _place(result, gaps, read)
    return result.view(*hidden.shape[:-1], -1)


def _take(flat: torch.Tensor, spans: Spans) -> torch.Tensor:
    """The rows of all spans, one after the other; a view where there is only one."""
    parts = [flat[start:end] for start, end in spans]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _place(result: torch.Tensor, spans: Spans, values: torch.Tensor) -> None:
    """Writes consecutive rows of values into the spans of result."""
    offset = 0
    for start, end in spans:
        result[start:end] = values[offset : offset + end - start]
        offset += end - start


def rotate(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Half-rotation (NeoX) rotary embedding. states: [B, heads, S, D]; cos, sin: [B, 1, S, D]."""
    first, second = states.chunk(2, dim=-1)
    return states * cos + torch.cat([-second, first], dim=-1) * sin


class RMSNorm(nn.Module):
    """Scales in fp32 and casts once at the end: SAT's order, which differs from Llama's in half precision."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        wide = hidden.float()
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return (self.weight * (wide * scale)).to(hidden.dtype)


class MLP(nn.Module):
    def __init__(self, config: CogVLMConfig) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.intermediate_size
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.activation(self.gate_proj(hidden)) * self.up_proj(hidden))


class VisionExpertMLP(nn.Module):
    def __init__(self, config: CogVLMConfig, *, has_vision: bool) -> None:
        super().__init__()
        self.language_mlp = MLP(config)
        self.vision_mlp = MLP(config) if has_vision else None

    def forward(self, hidden: torch.Tensor, spans: Spans) -> torch.Tensor:
        return route(hidden, spans, self.language_mlp, self.vision_mlp)


class VisionExpertAttention(nn.Module):
    """Fused projections per expert; rows are [q of all heads; k; v], head-major."""

    is_causal = True

    def __init__(self, config: CogVLMConfig, layer_idx: int, *, has_vision: bool) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.head_dim
        self.scaling = self.head_dim**-0.5
        self.num_key_value_groups = config.num_attention_heads // config.num_multi_query_heads
        size = config.hidden_size
        rows = size + 2 * config.num_multi_query_heads * self.head_dim
        self.language_expert_query_key_value = nn.Linear(size, rows, bias=False)
        self.language_expert_dense = nn.Linear(size, size, bias=False)
        self.vision_expert_query_key_value = None
        self.vision_expert_dense = None
        if has_vision:
            self.vision_expert_query_key_value = nn.Linear(size, rows, bias=config.vision_expert_qkv_bias)
            self.vision_expert_dense = nn.Linear(size, size, bias=False)

    def forward(
        self, hidden: torch.Tensor, spans: Spans, rotary: tuple[torch.Tensor, torch.Tensor], attend: Attend
    ) -> torch.Tensor:
        qkv = route(hidden, spans, self.language_expert_query_key_value, self.vision_expert_query_key_value)
        heads = qkv.view(*qkv.shape[:-1], -1, self.head_dim).transpose(1, 2)  # [B, A + 2K, S, D]
        groups = self.config.num_multi_query_heads
        query, key, value = heads.split([heads.shape[1] - 2 * groups, groups, groups], dim=1)
        context = attend(self, rotate(query, *rotary), rotate(key, *rotary), value)
        return route(context, spans, self.language_expert_dense, self.vision_expert_dense)


class DecoderLayer(nn.Module):
    def __init__(self, config: CogVLMConfig, layer_idx: int) -> None:
        super().__init__()
        has_vision = layer_idx < config.num_vision_expert_layers
        self.self_attn = VisionExpertAttention(config, layer_idx, has_vision=has_vision)
        self.mlp = VisionExpertMLP(config, has_vision=has_vision)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, hidden: torch.Tensor, spans: Spans, rotary: tuple[torch.Tensor, torch.Tensor], attend: Attend
    ) -> torch.Tensor:
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), spans, rotary, attend)
        return hidden + self.mlp(self.post_attention_layernorm(hidden), spans)
