"""Near duplicates: similarity worked out by hand, Chinese by the character, the first one stays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cogbatch.eval.export.similar import NearTexts, bands, shingles, similarity

WORDS = st.lists(st.sampled_from(["a", "b", "c", "红", "猫", "fox"]), max_size=8).map(" ".join)


def alike(one: str, other: str) -> float:
    return similarity(shingles(one), shingles(other))


def test_similarity_is_jaccard_over_pairs_of_neighbouring_words() -> None:
    assert alike("a red cat sits here", "a red cat sits there") == 3 / 5
    assert alike("A red  cat.", "a red cat") == 1
    assert alike("a b", "c d") == 0
    assert alike("yes", "no") == 0
    assert alike("yes", "Yes!") == 1


def test_chinese_is_compared_by_the_character() -> None:
    assert alike("红色的猫在左边", "红色的猫在右边") == 4 / 8
    assert alike("红色的猫", "红色的猫。") == 1


def test_texts_without_words_are_themselves() -> None:
    assert alike("?!", "?!") == alike("", "") == 1
    assert alike("", "a") == 0


def test_long_texts_are_compared_by_a_sample_of_bounded_size() -> None:
    rng = np.random.default_rng(0)
    words = [f"w{number}" for number in rng.integers(0, 10**9, 6000)]
    one, other = " ".join(words), " ".join(words[:5000] + [f"x{number}" for number in range(1000)])
    assert len(shingles(one)) == 1024
    true = 4999 / (5999 + 1000)
    assert alike(one, other) == pytest.approx(true, abs=0.06)  # four standard deviations


def test_bands_miss_at_most_2_percent_at_the_threshold() -> None:
    assert bands(0.8) == (18, 7)  # (1 - 0.8^7)^18 = 1.4 %, with 8 rows 5.3 %
    assert bands(1.0) == (2, 64)
    assert bands(0.01) == (128, 1)  # the best there is


@given(WORDS, WORDS)
@settings(max_examples=100, deadline=None)
def test_similarity_is_symmetric_and_one_with_itself(one: str, other: str) -> None:
    assert alike(one, one) == 1
    assert 0 <= alike(one, other) == alike(other, one) <= 1


@given(st.lists(WORDS, max_size=12), st.sampled_from([0.3, 0.5, 0.8, 1.0]))
@settings(max_examples=50, deadline=None)
def test_no_text_is_dropped_that_is_not_like_an_earlier_kept_one(texts: list[str], threshold: float) -> None:
    near = NearTexts(threshold)
    kept: list[str] = []
    for text in texts:
        if near.add(text):
            kept.append(text)
        else:
            assert any(alike(text, earlier) >= threshold for earlier in kept)


def test_near_texts_are_found_and_the_first_stays() -> None:
    base = "a large red circle lies to the left of a small blue square on a striped grey background"
    near = NearTexts(0.8)
    assert near.add(base)
    assert not near.add(base.upper() + "!")
    assert not near.add(base + " today")
    assert near.add("there is a yellow star at the top and nothing else in the picture at all")
    assert near.add("红色的圆在蓝色的方块左边，背景是灰色的条纹")
    assert not near.add("红色的圆在蓝色的方块左边，背景是灰色的条纹图")


def test_most_pairs_above_the_threshold_are_brought_together() -> None:
    """200 texts, each with one word of 30 changed (Jaccard 27/31 = 0.87): 18 bands of 7 rows miss 0.04 % of
    such pairs, so that even 4 misses have odds below 1 in 10^6. Texts and permutations are fixed."""
    rng = np.random.default_rng(1)
    near, found = NearTexts(0.8), 0
    for number in range(200):
        words = [f"w{value}" for value in rng.integers(0, 10**6, 30)]
        assert near.add(" ".join(words))
        words[10] = f"changed{number}"
        found += not near.add(" ".join(words))
    assert found >= 197
