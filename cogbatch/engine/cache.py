"""Keys and values of one item: a prefix that its rows share, a suffix for each row; and attention over both.

The prefix is written once by prefill and never moves. Rows own suffixes, which alone are reordered when a
strategy moves rows. L layers, R rows, K key-value heads, G query heads per key-value head, P prefix, D head
size.
"""

from __future__ import annotations

from typing import Any

import torch

from cogbatch.engine.attention import attention_with_lse, merge

_FIRST_CAPACITY = 64  # tokens of suffix allocated at first; doubled when full


class ItemCache:
    """Keys and values of one item.

    Args:
        num_layers, num_kv_heads, head_dim: of the model.
        prefix_length: tokens of the prompt, image included. max_new_tokens: bounds the suffix.
        dtype, device: of keys and values.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        num_kv_heads: int,
        head_dim: int,
        prefix_length: int,
        max_new_tokens: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._options: dict[str, Any] = {"dtype": dtype, "device": device}
        self._max_new_tokens = max_new_tokens
        self.prefix = torch.empty(num_layers, 2, 1, num_kv_heads, prefix_length, head_dim, **self._options)
        self.prefix_filled = 0
        self.suffix = torch.empty(num_layers, 2, 1, num_kv_heads, 0, head_dim, **self._options)
        self.suffix_filled = 0
        self.next_position = 0  # rotary position of the token that comes next, the same for all rows

    def prefill(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """Appends S prompt tokens to the prefix and attends causally: [1, A, S, D] -> [1, S, A * D].

        Call `end_prefill_chunk(S)` when all layers have seen the chunk.
        """
        keys, values = self.prefix[module.layer_idx]
        start, length = self.prefix_filled, key.shape[2]
        keys[:, :, start : start + length] = key
        values[:, :, start : start + length] = value
        groups = module.num_key_value_groups
        own = attention_with_lse(
            query, _repeat(key, groups), _repeat(value, groups), scale=module.scaling, causal=True
        )
        if start == 0:
            return own[0].transpose(1, 2).flatten(2)
        past = self._attend_prefix(query, keys[:, :, :start], values[:, :, :start], module.scaling)
        return merge(past, own).transpose(1, 2).flatten(2)

    def end_prefill_chunk(self, length: int) -> None:
        self.prefix_filled += length

    def decode(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """Appends a token to each row's suffix, attends to prefix and suffix: [R, A, 1, D] -> [R, A * D].

        Call `end_step` when all layers have seen the token.
        """
        rows, heads, _, size = query.shape
        kv_heads = key.shape[1]
        keys, values = self.suffix[module.layer_idx]
        end = self.suffix_filled + 1
        keys[:, :, end - 1] = key[:, :, 0]
        values[:, :, end - 1] = value[:, :, 0]
        grouped = query.view(rows, kv_heads, heads // kv_heads, size)  # [R, K, G, D]
        own = attention_with_lse(grouped, keys[:, :, :end], values[:, :, :end], scale=module.scaling)
        # Against the shared prefix all rows are queries of one sequence: [1, K, R * G, D].
        shared = grouped.transpose(0, 1).reshape(1, kv_heads, -1, size)
        context, lse = attention_with_lse(shared, *self.prefix[module.layer_idx], scale=module.scaling)
        past = (
            context.view(kv_heads, rows, -1, size).transpose(0, 1),
            lse.reshape(kv_heads, rows, -1).transpose(0, 1),
        )
        return merge(past, own).reshape(rows, heads * size)

    def end_step(self) -> None:
        self.suffix_filled += 1
        self.next_position += 1

    @property
    def num_rows(self) -> int:
        return self.suffix.shape[2]

    def move_rows(self, parents: list[int]) -> None:
        """Makes row i a copy of old row parents[i], and room for one more token."""
        filled, capacity = self.suffix_filled, self.suffix.shape[4]
        stays = parents == list(range(self.num_rows))
        if stays and filled < capacity:
            return
        if filled == capacity:
            capacity = min(max(2 * capacity, _FIRST_CAPACITY), self._max_new_tokens)
        layers, _, _, kv_heads, _, size = self.suffix.shape
        moved = torch.empty(layers, 2, len(parents), kv_heads, capacity, size, **self._options)
        moved[..., :filled, :] = self.suffix[:, :, parents, :, :filled]
        self.suffix = moved

    def share_prefix(self, other: ItemCache, length: int) -> None:
        """Takes the first `length` tokens of another item's prefix, which are the same."""
        self.prefix[..., :length, :] = other.prefix[..., :length, :]
        self.prefix_filled = length

    def restart(self) -> None:
        """Forgets all suffixes: the prompt's one row is back."""
        self.suffix = self.suffix[:, :, :1, :, :0]
        self.next_position -= self.suffix_filled
        self.suffix_filled = 0

    @staticmethod
    def _attend_prefix(
        query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Full attention of [1, A, S, D] over [1, K, P, D], heads of a group folded into the queries."""
        _, heads, length, size = query.shape
        kv_heads = keys.shape[1]
        folded = query.reshape(1, kv_heads, -1, size)  # [1, K, G * S, D]
        context, lse = attention_with_lse(folded, keys, values, scale=scale)
        return context.view(1, heads, length, size), lse.reshape(1, heads, length)


def _repeat(states: torch.Tensor, groups: int) -> torch.Tensor:
    """[1, K, S, D] -> [1, K * groups, S, D], each head `groups` times in a row."""
    return states if groups == 1 else states.repeat_interleave(groups, dim=1)
