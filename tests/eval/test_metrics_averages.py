"""Laws of averages over items: what is not defined is left out, and the interval is that of a mean."""

from __future__ import annotations

import math

import pytest

from cogbatch.eval.metrics import ItemMetrics, averages
from cogbatch.metric_names import METRICS


def rated(value: float | None) -> ItemMetrics:
    """An item of which only the unique rate differs."""
    return ItemMetrics(num_candidates=1, unique_rate=value, logprob_per_token=-1.0)


def test_averages_leave_out_what_is_not_defined() -> None:
    found = {average.metric: average for average in averages([rated(0.5), rated(None), rated(1.0)])}
    assert tuple(found) == METRICS
    assert (found["unique_rate"].num_items, found["unique_rate"].mean) == (2, 0.75)
    assert (found["unique_rate"].low, found["unique_rate"].high) == (0.5, 1.0)
    never = found["distinct_1"]
    assert (never.num_items, never.mean, never.low, never.high) == (0, None, None, None)
    same = found["logprob_per_token"]
    assert (same.num_items, same.mean, same.low, same.high) == (3, -1, -1, -1)


def test_one_item_has_a_mean_and_no_interval() -> None:
    found = averages([rated(0.5)])[1]
    assert (found.num_items, found.mean, found.low, found.high) == (1, 0.5, None, None)


def test_no_items_have_no_averages_and_no_warning() -> None:
    assert {(average.num_items, average.mean) for average in averages([])} == {(0, None)}


def test_the_same_seed_gives_the_same_intervals() -> None:
    items = [rated(number / 40) for number in range(40)]
    assert averages(items, seed=1) == averages(items, seed=1)
    assert averages(items, seed=1)[1].low != averages(items, seed=2)[1].low


def test_the_interval_is_that_of_a_mean() -> None:
    """0 and 1 half each, n = 400: 0.5 ± 1.96 x 0.5 / 20 = ± 0.049. Seeded: no odds of a false alarm."""
    found = averages([rated(float(number % 2)) for number in range(400)])[1]
    assert found.low == pytest.approx(0.451, abs=0.004)
    assert found.high == pytest.approx(0.549, abs=0.004)


def test_any_table_of_named_values_is_averaged() -> None:
    found = averages([{"pass@1": 0.5, "cider": None}, {"pass@1": True, "cider": 4, "bleu": 10.0}, {}])
    assert [(one.metric, one.num_items, one.mean) for one in found] == [
        ("pass@1", 2, 0.75),
        ("cider", 1, 4),
        ("bleu", 1, 10),
    ]


def test_a_name_that_comes_late_belongs_to_the_items_that_have_it() -> None:
    """Every interval is that of a constant metric, so only its place in the table can move it."""
    rows = [{"a": 1.0}, {"a": 2.0, "b": 5.0}, {"a": 3.0}, {"b": 5.0}]
    first, second = averages(rows)
    assert (first.num_items, first.mean, second.num_items, second.mean) == (3, 2, 2, 5)
    assert (second.low, second.high) == (5, 5)


def test_item_metrics_and_their_values_by_name_have_the_same_averages() -> None:
    items = [rated(0.25), rated(None), rated(1.0)]
    assert averages(items) == averages([vars(item) for item in items])


def test_nan_is_not_defined_and_infinity_is_an_error() -> None:
    assert averages([{"a": math.nan}, {"a": 1.0}])[0].num_items == 1
    with pytest.raises(ValueError, match="a of item 1 is infinite: expected a finite number or None"):
        averages([{"a": 1.0}, {"a": -math.inf}])
