"""Qualities far apart, from the best text to the worst: for preference pairs with a margin."""

from __future__ import annotations

import numpy as np

from cogbatch.decoding.selectors.pool import RankedPool, Vector


def quality_spread(pool: RankedPool, k: int) -> list[tuple[int, float]]:
    """k texts, best and worst among them, whose closest two qualities are as far apart as they can be.

    Any two then make a pair with a margin; for k = 2 it is best against worst (West-of-N, Pace et al. 2024,
    arXiv:2401.12086). The score is the quality, in nats per token.
    """
    gaps = np.unique(pool.quality[:, None] - pool.quality)
    gaps = gaps[gaps >= 0]  # the answer is one of them: exact
    low, high = 0, len(gaps) - 1  # gap 0 takes all
    while low < high:
        middle = (low + high + 1) // 2
        if len(_apart(pool.quality, float(gaps[middle]))) >= k:
            low = middle
        else:
            high = middle - 1
    places = _apart(pool.quality, float(gaps[low]))[:k]
    if k > 1:
        places[-1] = len(pool) - 1  # the worst is no closer to the others than what it replaces
    return [(place, float(pool.quality[place])) for place in places]


def _apart(quality: Vector, gap: float) -> list[int]:
    """The best, then always the next that is at least this much worse: no other choice has more places."""
    places = [0]
    for place in range(1, len(quality)):
        if quality[places[-1]] - quality[place] >= gap:
            places.append(place)
    return places
