"""The rules of selectors as mathematics: worked out by hand, and against brute force on small pools."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, pairwise
from math import e, exp, factorial, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cogbatch.decoding.selectors.dpp import greedy_map
from cogbatch.decoding.selectors.k_medoids import k_medoids
from cogbatch.decoding.selectors.mbr import minimum_bayes_risk
from cogbatch.decoding.selectors.mmr import marginal_relevance
from cogbatch.decoding.selectors.pool import Matrix, RankedPool
from cogbatch.decoding.selectors.spread import quality_spread

Picks = list[tuple[int, float]]


def pool(
    similarity: object = None, quality: object = None, share: object = None, weight: float = 0.5
) -> RankedPool:
    matrix = np.eye(len(quality)) if similarity is None else np.array(similarity, dtype=float)
    n = len(matrix)
    return RankedPool(
        quality=np.zeros(n) if quality is None else np.array(quality, dtype=float),
        similarity=matrix,
        share=np.full(n, 1 / n) if share is None else np.array(share, dtype=float),
        quality_weight=weight,
    )


@st.composite
def pools(draw: st.DrawFn) -> RankedPool:
    """Cosines of non-negative vectors, often in less than n dimensions, so that kernels are singular too."""
    seed, n, d = draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, 7)), draw(st.integers(1, 9))
    random = np.random.default_rng(seed)
    vectors = random.random((n, d)) ** 3 + 1e-3
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return pool(
        similarity=np.minimum(vectors @ vectors.T, 1),
        quality=np.sort(-3 * random.random(n))[::-1],
        share=random.dirichlet(np.ones(n)),
        weight=draw(st.sampled_from([0.0, 0.2, 0.5, 0.8])),
    )


def kernel(ranked: RankedPool) -> Matrix:
    """L = diag(q) S diag(q) of a determinantal point process."""
    alpha = ranked.quality_weight / (2 * (1 - ranked.quality_weight))
    q = np.exp(alpha * ranked.quality)
    return q[:, None] * ranked.similarity * q


def places(picks: Picks) -> list[int]:
    return [place for place, _ in picks]


@settings(deadline=None)
@given(pools(), st.integers(1, 7))
def test_the_product_of_dpp_gains_is_the_determinant_of_the_chosen(ranked: RankedPool, k: int) -> None:
    picks = greedy_map(ranked, min(k, len(ranked)))
    chosen = places(picks)
    gains = [exp(score / (1 - ranked.quality_weight)) for _, score in picks]
    exact = np.linalg.det(kernel(ranked)[np.ix_(chosen, chosen)])
    assert np.prod(gains) == pytest.approx(exact, rel=1e-5, abs=1e-8)


@settings(deadline=None)
@given(pools(), st.integers(1, 4))
def test_every_dpp_gain_is_the_largest_there_is(ranked: RankedPool, k: int) -> None:
    """Each step against determinants computed from nothing."""
    matrix, chosen = kernel(ranked), list[int]()
    for place, _ in greedy_map(ranked, min(k, len(ranked))):
        others = [other for other in range(len(ranked)) if other not in chosen]
        volumes = [np.linalg.det(matrix[np.ix_([*chosen, other], [*chosen, other])]) for other in others]
        assert volumes[others.index(place)] >= max(volumes) * (1 - 1e-6) - 1e-9
        chosen.append(place)


@settings(deadline=None)
@given(pools(), st.integers(1, 4))
def test_greedy_dpp_is_within_its_bound_of_the_best_set(ranked: RankedPool, k: int) -> None:
    """det of the greedy set >= det of the best / (k!)^2 (Civril and Magdon-Ismail 2009)."""
    k, matrix = min(k, len(ranked)), kernel(ranked)

    def volume(chosen: tuple[int, ...]) -> float:
        return float(np.linalg.det(matrix[np.ix_(chosen, chosen)]))

    best = max(volume(chosen) for chosen in combinations(range(len(ranked)), k))
    assert volume(tuple(places(greedy_map(ranked, k)))) >= best / factorial(k) ** 2 - 1e-9


def test_dpp_sees_a_mixture_of_three_where_mmr_sees_pairs() -> None:
    """Three vectors at right angles; a fourth in their span, at cosine 0.577 to each; a fifth at 0.6 to one.

    Beside the three, the fourth has no volume and the fifth 1 - 0.36, though it is nearer to one of them.
    """
    vectors = np.eye(5, 4)
    vectors[3] = [3**-0.5, 3**-0.5, 3**-0.5, 0]
    vectors[4] = [0.6, 0, 0, 0.8]
    ranked = pool(similarity=vectors @ vectors.T, weight=0.0)
    assert places(greedy_map(ranked, 4)) == [0, 1, 2, 4]
    assert [score for _, score in greedy_map(ranked, 4)] == pytest.approx([0, 0, 0, log(0.64)])
    assert places(marginal_relevance(ranked, 4)) == [0, 1, 2, 3]


def test_dpp_trades_a_nat_of_quality_for_a_factor_e_of_volume() -> None:
    """The second leaves 1 - 0.36 of volume, log 0.64 = -0.446: worth it from 0.446 nats per token on."""
    similarity = [[1, 0.6, 0], [0.6, 1, 0], [0, 0, 1]]
    assert places(greedy_map(pool(similarity, quality=[0, -0.5, -0.9]), 2)) == [0, 2]
    assert places(greedy_map(pool(similarity, quality=[0, -0.5, -1.0]), 2)) == [0, 1]
    picks = greedy_map(pool(similarity, quality=[0, -0.5, -1.0]), 2)
    assert picks[1][1] == pytest.approx(0.5 * -0.5 + 0.5 * log(0.64))


def test_dpp_of_a_singular_kernel_goes_on_by_quality() -> None:
    ranked = pool(similarity=np.ones((4, 4)), quality=[-1, -2, -3, -4])
    picks = greedy_map(ranked, 3)
    assert places(picks) == [0, 1, 2]
    assert all(np.isfinite([score for _, score in picks]))


def test_mmr_weighs_relevance_against_the_nearest_chosen_text() -> None:
    similarity = [[1, 0.9, 0.2], [0.9, 1, 0.1], [0.2, 0.1, 1]]
    quality = [log(0.8), log(0.7), log(0.4)]
    picks = marginal_relevance(pool(similarity, quality, weight=0.5), 3)
    assert places(picks) == [0, 2, 1]  # 0.2 - 0.1 against 0.35 - 0.45; then 0.9 is the nearest, not 0.1
    assert [score for _, score in picks] == pytest.approx([0.4, 0.1, -0.1])
    assert places(marginal_relevance(pool(similarity, quality, weight=0.8), 3)) == [0, 1, 2]


def test_mbr_is_the_expected_similarity_to_the_answers() -> None:
    similarity = [[1, 0.5, 0], [0.5, 1, 0.5], [0, 0.5, 1]]
    picks = minimum_bayes_risk(pool(similarity, share=[0.2, 0.3, 0.5]), 2)
    assert places(picks) == [1, 2]
    assert [score for _, score in picks] == pytest.approx([0.1 + 0.3 + 0.25, 0.15 + 0.5])


def worth(ranked: RankedPool, medoids: tuple[int, ...]) -> float:
    """The objective of k-medoids, written out."""
    nearest = [max(ranked.similarity[medoid, answer] for medoid in medoids) for answer in range(len(ranked))]
    cover = sum(share * similarity for share, similarity in zip(ranked.share, nearest, strict=True))
    relevance = sum(exp(ranked.quality[medoid]) for medoid in medoids) / len(medoids)
    return (1 - ranked.quality_weight) * cover + ranked.quality_weight * relevance


@settings(deadline=None, max_examples=300)
@given(pools(), st.integers(1, 4))
def test_k_medoids_is_within_its_bound_and_no_exchange_helps(ranked: RankedPool, k: int) -> None:
    k = min(k, len(ranked))
    picks = k_medoids(ranked, k)
    chosen = tuple(places(picks))
    found = worth(ranked, chosen)
    best = max(worth(ranked, medoids) for medoids in combinations(range(len(ranked)), k))
    assert found >= (1 - 1 / e) * best - 1e-12
    for out in chosen:
        for other in set(range(len(ranked))) - set(chosen):
            assert worth(ranked, (*(set(chosen) - {out}), other)) <= found + 1e-9
    assert sum(score for _, score in picks) == pytest.approx(1)


def test_k_medoids_leaves_where_greedy_building_would_stay() -> None:
    """Between two groups lies a text that alone covers most; of two medoids it is the worse."""
    similarity = np.eye(5)
    similarity[:2, :2] = similarity[3:, 3:] = 0.9
    similarity[2, :] = similarity[:, 2] = 0.6
    np.fill_diagonal(similarity, 1)
    ranked = pool(similarity, share=[0.24, 0.24, 0.04, 0.24, 0.24], weight=0.0)
    assert places(k_medoids(ranked, 1)) == [2]
    assert places(k_medoids(ranked, 2)) == [0, 3]
    assert [score for _, score in k_medoids(ranked, 2)] == pytest.approx([0.52, 0.48])


@settings(deadline=None)
@given(pools())
def test_one_medoid_is_the_minimum_bayes_risk_choice(ranked: RankedPool) -> None:
    plain = pool(ranked.similarity, ranked.quality, ranked.share, weight=0.0)
    utility = ranked.similarity @ ranked.share
    assert utility[k_medoids(plain, 1)[0][0]] == pytest.approx(utility.max())
    assert minimum_bayes_risk(plain, 1)[0][1] == pytest.approx(utility.max())


@settings(deadline=None)
@given(st.lists(st.integers(-12, 0), min_size=1, max_size=8), st.integers(1, 5))
def test_spread_has_the_widest_smallest_gap_and_both_ends(values: list[int], k: int) -> None:
    ranked = pool(quality=sorted((value / 4 for value in values), reverse=True))
    k = min(k, len(values))

    def gap(chosen: tuple[int, ...]) -> float:
        qualities = sorted(ranked.quality[list(chosen)])
        return min((b - a for a, b in pairwise(qualities)), default=0.0)

    picks = quality_spread(ranked, k)
    chosen = places(picks)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == k
    assert gap(tuple(chosen)) == max(gap(other) for other in combinations(range(len(values)), k))
    assert chosen[0] == 0
    assert k == 1 or chosen[-1] == len(values) - 1
    assert [score for _, score in picks] == [ranked.quality[place] for place in chosen]


@pytest.mark.parametrize("rule", [greedy_map, marginal_relevance, k_medoids])
def test_the_first_of_equal_choices_is_taken(rule: Callable[[RankedPool, int], Picks]) -> None:
    assert places(rule(pool(similarity=np.eye(4)), 2)) == [0, 1]
