"""Arithmetic sampling: exact marginals, and prefixes spread as evenly as whole numbers allow."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cogbatch.decoding.arithmetic import Arithmetic, decode_points
from cogbatch.decoding.conformance import Markov, drive
from cogbatch.types import GenerationParams

MODEL = Markov.random(4, seed=2, spread=0.8)


@pytest.mark.parametrize("k", [1, 2, 7, 16])
def test_every_prefix_appears_as_often_as_its_probability_says(k: int) -> None:
    """Floor or ceil of k times the probability, in every set: no odds, it is a law."""
    params = GenerationParams(num_candidates=k, max_new_tokens=4, ignore_eos=True)
    for item in range(25):
        drawn = [choice.hypothesis.tokens for choice in drive(Arithmetic(), params, MODEL, str(item))]
        assert len(drawn) == k
        counts = Counter(tokens[:length] for tokens in drawn for length in range(1, 5))
        for prefix in {*counts, *((token,) for token in range(4))}:
            expected = k * np.exp(MODEL.total(prefix))
            assert abs(counts[prefix] - expected) < 1 + 1e-5


@pytest.mark.parametrize("lane", [0, 4])
def test_each_draw_is_a_sample_of_the_model(lane: int) -> None:
    """Chi-square over 3 tokens of one lane, 1,500 items: one right seed in 10,000 fails; it is fixed."""
    params = GenerationParams(num_candidates=5, max_new_tokens=3, ignore_eos=True)
    counts = Counter(
        drive(Arithmetic(), params, MODEL, str(item))[lane].hypothesis.tokens for item in range(1500)
    )
    every = [(a, b, c) for a in range(4) for b in range(4) for c in range(4)]
    expected = {tokens: 1500 * np.exp(MODEL.total(tokens)) for tokens in every}
    common = [tokens for tokens in every if expected[tokens] >= 5]
    observed = [counts[tokens] for tokens in common]
    likely = [expected[tokens] for tokens in common]
    assert sum(likely) < 1495  # the rest is large enough to count as one
    pvalue = stats.chisquare([*observed, 1500 - sum(observed)], [*likely, 1500 - sum(likely)]).pvalue
    assert pvalue > 1e-4


def test_lanes_keep_their_order_in_the_distribution() -> None:
    """Lane j + 1 lies one k-th after lane j, around the circle: sequences are sorted up to rotation."""
    params = GenerationParams(num_candidates=12, max_new_tokens=2, ignore_eos=True)
    drawn = [choice.hypothesis.tokens[:1] for choice in drive(Arithmetic(), params, MODEL)]
    falls = sum(after < before for before, after in zip(drawn, drawn[1:] + drawn[:1], strict=True))
    assert falls == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 1500), st.integers(0, 1000), st.floats(0, 1, exclude_max=True))
def test_a_point_is_found_by_the_inverse_distribution_function(size: int, seed: int, place: float) -> None:
    mass = torch.randn(2, size, generator=torch.Generator().manual_seed(seed)).mul_(3).softmax(-1)
    parent = np.array([1, 0, 1])
    tokens, places, shares = decode_points(mass, parent, np.full(3, place))
    for token, inside, share, row in zip(tokens, places, shares, parent, strict=True):
        exact = mass[row].double().numpy() / mass[row].double().sum().item()
        ends = exact.cumsum()
        assert share == pytest.approx(exact[token], rel=1e-9)
        assert ends[token] - exact[token] + inside * exact[token] == pytest.approx(place, abs=1e-9)
        assert 0 <= inside < 1


@pytest.mark.parametrize("place", [0.0, 0.5, float(np.nextafter(1.0, 0.0))])
def test_tokens_without_mass_are_never_found(place: float) -> None:
    mass = torch.zeros(1, 1300)
    mass[0, [3, 700, 1100]] = torch.tensor([0.2, 0.5, 0.3])
    (token,), _, _ = decode_points(mass, np.array([0]), np.array([place]))
    assert mass[0, token] > 0
