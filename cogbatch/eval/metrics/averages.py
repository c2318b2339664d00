"""Means over items of any metrics by name, with bootstrap intervals."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cogbatch.eval.metrics.item import ItemMetrics
from cogbatch.metric_names import METRICS

RESAMPLES = 1000
MAX_WEIGHTS = 2_000_000  # of resamples that are multiplied at once: 16 MB
TAIL = 0.025  # of the resampled means lie below, and as many above, a 95 % interval


@dataclass(frozen=True)
class Average:
    """The mean of one metric over items, with its 95 % interval.

    Args:
        num_items: those for which the metric is defined. mean: None when there are none.
        low, high: percentile bootstrap over items; None with fewer than two items.
    """

    metric: str
    num_items: int
    mean: float | None
    low: float | None
    high: float | None


def averages(
    items: Iterable[ItemMetrics | Mapping[str, float | None]], *, seed: int = 0
) -> tuple[Average, ...]:
    """Every metric averaged over items, in the order in which they come. The same seed, the same intervals.

    Items are resampled whole (percentile bootstrap, Efron 1979), so that all metrics see the same draws.

    Args:
        items: the values of each by name; one that is None, NaN or absent is not defined for that item.
            Without any item the names are those of ItemMetrics.

    Raises ValueError: an infinite value.
    """
    names, table = _table(items)
    defined = (~np.isnan(table)).astype(np.float64)
    values = np.nan_to_num(table, copy=False)  # [N, M]
    counts = defined.sum(axis=0)
    rng = np.random.default_rng(seed)
    means = np.full((RESAMPLES, len(names)), np.nan)
    # Several resamples in one product: the table is read from memory once for all of them.
    at_once = max(1, min(RESAMPLES, MAX_WEIGHTS // max(len(table), 1)))
    for start in range(0, RESAMPLES, at_once) if len(table) else ():
        some = means[start : start + at_once]
        weights = np.stack([_weights(rng, len(table)) for _ in some])  # [S, N]
        drawn = weights @ defined
        np.divide(weights @ values, drawn, out=some, where=drawn > 0)
    return tuple(
        _average(name, int(count), total, column[~np.isnan(column)])
        for name, count, total, column in zip(names, counts, values.sum(axis=0), means.T, strict=True)
    )


def _weights(rng: np.random.Generator, num_items: int) -> NDArray[np.float64]:
    """[N] how often each item is in one resample."""
    drawn = rng.integers(num_items, size=num_items)
    return np.bincount(drawn, minlength=num_items).astype(np.float64)


def _table(
    items: Iterable[ItemMetrics | Mapping[str, float | None]],
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """The names, and [N, M] their values, NaN where there is none."""
    columns: dict[str, array[float]] = {}
    num_items = 0
    for item in items:
        for name, value in (vars(item) if isinstance(item, ItemMetrics) else item).items():
            column = columns.setdefault(name, array("d"))
            column.extend([np.nan] * (num_items - len(column)))  # of the items that had no such name
            column.append(np.nan if value is None else value)
        num_items += 1
    if not columns:
        return METRICS, np.empty((0, len(METRICS)))
    table = np.full((num_items, len(columns)), np.nan)
    for place, (name, column) in enumerate(columns.items()):
        table[: len(column), place] = column
        if np.isinf(column).any():
            row = np.flatnonzero(np.isinf(column))[0]
            raise ValueError(f"{name} of item {row} is infinite: expected a finite number or None")
    return tuple(columns), table


def _average(name: str, count: int, total: float, means: NDArray[np.float64]) -> Average:
    mean = float(total / count) if count else None
    low, high = np.quantile(means, (TAIL, 1 - TAIL)).tolist() if count > 1 else (None, None)
    return Average(name, count, mean, low, high)
