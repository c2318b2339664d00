"""Laws of the Pareto front."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cogbatch.eval.metrics import Average
from cogbatch.eval.pareto import Plane, pareto_front, plane_of, rising

VALUES = st.integers(0, 5).map(float)


def test_the_front_is_what_nothing_beats_in_both() -> None:
    points = [(1.0, 3.0), (2.0, 2.0), (1.0, 2.0), (2.0, 2.0), (0.0, 4.0), (None, 9.0), (9.0, None)]
    assert pareto_front(points) == (True, True, False, True, True, False, False)


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1))
def test_every_point_off_the_front_is_beaten_by_one_on_it(points: list[tuple[float, float]]) -> None:
    on = pareto_front(points)
    front = [point for point, is_on in zip(points, on, strict=True) if is_on]
    for (x, y), is_on in zip(points, on, strict=True):
        beaten = any(a >= x and b >= y and (a, b) != (x, y) for a, b in front)
        assert beaten != is_on


def test_where_lower_is_better_the_sign_turns() -> None:
    assert rising("self_bleu", 3.0) == -3
    assert rising("correct", 3.0) == 3
    assert rising("self_bleu", None) is None


def test_axes_are_those_asked_for_or_the_first_of_the_usual_that_a_run_has() -> None:
    def run(**means: float | None) -> dict[str, Average]:
        return {metric: Average(metric, 1, mean, None, None) for metric, mean in means.items()}

    runs = [run(correct=None, vendi_score=None), {}, run(correct=1.0, vendi_score=2.0, num_tokens=3.0)]
    assert plane_of(runs) == Plane("correct", "vendi_score", (False, False, True))
    assert plane_of(runs, quality="num_tokens").quality == "num_tokens"
    assert plane_of(runs, quality="pass@99").front == (False, False, False)
    assert plane_of([run(correct=None, score=0.5, vendi_score=1.0)]).quality == "score"
    assert plane_of([{}]) == Plane("logprob_per_token", "vendi_score", (False,))
