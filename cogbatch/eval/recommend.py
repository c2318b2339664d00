"""The cheapest point of a sweep that meets stated floors, or the one that comes nearest."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cogbatch.eval.sweep_table import PointResult, SweepTable
from cogbatch.metric_names import COST, why_unknown

_FLOOR = re.compile(r"\s*([\w@]+)\s*(>=|<=)\s*(\S+)\s*")


@dataclass(frozen=True)
class Floor:
    """What a metric must be: at least (">=") or at most ("<=") a bound."""

    metric: str
    relation: str
    bound: float

    def __str__(self) -> str:
        return f"{self.metric} {self.relation} {self.bound:g}"

    def shortfall(self, value: float | None) -> float:
        """How far a value is from the bound; 0 where it is met, infinite where there is no value."""
        if value is None:
            return math.inf
        return max(0.0, self.bound - value if self.relation == ">=" else value - self.bound)


@dataclass(frozen=True)
class FloorCheck:
    """A floor and the point that was named. sure: the worse end of the 95 % interval meets it too."""

    floor: Floor
    mean: float | None
    met: bool
    sure: bool

    def line(self) -> str:
        """For a person."""
        have = "it has none" if self.mean is None else f"{self.mean:.4g}"
        missing = self.floor.shortfall(self.mean)
        if not self.met:
            return f"{self.floor}: missed, {have}" + (
                f", {missing:.3g} short" if self.mean is not None else ""
            )
        doubt = "" if self.sure else ", but within its 95 % interval it may miss it"
        return f"{self.floor}: met, {have}{doubt}"


@dataclass(frozen=True)
class Recommendation:
    """point: None when no point has all the metrics. meets: all floors; otherwise it is the nearest."""

    point: str | None
    path: str | None
    meets: bool
    seconds_per_item: float | None
    checks: tuple[FloorCheck, ...]

    @property
    def sure(self) -> bool:
        """Whether the worse ends of all intervals meet the floors too."""
        return self.meets and all(check.sure for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {**asdict(self), "sure": self.sure}

    def lines(self) -> list[str]:
        """The same for a person."""
        if self.point is None:
            return ["recommended: none, no point has all these metrics"]
        cost = (
            "" if self.seconds_per_item is None else f" ({self.seconds_per_item:.3g} engine seconds an item)"
        )
        head = (
            f"recommended: {self.point}{cost}, the cheapest that meets every floor"
            if self.meets
            else f"no point meets every floor; {self.point}{cost} comes nearest"
        )
        return [head, *(f"  {check.line()}" for check in self.checks)]


def parse_floors(texts: Iterable[str], *, judged: bool) -> tuple[Floor, ...]:
    """Floors like "correct>=0.9", or several with commas between them.

    Raises ValueError: not of this form, or no run has such a metric.
    """
    floors = []
    for text in (part for given in texts for part in given.split(",")):
        match = _FLOOR.fullmatch(text)
        try:
            bound = float(match[3]) if match else math.nan
        except ValueError:
            bound = math.nan
        if match is None or not math.isfinite(bound):
            raise ValueError(f"--recommend {text!r}: expected metric>=number, for example correct>=0.9")
        if reason := why_unknown(match[1], judged=judged):
            raise ValueError(f"--recommend {text!r}: {match[1]}: {reason}")
        floors.append(Floor(match[1], match[2], bound))
    return tuple(floors)


def recommend(table: SweepTable, floors: Sequence[Floor]) -> Recommendation:
    """The point with the lowest engine seconds an item of those whose means meet every floor.

    Where none does, the nearest: its largest shortfall, as a part of the bound, is the smallest; of equals
    the cheapest.
    """
    whole = [point for point in table.points if math.isfinite(_distance(point, floors))]
    if not whole:
        return Recommendation(None, None, False, None, ())
    chosen = min(whole, key=lambda point: (_distance(point, floors), _cost(point)))
    checks = tuple(_check(chosen, floor) for floor in floors)
    return Recommendation(
        chosen.name, chosen.run.path, all(check.met for check in checks), chosen.mean(COST), checks
    )


def _distance(point: PointResult, floors: Sequence[Floor]) -> float:
    if point.run.failure:
        return math.inf
    return max(floor.shortfall(point.mean(floor.metric)) / (abs(floor.bound) or 1.0) for floor in floors)


def _cost(point: PointResult) -> float:
    mean = point.mean(COST)
    return math.inf if mean is None else mean


def _check(point: PointResult, floor: Floor) -> FloorCheck:
    average = point.averages[floor.metric]
    end = average.low if floor.relation == ">=" else average.high
    met = not floor.shortfall(average.mean)
    return FloorCheck(floor, average.mean, met, met and not floor.shortfall(end))
