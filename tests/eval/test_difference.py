"""Laws of marking differences: pieces joined are the text, and only words that the other lacks are marked."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogbatch.eval.difference import differences, most_typical


def marked(text: str, base: str) -> str:
    """The text with brackets around what differs."""
    return "".join(f"[{piece.text}]" if piece.differs else piece.text for piece in differences(text, base))


@pytest.mark.parametrize(
    ("text", "base", "expected"),
    [
        ("a red cat", "a blue cat", "a [red] cat"),
        ("A Red cat!", "a red cat", "A Red cat!"),
        ("a cat", "a cat sleeps", "a cat"),
        ("a very small cat sleeps", "a cat", "a [very small] cat [sleeps]"),
        ("一只红色的猫", "一只蓝色的猫", "一只[红]色的猫"),
        ("the cat. A dog!", "", "[the cat. A dog]!"),
        ("", "a", ""),
        ("a b", "b a", "[a] b"),
    ],
)
def test_words_that_the_other_lacks_are_marked(text: str, base: str, expected: str) -> None:
    assert marked(text, base) == expected


@given(st.text(), st.text())
def test_pieces_joined_are_the_text_and_alternate(text: str, base: str) -> None:
    pieces = differences(text, base)
    assert "".join(piece.text for piece in pieces) == text
    assert all(piece.text for piece in pieces)
    assert all(one.differs != other.differs for one, other in pairwise(pieces))


@given(st.text())
def test_a_text_does_not_differ_from_itself(text: str) -> None:
    assert not any(piece.differs for piece in differences(text, text))


def test_the_typical_text_shares_most_and_the_first_of_equals_wins() -> None:
    assert most_typical(["a dog runs", "a cat sleeps", "a cat sits", "one cat sleeps"]) == 1
    assert most_typical(["b", "a", "a"]) == 1
    assert most_typical(["a", "b"]) == 0


def test_a_text_beyond_the_limit_is_marked_and_not_lost() -> None:
    long = " ".join(f"w{number}" for number in range(2003))
    assert marked(long, long).endswith("w1999 [w2000 w2001 w2002]")
