"""Laws of recommending: the cheapest that meets all floors, else the nearest and what it lacks."""

from __future__ import annotations

import pytest

from cogbatch.eval.metrics import Average
from cogbatch.eval.recommend import Recommendation, parse_floors, recommend
from cogbatch.eval.stored_sweep import PointRun
from cogbatch.eval.sweep_table import PointResult, SweepTable


def point(
    name: str, cost: float, failure: str | None = None, *, on_front: bool = True, **means: float
) -> PointResult:
    """Every interval is 0.05 wide to both sides."""
    averages = {
        metric: Average(metric, 9, mean, mean - 0.05, mean + 0.05)
        for metric, mean in {**means, "seconds_per_item": cost}.items()
    }
    return PointResult(PointRun(name, f"runs/{name}", {}, failure), 9, 0, averages, on_front=on_front)


TABLE = SweepTable(
    "s",
    (
        point("dear", 9.0, correct=0.99, vendi_score=6.0, self_bleu=0.2),
        point("fair", 2.0, correct=0.92, vendi_score=4.5, self_bleu=0.5),
        point("cheap", 1.0, correct=0.80, vendi_score=3.0, self_bleu=0.8),
        point("broken", 0.1, "too many errors", correct=1.0, vendi_score=9.0, self_bleu=0.0),
        point("unjudged", 0.1, vendi_score=9.0),
    ),
    "correct",
    "vendi_score",
)


def found(*floors: str) -> Recommendation:
    return recommend(TABLE, parse_floors(floors, judged=True))


@pytest.mark.parametrize(
    ("floors", "name"),
    [
        (["correct>=0.9"], "fair"),
        (["correct >= 0.9, vendi_score>=5"], "dear"),
        (["correct>=0.9", "self_bleu<=0.3"], "dear"),
        (["correct>=0.5"], "cheap"),
        (["vendi_score>=4"], "unjudged"),
    ],
)
def test_the_cheapest_that_meets_every_floor_is_named(floors: list[str], name: str) -> None:
    result = found(*floors)
    assert (result.point, result.meets) == (name, True)
    assert "the cheapest that meets every floor" in result.lines()[0]


def test_whether_the_interval_meets_it_too_is_said() -> None:
    unsure, sure = found("correct>=0.9"), found("correct>=0.85")
    assert (unsure.sure, sure.sure) == (False, True)
    assert unsure.lines()[1] == "  correct >= 0.9: met, 0.92, but within its 95 % interval it may miss it"
    assert sure.lines()[1] == "  correct >= 0.85: met, 0.92"
    assert not found("self_bleu<=0.51").sure


def test_when_none_does_the_nearest_is_named_with_what_is_missing() -> None:
    result = found("correct>=0.95", "vendi_score>=7")
    assert (result.point, result.meets, result.sure) == ("dear", False, False)
    assert result.lines() == [
        "no point meets every floor; dear (9 engine seconds an item) comes nearest",
        "  correct >= 0.95: met, 0.99, but within its 95 % interval it may miss it",
        "  vendi_score >= 7: missed, 6, 1 short",
    ]
    assert result.to_json()["checks"][1]["met"] is False


def test_points_whose_cost_is_not_told_apart_are_named_those_on_the_front_first() -> None:
    points = (
        point("cheapest", 1.0, correct=0.9, vendi_score=3.0, on_front=False),
        point("behind", 1.05, correct=0.95, on_front=False),
        point("ahead", 1.09, correct=0.99),
        point("dearer", 1.2, correct=0.99),
        point("wrong", 1.01, correct=0.1),
    )
    table = SweepTable("s", points, "correct", "vendi_score")
    result = recommend(table, parse_floors(["correct>=0.8"], judged=True))
    assert (result.point, result.beaten, result.as_cheap) == ("cheapest", True, ("ahead", "behind"))
    assert result.lines()[2:] == [
        "  not on the front: another point is as good in both axes, and better in one",
        "  as cheap, as far as the 95 % intervals tell: ahead, behind",
    ]
    assert found("correct>=0.9").as_cheap == ()


def test_a_point_without_both_axes_is_not_called_beaten() -> None:
    table = SweepTable("s", (point("plain", 1.0, correct=0.9, on_front=False),), "correct", "vendi_score")
    assert not recommend(table, parse_floors(["correct>=0.8"], judged=True)).beaten


def test_no_point_is_named_where_none_has_the_metric() -> None:
    assert found("pass@3>=0.5").lines() == ["recommended: none, no point has all these metrics"]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("correct", "expected metric>=number, for example correct>=0.9"),
        ("correct>=nan", "expected metric>=number"),
        ("correct>0.9", "expected metric>=number"),
        ("corect>=0.9", r"corect: is no metric \(did you mean correct\?\)"),
        ("", "expected metric>=number"),
    ],
)
def test_what_is_no_floor_is_refused(text: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        parse_floors([text], judged=True)


def test_a_judged_metric_needs_a_judge() -> None:
    with pytest.raises(ValueError, match="only a judge knows"):
        parse_floors(["pass@2>=0.5"], judged=False)
