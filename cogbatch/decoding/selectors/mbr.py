"""Minimum Bayes risk: what most other answers of the model agree with."""

from __future__ import annotations

import numpy as np

from cogbatch.decoding.selectors.pool import RankedPool


def minimum_bayes_risk(pool: RankedPool, k: int) -> list[tuple[int, float]]:
    """The k texts of the highest expected utility; the score is that utility, in [0, 1].

    Utility is similarity, expected over the model's answers as the pool shows them: a text drawn five times
    counts five times (Eikema and Aziz 2022, arXiv:2108.04718). Each text is judged alone, so k > 1 gives the
    consensus and its look-alikes; k texts that serve together are k-medoids'.
    """
    utility = pool.similarity @ pool.share
    best = np.argsort(-utility, kind="stable")[:k]
    return [(int(place), float(utility[place])) for place in best]
