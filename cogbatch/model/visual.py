"""EVA2-CLIP and the gated projection: pixels to [boi | patches | eoi]. Travels with every checkpoint.

Only the vision tower: how its output enters the language model is modeling_cogvlm.py.
Shapes: B images, N patches of the tower, P patches after v2's downsampling, E tower width, H language width.
"""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the field's usual name
from transformers.activations import ACT2FN

from .configuration_cogvlm import CogVLMConfig, CogVLMVisionConfig


class PatchEmbedding(nn.Module):
    """[B, 3, px, px] -> [B, 1 + N, E]: strided convolution, cls row in front, learned positions."""

    def __init__(self, config: CogVLMVisionConfig) -> None:
        super().__init__()
        size, stride = config.hidden_size, config.patch_size
        self.proj = nn.Conv2d(config.in_channels, size, kernel_size=stride, stride=stride)
        self.cls_embedding = nn.Parameter(torch.zeros(1, size))
        self.position_embedding = nn.Embedding(config.num_positions, size)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        patches = self.proj(pixel_values).flatten(2).transpose(1, 2)  # [B, N, E]
        cls = self.cls_embedding.expand(patches.shape[0], 1, -1)
        return torch.cat([cls, patches], dim=1) + self.position_embedding.weight


class VisionAttention(nn.Module):
    """Full self-attention; rows of the fused projection are [q of all heads; k; v]."""

    def __init__(self, config: CogVLMVisionConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        batch, length, size = hidden.shape
        qkv = self.query_key_value(hidden).view(batch, length, 3, self.num_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each [B, heads, 1 + N, D]
        context = F.scaled_dot_product_attention(query, key, value)
        return self.dense(context.transpose(1, 2).reshape(batch, length, size))


class VisionMLP(nn.Module):
    def __init__(self, config: CogVLMVisionConfig) -> None:
        super().__init__()
        self.activation = ACT2FN[config.hidden_act]
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation(self.fc1(hidden)))


class VisionLayer(nn.Module):
    """Norms sit behind attention and MLP, inside the residual: x + norm(f(x))."""

    def __init__(self, config: CogVLMVisionConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = VisionAttention(config)
        self.mlp = VisionMLP(config)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        hidden = hidden + self.input_layernorm(self.attention(hidden))
        return hidden + self.post_attention_layernorm(self.mlp(hidden))


class VisionTransformer(nn.Module):
    def __init__(self, config: CogVLMVisionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList([VisionLayer(config) for _ in range(config.num_hidden_layers)])

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden


class GatedProjection(nn.Module):
    """[B, P, E] -> [B, P, H]: gelu(norm(linear)), then a gated MLP of the language model's widths."""

    def __init__(self, config: CogVLMConfig) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.intermediate_size
        self.linear_proj = nn.Linear(config.vision_config.hidden_size, hidden, bias=False)
        self.norm1 = nn.LayerNorm(hidden, eps=1e-5)  # SAT leaves torch's default here, not the tower's 1e-6
        self.dense_h_to_4h = nn.Linear(hidden, inner, bias=False)
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.dense_4h_to_h = nn.Linear(inner, hidden, bias=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        hidden = F.gelu(self.norm1(self.linear_proj(hidden)))
        return self.dense_4h_to_h(F.silu(self.gate_proj(hidden)) * self.dense_h_to_4h(hidden))


class VisionModel(nn.Module):
    """[B, 3, px, px] -> [B, P + 2, H], framed by the learned boi and eoi rows."""

    def __init__(self, config: CogVLMConfig) -> None:
        super().__init__()
        vision = config.vision_config
        self.patch_embedding = PatchEmbedding(vision)
        self.transformer = VisionTransformer(vision)
        if vision.downsample:
            self.conv = nn.Conv2d(vision.hidden_size, vision.hidden_size, kernel_size=2, stride=2)
        self.downsample = vision.downsample
        self.linear_proj = GatedProjection(config)
        self.boi = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.eoi = nn.Parameter(torch.zeros(1, 1, config.hidden_size))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        hidden = self.transformer(self.patch_embedding(pixel_values))[:, 1:]  # [B, N, E], cls row dropped
        if self.downsample:
            side = int(hidden.shape[1] ** 0.5)
            grid = hidden.transpose(1, 2).reshape(hidden.shape[0], -1, side, side)
            hidden = self.conv(grid).flatten(2).transpose(1, 2)  # [B, P, E]
        patches = self.linear_proj(hidden)
        frame = (patches.shape[0], 1, -1)
        return torch.cat([self.boi.expand(frame), patches, self.eoi.expand(frame)], dim=1)
