"""Laws of k candidates together, and which draws pass@k may not be computed from."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from itertools import combinations
from math import comb
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogbatch.decoding.registry import STRATEGIES
from cogbatch.eval.metrics import (
    check_draws,
    mean_at_k,
    oracle_at_k,
    pass_at_every_k,
    pass_at_k,
)
from cogbatch.types import GenerationParams, PortfolioMember

DRAWS = st.lists(st.booleans(), min_size=1, max_size=9)


def resolved(**changes: Any) -> dict[str, Any]:
    """Parameters as job.json holds them."""
    return dataclasses.asdict(GenerationParams(num_candidates=4, **changes))


def test_the_best_and_the_mean_of_the_first_k() -> None:
    scores = [0.25, 1.0, 0.5]
    assert [oracle_at_k(scores, k) for k in (1, 2, 3, 9)] == [0.25, 1, 1, 1]
    assert [mean_at_k(scores, k) for k in (1, 2, 9)] == [0.25, 0.625, 1.75 / 3]
    assert (oracle_at_k([], 1), mean_at_k([], 1)) == (None, None)


@pytest.mark.parametrize("function", [oracle_at_k, mean_at_k])
def test_k_below_1_is_an_error(function: Any) -> None:
    with pytest.raises(ValueError, match="k is 0, expected at least 1"):
        function([0.5], 0)


def test_pass_at_k_by_hand() -> None:
    """2 of 5 right: of the 10 pairs 3 hold none, of the 10 triples 1, of the 5 fours none."""
    assert pass_at_every_k(5, 2) == pytest.approx((0.4, 0.7, 0.9, 1, 1))
    assert pass_at_k(5, 2, 3) == pytest.approx(0.9)


@given(DRAWS)
def test_pass_at_k_is_the_share_of_k_subsets_that_hold_a_right_one(draws: list[bool]) -> None:
    for k, found in enumerate(pass_at_every_k(len(draws), sum(draws)), start=1):
        subsets = list(combinations(draws, k))
        assert found == pytest.approx(sum(map(any, subsets)) / len(subsets))


@given(DRAWS)
def test_pass_at_1_is_the_mean_at_n_the_best_and_it_never_falls(draws: list[bool]) -> None:
    found = pass_at_every_k(len(draws), sum(draws))
    assert found[0] == pytest.approx(mean_at_k(draws, len(draws)))
    assert found[-1] == oracle_at_k(draws, len(draws))
    assert list(found) == sorted(found)


@pytest.mark.parametrize(("num_draws", "num_correct"), [(10_000, 3), (10_000, 9_000), (200, 0), (200, 200)])
def test_many_draws_lose_no_digits(num_draws: int, num_correct: int) -> None:
    found = pass_at_every_k(num_draws, num_correct)
    for k in (1, 2, 100, num_draws // 2, num_draws):
        exact = 1 - Fraction(comb(num_draws - num_correct, k), comb(num_draws, k))
        assert found[k - 1] == pytest.approx(float(exact), rel=1e-12, abs=1e-12)


def test_pass_at_k_of_draws_that_cannot_be_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"k is 3, expected 1 to num_draws \(2\)"):
        pass_at_k(2, 1, 3)
    with pytest.raises(ValueError, match=r"num_correct is 3, expected 0 to num_draws \(2\)"):
        pass_at_k(2, 3, 1)


@pytest.mark.parametrize(
    "fine",
    [
        {},
        resolved(strategy="sample", temperature=0.7, top_p=0.9),
        resolved(strategy="arithmetic"),
        dataclasses.asdict(GenerationParams(strategy="greedy")),
        resolved(strategy="portfolio", portfolio=(PortfolioMember(prompt="Name it: {prompt}"),)),
        resolved(
            strategy="portfolio",
            resample_loops=3,
            portfolio=(PortfolioMember(params={"resample_loops": 0}),),
        ),
    ],
)
def test_draws_as_they_fell_are_accepted(fine: dict[str, Any]) -> None:
    check_draws(fine)


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        (resolved(selector="dpp"), "but selector 'dpp' chose them out of a larger pool"),
        (resolved(resample_loops=2), "but resample_loops is 2, so candidates that looped were drawn anew"),
        *(
            (resolved(strategy=name), f"but strategy '{name}' delivers distinct candidates only")
            for name in ("beam", "diverse-beam", "stochastic-beam", "branch")
        ),
        (resolved(strategy="mine"), "but strategy 'mine' is not known to draw independently"),
        (
            resolved(
                strategy="portfolio",
                portfolio=(PortfolioMember(), PortfolioMember(params={"strategy": "branch"})),
            ),
            r"but portfolio\[1\]: strategy 'branch' delivers distinct candidates only",
        ),
        (
            resolved(strategy="portfolio", resample_loops=1, portfolio=(PortfolioMember(),)),
            r"but portfolio\[0\]: resample_loops is 1",
        ),
        (
            resolved(strategy="portfolio", portfolio=(PortfolioMember(params={"resample_loops": 1}),)),
            r"but portfolio\[0\]: resample_loops is 1",
        ),
        (resolved(strategy="beam", selector="mmr"), "selector 'mmr' .*; strategy 'beam'"),
    ],
)
def test_pass_at_k_refuses_draws_that_were_chosen_and_says_why(params: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_draws(params)


def test_pass_at_k_knows_every_bundled_strategy_and_refuses_those_that_promise_distinct_ones() -> None:
    for name, strategy in STRATEGIES.items():
        params = dataclasses.asdict(GenerationParams(strategy=name))
        if strategy.distinct:
            with pytest.raises(ValueError, match=f"strategy '{name}' delivers distinct candidates only"):
                check_draws(params)
        else:
            check_draws(params)


def test_a_strategy_from_elsewhere_is_accepted_when_it_is_said_to_draw_independently() -> None:
    check_draws(resolved(strategy="mine"), independent={"mine"})
    with pytest.raises(ValueError, match="resample_loops"):
        check_draws(resolved(strategy="mine", resample_loops=1), independent={"mine"})
