"""The cheapest point of a sweep that meets stated floors, or the one that comes nearest."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cogbatch.eval.sweep_table import PointResult, SweepTable
from cogbatch.metric_names import COST, why_unknown

MOST_NAMED = 3
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
    """point: None when no point has all the metrics. meets: all floors; otherwise it is the nearest.

    beaten: it has both axes of the sweep and is not on the front. as_cheap: other points that meet all
    floors and whose cost is not told apart from this one's by the intervals, those on the front first.
    """

    point: str | None
    path: str | None
    meets: bool
    seconds_per_item: float | None
    checks: tuple[FloorCheck, ...]
    beaten: bool = False
    as_cheap: tuple[str, ...] = ()

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
        lines = [head, *(f"  {check.line()}" for check in self.checks)]
        if self.beaten:
            lines.append("  not on the front: another point is as good in both axes, and better in one")
        if self.as_cheap:
            others = ", ".join(self.as_cheap[:MOST_NAMED])
            more = f" and {len(self.as_cheap) - MOST_NAMED} more" if len(self.as_cheap) > MOST_NAMED else ""
            lines.append(f"  as cheap, as far as the 95 % intervals tell: {others}{more}")
        return lines


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
    meets = all(check.met for check in checks)
    meeting = [point for point in whole if meets and point is not chosen and not _distance(point, floors)]
    rivals = sorted(
        (point for point in meeting if _is_as_cheap(point, chosen)),
        key=lambda point: (not point.on_front, _cost(point)),
    )
    return Recommendation(
        chosen.name,
        chosen.run.path,
        meets,
        chosen.mean(COST),
        checks,
        beaten=not chosen.on_front and None not in (chosen.mean(table.quality), chosen.mean(table.diversity)),
        as_cheap=tuple(rival.name for rival in rivals),
    )


def _distance(point: PointResult, floors: Sequence[Floor]) -> float:
    if point.run.failure:
        return math.inf
    return max(floor.shortfall(point.mean(floor.metric)) / (abs(floor.bound) or 1.0) for floor in floors)


def _cost(point: PointResult) -> float:
    mean = point.mean(COST)
    return math.inf if mean is None else mean


def _is_as_cheap(point: PointResult, cheapest: PointResult) -> bool:
    """Whether the intervals of their costs overlap."""
    if COST not in point.averages or COST not in cheapest.averages:
        return False
    low, high = point.averages[COST].low, cheapest.averages[COST].high
    return low is not None and high is not None and low <= high


def _check(point: PointResult, floor: Floor) -> FloorCheck:
    average = point.averages[floor.metric]
    end = average.low if floor.relation == ">=" else average.high
    met = not floor.shortfall(average.mean)
    return FloorCheck(floor, average.mean, met, met and not floor.shortfall(end))
