"""CogVLM v1 and v2 on SwissArmyTransformer's own classes, to run a checkpoint as it was trained. CPU, fp32.

Needs the extra `sat`. Nothing here knows of Hugging Face: module names are those of the checkpoint's keys.
Shapes: B batch, S sequence, P patches, E width of the vision tower, H of the language model.
"""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import torch
from sat.model.base_model import BaseMixin
from sat.model.official.eva_clip_model import EVA2CLIPModel
from sat.model.official.llama_model import LLaMAMlpMixin, LLaMAModel, RotaryMixin
from sat.model.position_embedding import triton_rotary_embeddings
from sat.model.position_embedding.triton_rotary_embeddings import FastRotaryEmbedding
from sat.mpu import ColumnParallelLinear, RowParallelLinear
from sat.mpu.utils import split_tensor_along_last_dim
from sat.transformer_defaults import attention_fn_default
from torch import Tensor, nn

# Hard-coded in the official CogVLMModel; CogVLM2Model has an expert in every layer.
_V1_EXPERT_LAYERS = 32
_ROPE_BASE = {1: 10_000, 2: 500_000}


class CogVLMForSat(LLaMAModel):
    """LLaMA with a second set of projections for image tokens, and EVA2-CLIP in front.

    args: what model_config.json says, as `build_args` completes it. generation: 1 or 2.
    """

    def __init__(self, args: Namespace, *, generation: int) -> None:
        super().__init__(args)
        for name in ("rotary", "mlp"):
            self.del_mixin(name)
        experts = args.num_layers if generation == 2 else min(_V1_EXPERT_LAYERS, args.num_layers)
        self.add_mixin("rotary", ExpertAttention(args, experts=experts, generation=generation))
        self.add_mixin("mlp", ExpertMlp(args, experts=experts))
        self.add_mixin("eva", ImageTokens(args, downsample=generation == 2))


class ExpertAttention(RotaryMixin):
    """Rotary attention; image tokens go through projections of their own."""

    def __init__(self, args: Namespace, *, experts: int, generation: int) -> None:
        head_size = args.hidden_size // args.num_attention_heads
        super().__init__(args.hidden_size, args.num_attention_heads)
        self.rotary_emb = FastRotaryEmbedding(head_size, base=_ROPE_BASE[generation], pos_idx_in_fp32=False)
        kv_heads = args.num_multi_query_heads or args.num_attention_heads
        qkv_size = args.hidden_size + 2 * kv_heads * head_size
        self.vision_query_key_value_list = nn.ModuleDict(
            {
                str(layer): ColumnParallelLinear(
                    args.hidden_size,
                    qkv_size,
                    bias=generation == 2,
                    gather_output=False,
                    skip_init=True,
                )
                for layer in range(experts)
            }
        )
        self.vision_dense_list = nn.ModuleDict(
            {
                str(layer): RowParallelLinear(
                    args.hidden_size, args.hidden_size, bias=False, input_is_parallel=True, skip_init=True
                )
                for layer in range(experts)
            }
        )

    def attention_forward(self, hidden_states: Tensor, mask: Tensor, **kw_args: Any) -> Tensor:
        layer, is_vision = int(kw_args["layer_id"]), kw_args.get("vision_expert_mask")
        attention = self.transformer.layers[layer].attention
        qkv = attention.query_key_value(hidden_states)
        expert = is_vision is not None and str(layer) in self.vision_dense_list
        if expert:
            qkv = qkv.clone()
            qkv[is_vision] = self.vision_query_key_value_list[str(layer)](hidden_states[is_vision])
        query, key, value = (
            attention._transpose_for_scores(part)
            for part in split_tensor_along_last_dim(qkv, attention.stride)
        )
        positions = kw_args["position_ids"]
        query, key = self.rotary_emb(query, key, positions, max_seqlen=int(positions.max()) + 1)
        attention_fn = attention.hooks.get("attention_fn", attention_fn_default)  # a cache, for one
        context = attention_fn(query, key, value, mask, None, **kw_args)
        context = context.transpose(1, 2).flatten(2)  # [B, S, H of this rank]
        output = attention.dense(context)
        if expert:
            output = output.clone()
            output[is_vision] = self.vision_dense_list[str(layer)](context[is_vision])
        return output


class ExpertMlp(LLaMAMlpMixin):
    """The gated MLP; image tokens go through weights of their own."""

    def __init__(self, args: Namespace, *, experts: int) -> None:
        hidden, inner = args.hidden_size, args.inner_hidden_size or 4 * args.hidden_size
        super().__init__(args.num_layers, hidden, inner)
        layers = [str(layer) for layer in range(experts)]

        def column() -> nn.Module:
            return ColumnParallelLinear(hidden, inner, bias=False, gather_output=False, skip_init=True)

        self.vision_dense_h_to_4h_list = nn.ModuleDict({layer: column() for layer in layers})
        self.vision_gate_proj = nn.ModuleDict({layer: column() for layer in layers})
        self.vision_dense_4h_to_h_list = nn.ModuleDict(
            {
                layer: RowParallelLinear(inner, hidden, bias=False, input_is_parallel=True, skip_init=True)
                for layer in layers
            }
        )

    def mlp_forward(self, hidden_states: Tensor, **kw_args: Any) -> Tensor:
        layer, is_vision = str(int(kw_args["layer_id"])), kw_args.get("vision_expert_mask")
        output = super().mlp_forward(hidden_states, **kw_args)
        if is_vision is not None and layer in self.vision_gate_proj:
            activation = self.transformer.layers[int(layer)].mlp.activation_func
            seen = hidden_states[is_vision]
            inner = activation(self.vision_gate_proj[layer](seen)) * self.vision_dense_h_to_4h_list[layer](
                seen
            )
            output = output.clone()
            output[is_vision] = self.vision_dense_4h_to_h_list[layer](inner)
        return output


class ImageTokens(BaseMixin):
    """Puts [boi | patches | eoi] where image_embed_mask says; v2 halves the patch grid before."""

    def __init__(self, args: Namespace, *, downsample: bool) -> None:
        super().__init__()
        tower = build_args(EVA2CLIPModel, args.eva_args, num_ranks=args.model_parallel_size)
        self.vit_model = EVA2CLIPModel(tower)
        if downsample:
            self.conv = nn.Conv2d(tower.hidden_size, tower.hidden_size, kernel_size=2, stride=2)
        self.downsample = downsample
        self.linear_proj = GatedProjection(
            tower.hidden_size, args.hidden_size, args.inner_hidden_size or 4 * args.hidden_size
        )
        self.boi = nn.Parameter(torch.zeros(1, 1, args.hidden_size))
        self.eoi = nn.Parameter(torch.zeros(1, 1, args.hidden_size))

    def word_embedding_forward(self, input_ids: Tensor, **kw_args: Any) -> Tensor:
        words = self.transformer.word_embeddings(input_ids)
        pixels = kw_args.get("pixels")
        if pixels is None:
            return words
        tower = self.vit_model(
            input_ids=torch.zeros(len(pixels), 1, dtype=torch.long),
            position_ids=None,
            attention_mask=None,
            image=pixels,
        )[0]  # [B, P, E], row-major
        if self.downsample:
            side = int(tower.shape[1] ** 0.5)
            grid = tower.transpose(1, 2).unflatten(2, (side, side))
            tower = self.conv(grid).flatten(2).transpose(1, 2)
        frame = (len(pixels), -1, -1)
        image = torch.cat([self.boi.expand(frame), self.linear_proj(tower), self.eoi.expand(frame)], dim=1)
        words = words.clone()
        words[kw_args["image_embed_mask"]] = image.flatten(0, 1)
        return words


class GatedProjection(nn.Module):
    """[B, P, E] -> [B, P, H]."""

    def __init__(self, tower: int, hidden: int, inner: int) -> None:
        super().__init__()
        self.linear_proj = nn.Linear(tower, hidden, bias=False)
        self.norm1 = nn.LayerNorm(hidden)
        self.dense_h_to_4h = nn.Linear(hidden, inner, bias=False)
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.dense_4h_to_h = nn.Linear(inner, hidden, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = nn.functional.gelu(self.norm1(self.linear_proj(hidden)))
        return self.dense_4h_to_h(nn.functional.silu(self.gate_proj(hidden)) * self.dense_h_to_4h(hidden))


def build_args(model: type, values: dict[str, Any], *, num_ranks: int) -> Namespace:
    """SAT's own defaults under what a model_config.json says; nothing is drawn at random."""
    own = {
        "model_parallel_size": num_ranks,
        "skip_init": True,
        "device": "cpu",
        "use_gpu_initialization": False,
    }
    return model.get_args(**{**values, **own})  # type: ignore[attr-defined]


def rotate_on_cpu(
    x: Tensor, cos: Tensor, sin: Tensor, position_ids: Tensor, *, inplace: bool = False, **_: Any
) -> Tensor:
    """Half-rotation of x [B, A, S, D], as the kernel in sat's triton_rotary.py computes it."""
    cos, sin = cos[position_ids].unsqueeze(1), sin[position_ids].unsqueeze(1)  # [B, 1, S, D / 2]
    first, second = x.chunk(2, dim=-1)
    rotated = torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
    return x.copy_(rotated) if inplace else rotated


# The kernel wants CUDA; the class that calls it stays SAT's own.
triton_rotary_embeddings.apply_rotary = rotate_on_cpu
