"""Determinantal choice: texts that are good and, together, span much volume.

A set scores quality_weight x sum of qualities + (1 - quality_weight) x log det of its similarities: but for a
factor the log-probability under a determinantal point process with kernel L = diag(q) S diag(q), where
q = exp(alpha quality) and alpha = quality_weight / (2 (1 - quality_weight)). At 0.5 one nat per token of
quality weighs as much as a factor e of volume. Unlike a rule on pairs it sees that a text is a mixture of
several others.
"""

from __future__ import annotations

import numpy as np

from cogbatch.decoding.selectors.pool import RankedPool

# A text whose volume beside the chosen ones is below this lies in their span, as far as float64 can tell.
SMALLEST_VOLUME = 1e-10


def greedy_map(pool: RankedPool, k: int) -> list[tuple[int, float]]:
    """Greedy maximum a posteriori: again and again the text that adds most to the set's score.

    Incremental Cholesky, O(k^2 n) (Chen et al. 2018, arXiv:1709.05135). A score is what the text added: they
    add up to (1 - quality_weight) x log det(L of the chosen). Once no text adds volume, quality decides.
    """
    quality, weight = pool.quality, pool.quality_weight
    volume = np.ones(len(pool))  # [n] squared distance from the span of the chosen
    factors = np.zeros((k, len(pool)))  # [k, n] rows of the Cholesky factor
    free = np.ones(len(pool), dtype=bool)
    chosen: list[tuple[int, float]] = []
    for step in range(k):
        gain = weight * quality + (1 - weight) * np.log(np.maximum(volume, SMALLEST_VOLUME))
        best = int(np.where(free, gain, -np.inf).argmax())
        chosen.append((best, float(gain[best])))
        free[best] = False
        if volume[best] > SMALLEST_VOLUME:
            along = pool.similarity[best] - factors[:step, best] @ factors[:step]
            factors[step] = along / np.sqrt(volume[best])
            volume = volume - factors[step] ** 2
    return chosen
