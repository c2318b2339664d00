"""The metrics of one item, worked out by hand in English and Chinese, and where they are not defined."""

from __future__ import annotations

import math
from dataclasses import astuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogbatch.eval.metrics import distinct_n, item_metrics, repeats
from cogbatch.types import Candidate


def candidate(text: str, logprob: float = -2.0, num_tokens: int = 4) -> Candidate:
    return Candidate(0, text, (), logprob, num_tokens, "stop")


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
    # BLEU of one of the equal two is 100; of the third 2/3 of the words, no pair (half of 1/2), no triple
    # (a quarter of 1/1) are in the others, so (2/3 * 1/4 * 1/4) ** (1/3).
    assert found.self_bleu == pytest.approx((200 + 100 * (1 / 24) ** (1 / 3)) / 3)
    assert found.rouge_l_distance == pytest.approx((0 + 1 / 3 + 1 / 3) / 3)
    # The kernel of the two different texts: 2/3 for words, 0 for pairs, for triples, and where short.
    share = (1 + math.sqrt(1 / 9 + 8 / 9 * (1 / 6) ** 2)) / 2
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert found.vendi_score == pytest.approx(math.exp(entropy))
    assert found.logprob_per_token == pytest.approx(-4 / 3)
    assert found.num_tokens == pytest.approx(13 / 3)


def test_chinese_is_counted_by_character() -> None:
    found = item_metrics([candidate("红色方形。"), candidate("红色圆形")])
    assert found.unique_rate == 1
    assert found.distinct_1 == pytest.approx(5 / 8)  # 红 色 方 形 圆
    assert found.distinct_2 == pytest.approx(5 / 6)  # 红色 twice
    # 3 of 4, 1 of 3, then none: half of 1/2 and a quarter of 1/1.
    assert found.self_bleu == pytest.approx(100 * (3 / 4 * 1 / 3 * 1 / 4 * 1 / 4) ** (1 / 4))
    assert found.rouge_l_distance == pytest.approx(1 - 2 * 3 / 8)


def test_without_candidates_only_their_number_is_defined() -> None:
    assert astuple(item_metrics([])) == (0, *[None] * 9)


def test_a_single_short_candidate_has_no_longer_ngrams() -> None:
    found = item_metrics([candidate("yes")])
    assert (found.unique_rate, found.distinct_1, found.distinct_2, found.distinct_3) == (1, 1, None, None)
    assert (found.self_bleu, found.rouge_l_distance, found.vendi_score) == (None, None, 1)


def test_texts_without_words_have_no_ngrams_and_still_repeat() -> None:
    found = item_metrics([candidate("?"), candidate("")])
    assert (found.unique_rate, found.distinct_1) == (0.5, None)
    assert (found.self_bleu, found.rouge_l_distance, found.vendi_score) == (None, 0, 1)


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
