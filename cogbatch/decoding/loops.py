"""Degenerate repetition: a candidate that says the same few tokens over and over. Token ids only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

REPEATS = 3
MIN_TOKENS = 12
MAX_PERIOD = 64
_GRAM = 4


def is_loop(tokens: Sequence[int]) -> bool:
    """Whether some stretch is a run of REPEATS or more equal pieces of up to MAX_PERIOD tokens.

    The stretch has at least MIN_TOKENS tokens, so "very, very, very" is none. It may lie anywhere: a text
    that finds its way out of a loop is spoilt all the same.
    """
    # Three equal pieces of 12 tokens and more repeat some 4-gram three times: most texts end here.
    grams = Counter(zip(*(tokens[start:] for start in range(_GRAM)), strict=False))
    if not grams or max(grams.values()) < REPEATS:
        return False
    longest = min(MAX_PERIOD, len(tokens) // REPEATS)
    return any(_repeats_with(tokens, period) for period in range(1, longest + 1))


def _repeats_with(tokens: Sequence[int], period: int) -> bool:
    """Whether the token `period` places back comes again for long enough."""
    needed = max(MIN_TOKENS, REPEATS * period) - period
    run = 0
    for earlier, later in zip(tokens, tokens[period:], strict=False):
        run = run + 1 if earlier == later else 0
        if run >= needed:
            return True
    return False
