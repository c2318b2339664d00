"""The settings that no other setting beats in both of two things, for example quality and diversity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cogbatch.eval.metrics import Average
from cogbatch.metric_names import COST

LOWER_IS_BETTER = frozenset({"self_bleu", COST})
# The first of these that a run has, else the last.
QUALITY = ("correct", "score", "logprob_per_token")
DIVERSITY = ("vendi_score",)


@dataclass(frozen=True)
class Plane:
    """The two metrics that runs are compared by, and which runs no other beats in both."""

    quality: str
    diversity: str
    front: tuple[bool, ...]


def plane_of(
    runs: Sequence[Mapping[str, Average]], *, quality: str | None = None, diversity: str | None = None
) -> Plane:
    """The plane of runs by their averages.

    quality, diversity: None takes the first of the usual that a run has. A run without both is not on the
    front, so where no run has them none is.
    """
    there = {metric for averages in runs for metric, one in averages.items() if one.mean is not None}
    quality = quality or next((metric for metric in QUALITY if metric in there), QUALITY[-1])
    diversity = diversity or next((metric for metric in DIVERSITY if metric in there), DIVERSITY[-1])
    front = pareto_front([(_height(one, quality), _height(one, diversity)) for one in runs])
    return Plane(quality, diversity, front)


def _height(averages: Mapping[str, Average], metric: str) -> float | None:
    return rising(metric, averages[metric].mean) if metric in averages else None


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
