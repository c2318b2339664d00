"""Training forward of CogVLM: several texts behind one image, which is encoded and attended to once.

The same layers and results as `model(...)` on each text alone (a test compares); only the layout differs: all
vision tokens of the batch first, so that the visual expert sees one span, then every row's other tokens.

Shapes: B images, P patches, W text tokens a row, H hidden, A heads, D head size; S = P + 3 + W.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cogbatch.model.modeling_cogvlm import CogVLMForCausalLM


@dataclass(frozen=True)
class Hidden:
    """patches: [B, P, H], the projected patch features. texts: [B, W, H], what goes into the head."""

    patches: torch.Tensor
    texts: torch.Tensor


def forward(
    model: CogVLMForCausalLM,
    *,
    pixels: torch.Tensor,
    ids: torch.Tensor,
    segments: torch.Tensor,
    positions: torch.Tensor,
) -> Hidden:
    """Hidden states behind the final norm.

    Args:
        pixels: [B, 3, px, px] normalised. ids: [B, W]. segments: [B, W], equal for the tokens of one text.
        positions: [B, W] rotary positions, from 4 on in each text.
    """
    inner = model.model
    frame = inner.vision(pixels)  # [B, P + 2, H]
    rows, num_vision = len(ids), frame.shape[1] - 1
    bos = inner.embed_tokens(torch.full((rows, 1), model.config.bos_token_id))
    language = torch.cat([bos.to(frame.dtype), frame[:, -1:], inner.embed_tokens(ids).to(frame.dtype)], dim=1)
    hidden = torch.cat([frame[:, :-1].flatten(0, 1), language.flatten(0, 1)])[None]  # [1, B * S, H]
    vision_positions = torch.tensor([1] + [2] * (num_vision - 1)).repeat(rows)
    language_positions = torch.cat([torch.tensor([[0, 3]]).expand(rows, 2), positions], dim=1).flatten()
    bias = _bias(segments, num_vision=num_vision).to(frame.dtype)

    def attend(
        _: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        parts = [_per_row(states, rows, num_vision) for states in (query, key, value)]
        context = _attention(*parts, bias=bias).transpose(1, 2)  # [B, S, A, D]
        seen, read = context[:, :num_vision], context[:, num_vision:]
        return torch.cat([seen.flatten(0, 1), read.flatten(0, 1)]).flatten(1)[None]

    result = inner.run_layers(
        hidden,
        torch.cat([vision_positions, language_positions])[None],
        [(0, rows * num_vision)],
        attend,
    )
    texts = result[0, rows * num_vision :].view(rows, -1, result.shape[-1])[:, 2:]
    return Hidden(patches=frame[:, 1:-1], texts=texts)


def _per_row(states: torch.Tensor, rows: int, num_vision: int) -> torch.Tensor:
    """[1, A, B * S, D] in training layout -> [B, A, S, D], vision tokens in front."""
    seen, read = states[0].split([rows * num_vision, states.shape[2] - rows * num_vision], dim=1)
    heads, _, size = seen.shape
    both = torch.cat([seen.view(heads, rows, -1, size), read.view(heads, rows, -1, size)], dim=2)
    return both.transpose(0, 1)


def _attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, bias: torch.Tensor
) -> torch.Tensor:
    """The plain formula: on a CPU its backward is ten times faster than the fused kernel's at this length."""
    scores = torch.baddbmm(
        bias.expand(-1, query.shape[1], -1, -1).flatten(0, 1),
        query.flatten(0, 1),
        key.flatten(0, 1).transpose(1, 2),
        alpha=query.shape[-1] ** -0.5,
    )
    return (scores.softmax(-1).to(value.dtype) @ value.flatten(0, 1)).view_as(query)


def _bias(segments: torch.Tensor, *, num_vision: int) -> torch.Tensor:
    """[B, 1, S, S]: 0 where attention is allowed, else -1e4; in the order boi, patches, bos, eoi, texts."""
    rows, width = segments.shape
    order = torch.tensor([*range(1, num_vision + 1), 0, *range(num_vision + 1, num_vision + 2 + width)])
    group = torch.cat([torch.zeros(rows, num_vision + 2, dtype=segments.dtype), segments], dim=1)
    before = order[None, :] <= order[:, None]
    same = (group[:, None, :] == group[:, :, None]) | (group[:, None, :] == 0)
    return torch.where(before & same, 0.0, -1e4)[:, None]
