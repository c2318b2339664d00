"""Measures of diversity worked out by hand, and their laws: bounds, order, and what repeating a text does."""

from __future__ import annotations

import math
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogbatch.eval.metrics import (
    compression_ratio,
    distinct_n,
    rouge_l_distance,
    self_bleu,
    sentence_bleu,
    unique_rate,
    vendi_score,
)
from cogbatch.eval.metrics.counts import count_texts, words_of
from cogbatch.eval.metrics.diversity import distinct_rates

# Short, with few words, so that texts repeat, share n-grams and lack words often.
TEXTS = st.lists(st.text("ab 红", max_size=9), min_size=1, max_size=6)
MEASURES = (unique_rate, self_bleu, rouge_l_distance, vendi_score, compression_ratio)


def effective(counts: list[int]) -> float:
    """exp of the entropy of shares: how many there are in effect."""
    return math.exp(-sum(count / sum(counts) * math.log(count / sum(counts)) for count in counts))


def test_self_bleu_is_the_mean_over_texts() -> None:
    """The last: 3 of 4 words, 2 of 3 pairs, 1 of 2 triples, and half a match for the run of four."""
    last = 100 * (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** (1 / 4)
    assert self_bleu(["a b c d", "a b c d", "a b c e"]) == pytest.approx((100 + 100 + last) / 3)


def test_self_bleu_of_equal_texts_is_100_and_of_unlike_ones_0() -> None:
    assert self_bleu(["A b.", "a b", "a b"]) == pytest.approx(100)
    assert self_bleu(["a b", "c d", "e"]) == 0
    assert self_bleu(["红色方形", "红色方形。"]) == pytest.approx(100)


@given(st.lists(st.text("ab 红", min_size=1, max_size=9).filter(words_of), min_size=2, max_size=5))
def test_self_bleu_is_what_sacrebleu_says_of_each_text_against_the_others(texts: list[str]) -> None:
    scores = [sentence_bleu(text, texts[:i] + texts[i + 1 :]) for i, text in enumerate(texts)]
    assert self_bleu(texts) == pytest.approx(sum(score or 0 for score in scores) / len(texts))


def test_rouge_l_distance_is_the_mean_over_pairs() -> None:
    """LCS of the first two is 3 of 4 and 4 words; nothing is common to the others."""
    assert rouge_l_distance(["a b c d", "a c b d", "x"]) == pytest.approx((0.25 + 1 + 1) / 3)
    assert rouge_l_distance(["红色方形", "红色圆形"]) == pytest.approx(0.25)


def test_measures_of_pairs_need_two_texts() -> None:
    assert (self_bleu(["a"]), rouge_l_distance(["a"]), self_bleu(["a", "?"])) == (None, None, None)
    assert [measure([]) for measure in MEASURES] == [None] * 5


def test_vendi_counts_unlike_texts_and_not_copies() -> None:
    assert vendi_score(["a b", "c d", "e"]) == pytest.approx(3)
    assert vendi_score(["a b", "A b.", "a b"]) == pytest.approx(1)
    assert vendi_score(["一只猫", "小狗"]) == pytest.approx(2)


def test_vendi_of_two_texts_by_hand() -> None:
    """Half of the words are common, no pairs; for n = 3 and 4 both are short and not the same."""
    alike = (1 / 2 + 0 + 0 + 0) / 4
    assert vendi_score(["a b", "a c"]) == pytest.approx(effective([1 + alike, 1 - alike]))


def test_vendi_weighs_repeated_words_by_the_cosine() -> None:
    """(2, 0) and (1, 1): 1 / sqrt(2) for words, 0 for pairs, 0 and 0 where both are short."""
    alike = 1 / math.sqrt(2) / 4
    assert vendi_score(["a a", "a b"]) == pytest.approx(effective([1 + alike, 1 - alike]))


@given(st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=9))
def test_vendi_of_unlike_texts_is_the_entropy_of_how_often_each_comes(texts: list[str]) -> None:
    assert vendi_score(texts) == pytest.approx(effective(list(Counter(texts).values())))


@given(TEXTS)
def test_vendi_is_at_most_the_number_of_different_texts(texts: list[str]) -> None:
    score = vendi_score(texts)
    assert score is not None
    assert 1 <= score <= len(set(map(words_of, texts))) + 1e-9


@given(TEXTS, st.integers(2, 3))
def test_vendi_does_not_change_when_every_text_comes_as_often_again(texts: list[str], times: int) -> None:
    assert vendi_score(texts * times) == pytest.approx(vendi_score(texts))


@given(st.sets(st.sampled_from("abcdefg"), min_size=2), st.integers(1, 5))
def test_a_copy_among_unlike_texts_lowers_vendi(texts: set[str], copies: int) -> None:
    unlike = sorted(texts)
    with_copies, without = vendi_score(unlike + unlike[:1] * copies), vendi_score(unlike)
    assert with_copies is not None
    assert without is not None
    assert with_copies < without - 1e-6


def test_compression_ratio_by_hand() -> None:
    """gzip: 10 bytes before, 8 after, and one letter in 3 + 8 + 7 bits, which are 3 bytes."""
    assert compression_ratio(["a"]) == 1 / 21
    assert compression_ratio([""]) is None


def test_texts_that_repeat_each_other_compress_better() -> None:
    different = ["a red square on the left", "two green circles meet below", "the blue line has no end"]
    again, once = compression_ratio(different[:1] * 3), compression_ratio(different)
    assert again is not None
    assert once is not None
    assert again > 1.5 * once


def test_a_text_that_has_no_utf_8_still_compresses() -> None:
    assert compression_ratio(["\ud800"]) == 1 / 21


@given(TEXTS)
def test_rates_counted_at_once_are_those_of_each_n(texts: list[str]) -> None:
    words = [words_of(text) for text in texts]
    assert distinct_rates(texts) == [distinct_n(words, n) for n in (1, 2, 3, 4)]


@given(TEXTS)
def test_counts_are_those_of_the_ngrams_of_each_text(texts: list[str]) -> None:
    counted = count_texts(texts)
    assert sorted(counted.words) == sorted(map(words_of, texts))
    for n, counts in enumerate(counted.orders, start=1):
        runs = [Counter(words[i : i + n] for i in range(len(words) - n + 1)) for words in counted.words]
        assert [sorted(row[row > 0]) for row in counts] == [sorted(run.values()) for run in runs]
        overlap = [[sum(row[other > 0]) for other in counts] for row in counts]
        assert overlap == [[sum(run[gram] for gram in other) for other in runs] for run in runs]


@given(TEXTS, st.randoms(use_true_random=False))
def test_order_never_counts_and_values_lie_in_their_bounds(texts: list[str], random: Random) -> None:
    shuffled = list(texts)
    random.shuffle(shuffled)
    for measure, low, high in zip(MEASURES, (0, 0, 0, 1, 0), (1, 100, 1, len(texts), math.inf), strict=True):
        value = measure(texts)
        assert measure(shuffled) == value
        assert value is None or low <= value <= high
