"""What counts as a loop, worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogbatch.decoding.loops import MAX_PERIOD, MIN_TOKENS, REPEATS, is_loop


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([], False),
        ([7] * 11, False),
        ([7] * 12, True),
        ([1, 2, 3, 4] * 3, True),
        ([1, 2, 3, 4] * 2 + [1, 2, 3], False),
        ([9, 8] + [1, 2, 3, 4] * 3 + [5, 6], True),
        (list(range(10)) * 3, True),
        (list(range(10)) * 2, False),
        ([1, 2, 3, 4, 5, 1, 2, 3, 4, 6, 1, 2, 3, 4, 7], False),
        (list(range(40)), False),
    ],
)
def test_loops_are_three_equal_pieces_of_twelve_tokens_and_more(tokens: list[int], expected: bool) -> None:
    assert is_loop(tokens) is expected


@given(st.lists(st.integers(0, 3), min_size=1, max_size=MAX_PERIOD), st.lists(st.integers(0, 3), max_size=5))
def test_any_piece_said_often_enough_is_a_loop(piece: list[int], before: list[int]) -> None:
    repeats = max(REPEATS, -(-MIN_TOKENS // len(piece)))
    assert is_loop([*before, *piece * repeats])


@given(st.lists(st.integers(), unique=True, max_size=50))
def test_a_text_without_repetition_is_none(tokens: list[int]) -> None:
    assert not is_loop(tokens)
