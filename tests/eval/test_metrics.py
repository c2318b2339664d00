"""Metrics worked out by hand, in English and Chinese, and where they are not defined."""

from __future__ import annotations

import math
from dataclasses import astuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogbatch.eval.metrics import METRICS, ItemMetrics, averages, distinct_n, item_metrics, repeats
from cogbatch.types import Candidate


def candidate(text: str, logprob: float = -2.0, num_tokens: int = 4) -> Candidate:
    return Candidate(0, text, (), logprob, num_tokens, "stop")


def rated(value: float | None) -> ItemMetrics:
    """An item of which only the unique rate differs."""
    return ItemMetrics(1, value, None, None, None, -1.0, 2.0)


def test_metrics_of_an_item_are_those_worked_out_by_hand() -> None:
    found = item_metrics(
        [
            candidate("A red square.", logprob=-2.0, num_tokens=4),  # -0.5 a token
            candidate("a red SQUARE", logprob=-6.0, num_tokens=4),  # -1.5
            candidate("a blue square", logprob=-10.0, num_tokens=5),  # -2.0
        ]
    )
    assert found.num_candidates == 3
    assert found.unique_rate == pytest.approx(2 / 3)
    assert found.distinct_1 == pytest.approx(4 / 9)  # a, red, square, blue
    assert found.distinct_2 == pytest.approx(4 / 6)  # a red, red square, a blue, blue square
    assert found.distinct_3 == pytest.approx(2 / 3)
    assert found.logprob_per_token == pytest.approx(-4 / 3)
    assert found.num_tokens == pytest.approx(13 / 3)


def test_chinese_is_counted_by_character() -> None:
    found = item_metrics([candidate("红色方形。"), candidate("红色圆形")])
    assert found.unique_rate == 1
    assert found.distinct_1 == pytest.approx(5 / 8)  # 红 色 方 形 圆
    assert found.distinct_2 == pytest.approx(5 / 6)  # 红色 twice


def test_without_candidates_only_their_number_is_defined() -> None:
    assert astuple(item_metrics([])) == (0, None, None, None, None, None, None)


def test_a_single_short_candidate_has_no_longer_ngrams() -> None:
    found = item_metrics([candidate("yes")])
    assert (found.unique_rate, found.distinct_1, found.distinct_2, found.distinct_3) == (1, 1, None, None)


def test_texts_without_words_have_no_ngrams_and_still_repeat() -> None:
    found = item_metrics([candidate("?"), candidate("")])
    assert (found.unique_rate, found.distinct_1) == (0.5, None)


@pytest.mark.parametrize(
    "wrong", [candidate("a", -1.0, 0), candidate("a", -math.inf), candidate("a", math.nan)]
)
def test_a_candidate_without_a_likelihood_is_left_out_of_it(wrong: Candidate) -> None:
    assert item_metrics([wrong]).logprob_per_token is None
    assert item_metrics([wrong, candidate("b", -2.0, 4)]).logprob_per_token == -0.5


@given(st.lists(st.text("ab 红", max_size=8), min_size=1, max_size=5), st.permutations(range(5)))
def test_order_does_not_matter_and_rates_lie_in_0_to_1(texts: list[str], order: list[int]) -> None:
    shuffled = [texts[index] for index in order if index < len(texts)]
    found, again = (item_metrics([candidate(text) for text in some]) for some in (texts, shuffled))
    assert found == again
    for rate in (found.unique_rate, found.distinct_1, found.distinct_2, found.distinct_3):
        assert rate is None or 0 < rate <= 1


def test_repeating_all_candidates_halves_the_rates() -> None:
    once = [["a", "b"], ["c", "d"]]
    assert (distinct_n(once, 2), distinct_n(once * 2, 2)) == (1, 0.5)


def test_repeats_name_the_first_text_that_is_the_same() -> None:
    assert repeats(["Yes.", "no", "yes", "YES!", "maybe"]) == (None, None, 0, 0, None)


def test_averages_leave_out_what_is_not_defined() -> None:
    found = {average.metric: average for average in averages([rated(0.5), rated(None), rated(1.0)])}
    assert tuple(found) == METRICS
    assert (found["unique_rate"].num_items, found["unique_rate"].mean) == (2, 0.75)
    assert (found["unique_rate"].low, found["unique_rate"].high) == (0.5, 1.0)
    never = found["distinct_1"]
    assert (never.num_items, never.mean, never.low, never.high) == (0, None, None, None)
    same = found["logprob_per_token"]
    assert (same.num_items, same.mean, same.low, same.high) == (3, -1, -1, -1)


def test_one_item_has_a_mean_and_no_interval() -> None:
    found = averages([rated(0.5)])[1]
    assert (found.num_items, found.mean, found.low, found.high) == (1, 0.5, None, None)


def test_no_items_have_no_averages_and_no_warning() -> None:
    assert {(average.num_items, average.mean) for average in averages([])} == {(0, None)}


def test_the_same_seed_gives_the_same_intervals() -> None:
    items = [rated(number / 40) for number in range(40)]
    assert averages(items, seed=1) == averages(items, seed=1)
    assert averages(items, seed=1)[1].low != averages(items, seed=2)[1].low


def test_the_interval_is_that_of_a_mean() -> None:
    """0 and 1 half each, n = 400: 0.5 ± 1.96 x 0.5 / 20 = ± 0.049. Seeded: no odds of a false alarm."""
    found = averages([rated(float(number % 2)) for number in range(400)])[1]
    assert found.low == pytest.approx(0.451, abs=0.004)
    assert found.high == pytest.approx(0.549, abs=0.004)
