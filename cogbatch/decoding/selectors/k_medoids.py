"""Medoids: texts that stand for groups of the model's answers, so that together they cover what it says."""

from __future__ import annotations

import numpy as np

from cogbatch.decoding.selectors.pool import Matrix, RankedPool, Vector

_SMALLEST_GAIN = 1e-12  # below it an exchange is rounding, and could go on for ever


def k_medoids(pool: RankedPool, k: int) -> list[tuple[int, float]]:
    """k medoids, the one that stands for most answers first; the score is its share of the answers.

    Maximises (1 - quality_weight) x coverage + quality_weight x mean relevance: coverage is the expected
    similarity of an answer to its nearest medoid, relevance the geometric mean of token probabilities. Greedy
    building, then exchanges while one helps (Kaufman and Rousseeuw 1990, without random starts): never below
    1 - 1/e of the optimum (Nemhauser et al. 1978). One medoid with quality_weight 0 is mbr's choice; several
    maximise the expected utility of the best among them (Jinnai et al. 2024, arXiv:2401.05054).
    """
    cover = (1 - pool.quality_weight) * pool.similarity * pool.share  # [n medoids, n answers]
    merit = pool.quality_weight * pool.relevance / k  # [n]
    medoids = _build(cover, merit, k)
    while (swapped := _swap(cover, merit, medoids)) is not None:
        medoids = swapped
    medoids = sorted(medoids)
    nearest = pool.similarity[medoids].argmax(axis=0)
    own = np.bincount(nearest, weights=pool.share, minlength=k)
    order = np.argsort(-own, kind="stable")
    return [(medoids[index], float(own[index])) for index in order]


def _build(cover: Matrix, merit: Vector, k: int) -> list[int]:
    medoids: list[int] = []
    covered = np.zeros(cover.shape[1])
    for _ in range(k):
        worth = np.maximum(cover, covered).sum(axis=1) + merit
        worth[medoids] = -np.inf
        medoids.append(int(worth.argmax()))
        covered = np.maximum(covered, cover[medoids[-1]])
    return medoids


def _swap(cover: Matrix, merit: Vector, medoids: list[int]) -> list[int] | None:
    """The medoids after the exchange of one that helps most; None if none helps.

    All exchanges at once, as what joining brings plus what leaving costs (Schubert and Rousseeuw 2019,
    arXiv:1810.05691).
    """
    covered = cover[medoids]  # [k, n]
    nearest = covered.argmax(axis=0)
    first = covered.max(axis=0)
    second = np.where(np.arange(len(medoids))[:, None] == nearest, 0, covered).max(axis=0)
    joins = np.maximum(cover, first).sum(axis=1) - first.sum() + merit  # [n]
    # [n, k]: the answers of a medoid that leaves go to their second nearest, or to the one that joins.
    leaves = (np.maximum(cover, second) - np.maximum(cover, first)) @ np.eye(len(medoids))[nearest]
    change = joins[:, None] + leaves - merit[medoids]
    change[medoids] = -np.inf
    place, index = np.unravel_index(change.argmax(), change.shape)
    if change[place, index] <= _SMALLEST_GAIN:
        return None
    return [*medoids[:index], *medoids[index + 1 :], int(place)]
