"""A pool as the rules see it: different texts in an order of their own, and the numbers that rules need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cogbatch.decoding.selector import SelectionContext
from cogbatch.types import Candidate

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class RankedPool:
    """The different texts of a pool, best quality first, then by content.

    Rules break ties in favour of the first, and do sums in this order: so what they choose depends on the
    candidates and not on their places in the pool, to the last bit.

    Args:
        quality: [n] in nats, falling; see SelectionContext. similarity: [n, n], a kernel, its diagonal 1.
        share: [n] of the model's answers that each text stands for, as far as the pool tells; adds up to 1.
        quality_weight: in [0, 1].
    """

    quality: Vector
    similarity: Matrix
    share: Vector
    quality_weight: float = 0.5

    def __len__(self) -> int:
        return len(self.quality)

    @cached_property
    def relevance(self) -> Vector:
        """[n] in [0, 1], to be weighed against similarities: quality as a probability or a share."""
        return np.exp(self.quality)


def rank(context: SelectionContext) -> list[int]:
    """Indices into the pool of its different texts, in the order of RankedPool; of equal texts the best."""
    first: dict[str, int] = {}
    for index in sorted(range(len(context.pool)), key=lambda index: _place(context, index)):
        first.setdefault(context.texts[index], index)
    return list(first.values())


def _place(context: SelectionContext, index: int) -> tuple[float, str, str, tuple[int, ...], int, int, str]:
    candidate = context.pool[index]
    return (
        -float(context.quality[index]),
        context.texts[index],
        candidate.text,
        candidate.token_ids,
        candidate.num_tokens,
        -1 if candidate.lane is None else candidate.lane,
        candidate.source or "",
    )


def shares(context: SelectionContext, places: Sequence[int]) -> Vector:
    """[n] of the model's answers that the texts at these places stand for; adds up to 1.

    Of draws with replacement: how often each text was drawn. Of a set drawn without replacement, whose
    candidates all have inverse inclusion weights: probability times weight, which is right on average
    (Horvitz and Thompson 1952). The texts of a search, beam for one, count once each.
    """
    mass: dict[str, float] = dict.fromkeys((context.texts[place] for place in places), 0.0)
    numbers = _masses(context)
    for text, number in sorted(zip(context.texts, numbers, strict=True)):
        mass[text] += number
    own = np.array([mass[context.texts[place]] for place in places], dtype=np.float64)
    return own / own.sum() if len(own) else own


def _masses(context: SelectionContext) -> list[float]:
    """One number of mass for each candidate of the pool."""
    weighted = [_log_mass(candidate) for candidate in context.pool]
    logs = np.array([log for log in weighted if log is not None])
    if len(logs) < len(weighted) or not np.isfinite(logs).any():
        return [float(count) for count in context.counts] or [1.0] * len(context.pool)
    return list(np.exp(logs - logs.max()).tolist())


def _log_mass(candidate: Candidate) -> float | None:
    if candidate.weight is None or not 0 < candidate.weight < np.inf:
        return None
    return candidate.cumulative_logprob + float(np.log(candidate.weight))
