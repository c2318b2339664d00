"""The settings that no other setting beats in both of two things, for example quality and diversity."""

from __future__ import annotations

from collections.abc import Sequence

from cogbatch.metric_names import COST

LOWER_IS_BETTER = frozenset({"self_bleu", COST})
# The first of these that a run has.
QUALITY = ("correct", "score", "logprob_per_token")
DIVERSITY = ("vendi_score",)


def pareto_front(points: Sequence[tuple[float | None, float | None]]) -> tuple[bool, ...]:
    """Whether each point is on the front: no other is at least as high in both and higher in one.

    Equal points are on it together; a point with None in it is not.
    """
    whole = [(x, y) for x, y in points if x is not None and y is not None]
    return tuple(
        x is not None and y is not None and not any(a >= x and b >= y and (a > x or b > y) for a, b in whole)
        for x, y in points
    )


def rising(metric: str, value: float | None) -> float | None:
    """The value turned so that higher is better."""
    return -value if value is not None and metric in LOWER_IS_BETTER else value
