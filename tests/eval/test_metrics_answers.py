"""Laws of short answers: how they are normalised, and how many people make one right."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogbatch.eval.metrics import exact_match, normalise_answer, vqa_accuracy
from cogbatch.eval.metrics.answers import RESTORED


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The two dogs.", "2 dogs"),
        ("A cat and an owl", "cat and owl"),
        ("None", "0"),
        ("ten", "10"),
        ("eleven", "eleven"),
        ("yes!", "yes"),
        ("red,white", "red white"),  # a mark inside a word becomes a blank,
        ("red, white,blue", "red whiteblue"),  # but is dropped everywhere when it is beside one somewhere
        ("left ,right,top", "left righttop"),
        ("well-lit", "well lit"),
        ("black/white", "black white"),
        ("1,000", "1000"),  # with a number like this all marks are dropped
        ("1,000-2,000", "10002000"),
        ("3.5 m", "3.5 m"),
        ("3.5.", "3.5"),
        ("U.S.A.", "usa"),
        ("2:30", "2:30"),
        ("dont know", "don't know"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("it’s", "it's"),
        ("well", "well"),
        ("  a\n dog ", "dog"),
        ("两只狗。", "两只狗"),
        ("红色，蓝色", "红色 蓝色"),
        ("红色、蓝色", "红色 蓝色"),
        ("ＹＥＳ！", "yes"),
        ("", ""),
        ("the", ""),
    ],
)
def test_answers_are_normalised_as_in_the_challenge(text: str, expected: str) -> None:
    assert normalise_answer(text) == expected


def test_no_contraction_shadows_another_or_an_english_word() -> None:
    assert not RESTORED.keys() & set(RESTORED.values())
    assert not RESTORED.keys() & {"well", "were", "shed", "hell", "shell", "wed", "ill", "its", "id"}
    assert all(key.replace("'", "") == word.replace("'", "") for key, word in RESTORED.items())


@pytest.mark.parametrize(
    ("same", "expected"),
    [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)],
)
def test_accuracy_of_an_answer_that_so_many_of_ten_gave(same: int, expected: float) -> None:
    """One: leaving it out 0, leaving out one of the nine others 1/3. Two: 2 x 1/3 + 8 x 2/3, and so on."""
    assert vqa_accuracy("Red.", ["red"] * same + ["blue"] * (10 - same)) == pytest.approx(expected)


def test_peoples_answers_are_normalised_too() -> None:
    assert vqa_accuracy("2", ["two", "Two.", "2", "the two", "a 2", "3", "3", "3", "3", "3"]) == 1


@given(st.lists(st.sampled_from("xyz"), min_size=2, max_size=11))
def test_accuracy_is_the_mean_over_all_but_one_of_the_people(humans: list[str]) -> None:
    subsets = list(combinations(humans, len(humans) - 1))
    expected = sum(min(subset.count("x") / 3, 1) for subset in subsets) / len(subsets)
    assert vqa_accuracy("x", humans) == pytest.approx(expected)


def test_one_person_leaves_nobody_to_ask() -> None:
    assert (vqa_accuracy("red", ["red"]), vqa_accuracy("red", [])) == (None, None)


def test_exact_match_is_after_normalisation_with_any_reference() -> None:
    assert exact_match("A  red SQUARE.", ["blue", "a red square"]) == 1
    assert exact_match("红色方形。", ["红色方形"]) == 1
    assert exact_match("the red square", ["a red square"]) == 0
    assert exact_match("a", []) is None
