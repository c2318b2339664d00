"""What backs a text, worked out by hand."""

from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogbatch.decoding.selector import SelectionContext
from cogbatch.decoding.support import support
from cogbatch.types import Candidate, GenerationParams

TEXTS = st.lists(st.text("ab 红。", max_size=12), min_size=1, max_size=8)


def test_the_rarest_words_and_pairs_decide() -> None:
    # Of three different texts one has "blue", ("a", "blue") and ("blue", end).
    values = support(["A red cross.", "a red cross", "a blue", "red cross"])
    assert values[2] == pytest.approx(log(1 / 3))
    # "a red cross": (start, a), a, (a, red) are in 2, 2 and 1 of 3 texts; others in 2.
    assert values[0] == values[1] == pytest.approx((log(1 / 3) + 2 * log(2 / 3)) / 3)


def test_a_true_detail_is_told_from_an_odd_one_out() -> None:
    said = ["a pink cross and a star", "a star and a pink cross", "a pink cross", "a purple cross and a star"]
    values = support([*said, "a star and a pink cross, a star"])
    assert values.argmin() == 3


@given(TEXTS)
def test_support_is_a_log_share_and_knows_no_order(texts: list[str]) -> None:
    values = support(texts)
    assert np.all((values <= 0) & (values >= -log(len(texts)) - 1e-12))
    assert support(texts[::-1]).tolist() == values.tolist()[::-1]


@given(TEXTS)
def test_saying_it_again_changes_nothing(texts: list[str]) -> None:
    assert support([*texts, texts[0]]).tolist() == [*support(texts).tolist(), support(texts)[0]]


def test_chinese_is_backed_character_by_character() -> None:
    values = support(["一个红色圆形。", "一个红色方形。", "一个蓝色圆形。"])
    assert values[0] > values[2]


def test_it_is_the_quality_that_selectors_see_where_asked_for() -> None:
    pool = [
        Candidate(0, text, (5,), cumulative_logprob=-1.0, num_tokens=1, finish_reason="stop")
        for text in ("a red cross", "a red cross and a star", "nothing")
    ]
    context = SelectionContext(pool, GenerationParams(selector="dpp", quality="support"))
    assert context.quality.tolist() == support([candidate.text for candidate in pool]).tolist()
