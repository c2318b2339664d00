"""Maximal marginal relevance: good texts that no chosen one resembles."""

from __future__ import annotations

import numpy as np

from cogbatch.decoding.selectors.pool import RankedPool


def marginal_relevance(pool: RankedPool, k: int) -> list[tuple[int, float]]:
    """Again and again the text of the largest marginal value, which is its score.

    quality_weight x relevance - (1 - quality_weight) x similarity to the most similar of the chosen texts
    (Carbonell and Goldstein 1998, SIGIR). Relevance is the geometric mean of token probabilities, in [0, 1]
    like similarities.
    """
    weight = pool.quality_weight
    nearest = np.zeros(len(pool))  # [n] similarity to the most similar of the chosen
    free = np.ones(len(pool), dtype=bool)
    chosen: list[tuple[int, float]] = []
    for _ in range(k):
        value = weight * pool.relevance - (1 - weight) * nearest
        best = int(np.where(free, value, -np.inf).argmax())
        chosen.append((best, float(value[best])))
        free[best] = False
        nearest = np.maximum(nearest, pool.similarity[best])
    return chosen
