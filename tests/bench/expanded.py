"""The plain way to k candidates from one prefill: k copies of the prompt's keys and values.

One static cache for the rows of all items, one batched attention a layer, prompts padded to the longest. What
the engine is compared with beside transformers' generate: everything but the shared prefix is there.

L layers, R rows, A heads, K key-value heads, D head size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812 - the field's usual name

from cogbatch.model.decoder import image_positions, vision_spans
from cogbatch.model.modeling_cogvlm import CogVLMForCausalLM

Choose = Callable[[torch.Tensor], torch.Tensor]  # logits [R, V] -> tokens [R]


@dataclass(frozen=True)
class Prompt:
    """ids, types: [1, S]. pixels: [1, 3, px, px]."""

    ids: torch.Tensor
    types: torch.Tensor
    pixels: torch.Tensor


def sampled(logits: torch.Tensor) -> torch.Tensor:
    return logits.float().softmax(-1).multinomial(1)[:, 0]


class ExpandedCache:
    """Keys and values of R rows, prompts at their right ends, so that all rows write in one place."""

    def __init__(
        self, model: CogVLMForCausalLM, prompts: Sequence[Prompt], *, num_rows: int, new_tokens: int
    ) -> None:
        config = model.config
        lengths = [prompt.ids.shape[1] for prompt in prompts]
        self.end = max(lengths)
        shape = (
            config.num_hidden_layers,
            2,
            len(prompts) * num_rows,
            config.num_multi_query_heads,
            self.end + new_tokens - 1,
            config.head_dim,
        )
        self.states = torch.zeros(shape, dtype=model.dtype)
        self._num_rows = num_rows
        padding = torch.tensor([self.end - length for length in lengths]).repeat_interleave(num_rows)
        places = torch.arange(shape[4])
        # [R, 1, 1, S]; none where nothing is padded.
        self._mask = (places >= padding[:, None])[:, None, None] if padding.any() else None

    def prefill(self, item: int) -> Callable[..., torch.Tensor]:
        """Attention of a prompt over itself, which leaves k copies of its keys and values."""
        rows = slice(item * self._num_rows, (item + 1) * self._num_rows)

        def attend(module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
            place = slice(self.end - key.shape[2], self.end)
            keys, values = self.states[module.layer_idx, :, rows, :, place]
            keys.copy_(key)
            values.copy_(value)
            return _attention(module, query, key, value, is_causal=True)

        return attend

    def attend(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """Appends a token to every row, and all rows attend at once: [R, A, 1, D] -> [R, 1, A * D]."""
        keys, values = self.states[module.layer_idx, :, :, :, : self.end + 1]
        keys[:, :, -1:] = key
        values[:, :, -1:] = value
        mask = None if self._mask is None else self._mask[..., : self.end + 1]
        return _attention(module, query, keys, values, attn_mask=mask)


def _attention(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **how: Any
) -> torch.Tensor:
    grouped = module.num_key_value_groups > 1
    context = F.scaled_dot_product_attention(query, key, value, enable_gqa=grouped, **how)
    return context.transpose(1, 2).flatten(2)


@torch.inference_mode()
def generate(
    model: CogVLMForCausalLM,
    prompts: Sequence[Prompt],
    *,
    num_rows: int,
    new_tokens: int,
    choose: Choose = sampled,
    on_token: Callable[[], None] = lambda: None,
) -> tuple[torch.Tensor, int]:
    """Tokens [R, new_tokens], item after item, num_rows each; bytes of keys and values.

    Args:
        on_token: called after every choice.
    """
    cache = ExpandedCache(model, prompts, num_rows=num_rows, new_tokens=new_tokens)
    firsts, positions = [], []
    for index, prompt in enumerate(prompts):
        embeds = model.model.embed(prompt.ids, prompt.types, model.get_image_features(prompt.pixels))
        places = image_positions(prompt.types)
        hidden = model.model.run_layers(embeds, places, vision_spans(prompt.types), cache.prefill(index))
        firsts.append(choose(model.lm_head(hidden[:, -1]).expand(num_rows, -1)))
        positions += [int(places[0, -1]) + 1] * num_rows
        on_token()
    tokens = [torch.cat(firsts)]
    position = torch.tensor(positions)[:, None]
    for _ in range(new_tokens - 1):
        embeds = model.model.embed_tokens(tokens[-1])[:, None]  # [R, 1, H]
        hidden = model.model.run_layers(embeds, position, [], cache.attend)
        cache.end += 1
        position += 1
        tokens.append(choose(model.lm_head(hidden[:, -1])))
        on_token()
    return torch.stack(tokens, dim=1), cache.states.nbytes
