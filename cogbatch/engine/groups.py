"""Which items' rows are decoded together; in deterministic mode no row's numbers depend on its company.

Rounding depends on shapes: a matrix product chooses its kernel by the number of rows, an elementwise
operation cuts its tensor into pieces for threads and vector units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from cogbatch.engine.cache import ItemCache


class RowGroup:
    """The rows of some items, in order, and rows of padding behind them that belong to nobody."""

    def __init__(self, caches: Sequence[ItemCache], *, block_rows: int = 1) -> None:
        self.caches = list(caches)
        self.num_rows = sum(cache.num_rows for cache in caches)
        self.padding = -self.num_rows % block_rows

    @property
    def positions(self) -> list[int]:
        """Rotary position of every row's next token; 0 for padding."""
        rows = [cache.next_position for cache in self.caches for _ in range(cache.num_rows)]
        return rows + [0] * self.padding

    def attend(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """Every item attends in its own cache: [R, A, 1, D] -> [R, 1, A * D]; padding gets zeros."""
        contexts, start = [], 0
        for cache in self.caches:
            own = slice(start, start + cache.num_rows)
            contexts.append(cache.decode(module, query[own], key[own], value[own]))
            start = own.stop
        if self.padding:
            contexts.append(contexts[0].new_zeros(self.padding, contexts[0].shape[1]))
        return (contexts[0] if len(contexts) == 1 else torch.cat(contexts))[:, None]


def group_items(
    caches: Sequence[ItemCache], *, deterministic: bool, block_rows: int | None
) -> list[RowGroup]:
    """The items in groups, order kept.

    Args:
        deterministic: False puts all rows into one group.
        block_rows: None gives every item a group of its own, whose numbers are then those of the item alone,
            by construction. A number packs items into groups of that many rows, padded: for devices where
            results depend on the number of rows but not on a row's place or neighbours.
    """
    if not deterministic:
        return [RowGroup(caches)]
    if block_rows is None:
        return [RowGroup([cache]) for cache in caches]
    packed: list[list[ItemCache]] = []
    room = 0
    for cache in caches:
        if not packed or cache.num_rows > room:
            packed.append([])
            room = block_rows
        packed[-1].append(cache)
        room -= cache.num_rows
    return [RowGroup(group, block_rows=block_rows) for group in packed]
