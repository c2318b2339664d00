"""Keys and values of what is being decoded, and attention over them.

An item continues prefixes, written once and never moved: its image, shared by all prompts about that image,
then its prompt, shared by its rows. Rows own suffixes, which alone move when a strategy moves rows.

L layers, R rows, A heads, K key-value heads, G = A / K, P tokens of a prefix, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cogbatch.engine.attention import Partial, attention_with_lse, merge, weigh

_FIRST_CAPACITY = 64  # tokens of suffix allocated at first; doubled when full


@dataclass(frozen=True)
class Geometry:
    """Sizes that all caches of a model share."""

    num_layers: int
    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device

    def empty(self, rows: int, length: int) -> torch.Tensor:
        """[L, 2, rows, K, length, D]: keys and values of every layer."""
        shape = (self.num_layers, 2, rows, self.num_kv_heads, length, self.head_dim)
        return torch.empty(shape, dtype=self.dtype, device=self.device)


class Prefix:
    """Keys and values of prompt tokens that any number of rows continue.

    Args:
        length: P. behind: the prefixes in front of it, that its tokens see too.

    Attributes:
        next_position: rotary position of the token behind it. last_hidden: [1, 1, H] final hidden state of
            its last token. Both are set by whoever prefills.
    """

    def __init__(self, geometry: Geometry, length: int, *, behind: Sequence[Prefix] = ()) -> None:
        self.length = length
        self.states = geometry.empty(1, length)
        self._layers = [(keys, values) for keys, values in self.states]  # views: taking one costs time
        self.next_position = 0
        self.last_hidden: torch.Tensor | None = None
        self._behind = tuple(behind)

    @property
    def chain(self) -> tuple[Prefix, ...]:
        """All that a row behind it sees: those in front of it, and itself."""
        return (*self._behind, self)

    def fill(self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Writes all P tokens of a layer and attends causally: [1, A, P, D] -> [1, P, A * D]."""
        keys, values = self._layers[module.layer_idx]
        keys.copy_(key)
        values.copy_(value)
        groups = module.num_key_value_groups
        own = attention_with_lse(
            query, _repeat(key, groups), _repeat(value, groups), scale=module.scaling, causal=True
        )
        for prefix in self._behind:
            heads, length, size = query.shape[1:]
            folded = query.reshape(1, keys.shape[1], -1, size)  # heads of a group as queries of one
            context, lse = prefix.attend(module, folded)
            own = merge((context.view(1, heads, length, size), lse.reshape(1, heads, length)), own)
        return own[0].transpose(1, 2).flatten(2)

    def attend(self, module: Any, query: torch.Tensor) -> Partial:
        """Attention of any number of queries [1, K, S, D] over all P tokens."""
        return attention_with_lse(query, *self._layers[module.layer_idx], scale=module.scaling)


class ItemCache:
    """What the rows of one item see.

    Args:
        prefix: the last one of the prompt. max_new_tokens: bounds the suffix of each row.
    """

    def __init__(self, geometry: Geometry, prefix: Prefix, *, max_new_tokens: int) -> None:
        self.prefixes = prefix.chain
        self.num_rows = 1
        self.filled = 0  # tokens in each row's suffix
        self._geometry = geometry
        self._max_new_tokens = max_new_tokens
        self._suffix = geometry.empty(0, 0)  # at least num_rows rows once there is a token

    @property
    def next_position(self) -> int:
        """Rotary position of the token that comes next, the same for all rows."""
        return self.prefixes[-1].next_position + self.filled

    @property
    def suffix(self) -> torch.Tensor:
        """[L, 2, R, K, filled, D]: what the rows have of their own."""
        return self._suffix[:, :, : self.num_rows, :, : self.filled]

    def attend(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """Appends a token to each row's suffix and attends to all: query [R, A, D], key [R, K, D] ->
        [R, A * D].

        Call `end_step` when all layers have seen the token.
        """
        rows, heads, size = query.shape
        kv_heads = key.shape[1]
        end = self.filled + 1
        keys = self._suffix[module.layer_idx, 0, :rows, :, :end]
        values = self._suffix[module.layer_idx, 1, :rows, :, :end]
        keys[:, :, -1] = key
        values[:, :, -1] = value
        grouped = query.view(rows, kv_heads, heads // kv_heads, size)  # [R, K, G, D]
        own = attention_with_lse(grouped, keys, values, scale=module.scaling)
        # Against a shared prefix all rows are queries of one sequence: [1, K, R * G, D].
        shared = grouped.transpose(0, 1).reshape(1, kv_heads, -1, size)
        context, lse = self.prefixes[0].attend(module, shared)
        for prefix in self.prefixes[1:]:
            context, lse = merge((context, lse), prefix.attend(module, shared))
        context = context.view(kv_heads, rows, -1, size).transpose(0, 1)
        lse = lse.reshape(kv_heads, rows, -1).transpose(0, 1)
        return weigh((context, lse), own).reshape(rows, heads * size)

    def end_step(self) -> None:
        self.filled += 1

    def move_rows(self, parents: Sequence[int]) -> None:
        """Makes row i a copy of old row parents[i], and room for one more token."""
        rows, capacity = self._suffix.shape[2], self._suffix.shape[4]
        if len(parents) > rows or self.filled == capacity:
            if self.filled == capacity:
                capacity = min(max(2 * capacity, _FIRST_CAPACITY), self._max_new_tokens)
            larger = self._geometry.empty(max(len(parents), rows), capacity)
            if self.filled:
                larger[:, :, : self.num_rows, :, : self.filled] = self.suffix
            self._suffix = larger
        moved = [(row, parent) for row, parent in enumerate(parents) if row != parent]
        if moved and self.filled:
            to, source = (list(rows) for rows in zip(*moved, strict=True))
            held = self._suffix[..., : self.filled, :]
            held[:, :, to] = held[:, :, source]
        self.num_rows = len(parents)

    def restart(self) -> None:
        """Forgets all suffixes: the prompt's one row is back."""
        self.num_rows, self.filled = 1, 0


def _repeat(states: torch.Tensor, groups: int) -> torch.Tensor:
    """[1, K, S, D] -> [1, K * groups, S, D], each head `groups` times in a row."""
    return states if groups == 1 else states.repeat_interleave(groups, dim=1)
