"""Laws of text comparison: what is the same, and what a token is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogbatch.text import ngrams, normalise, tokens


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A  red\tSQUARE.\n", "a red square"),
        ("Straße?!", "strasse"),
        ("ｆｕｌｌ　ｗｉｄｔｈ！", "full width"),
        ("ﬁne…", "fine"),
        ("一个红色的正方形。", "一个红色的正方形"),
        ("about 50%", "about 50%"),
        ("a cat (red).", "a cat (red)"),
        (" . ", ""),
        ("", ""),
    ],
)
def test_case_width_blanks_and_final_punctuation_do_not_count(text: str, expected: str) -> None:
    assert normalise(text) == expected


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@given(st.text(alphabet=st.characters(codec="ascii")))
def test_ascii_case_never_counts(text: str) -> None:
    assert normalise(text.upper()) == normalise(text.lower())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A cat, a dog - and 2 birds.", ["A", "cat", "a", "dog", "and", "2", "birds"]),
        ("the cat's well-lit “room”", ["the", "cat's", "well-lit", "room"]),
        ("一只cat在这里。", ["一", "只", "cat", "在", "这", "里"]),
        ("ネコ、です", ["ネ", "コ", "で", "す"]),
        ("빨간 고양이", ["빨간", "고양이"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("𠮷野家", ["𠮷", "野", "家"]),
        ("...", []),
        ("", []),
    ],
)
def test_a_token_is_a_word_or_one_cjk_character(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


@given(st.text())
def test_tokens_lie_in_the_text_in_order_and_hold_no_blanks(text: str) -> None:
    end = 0
    for token in tokens(text):
        start = text.index(token, end)
        end = start + len(token)
        assert token.split() == [token]


def test_ngrams_are_the_runs_of_neighbours() -> None:
    assert ngrams(["a", "b", "a"], 2) == [("a", "b"), ("b", "a")]
    assert ngrams(["a", "b", "a"], 3) == [("a", "b", "a")]
    assert ngrams(["a"], 2) == []
    with pytest.raises(ValueError, match="n is 0, expected at least 1"):
        ngrams(["a"], 0)
