"""Diversity and likelihood of one item's candidates, and their averages over items with intervals.

Pure: values in, values out. Nothing here knows of files or references. A value that is not defined, for
example the length of no candidates, is None and left out of the average; nothing is ever NaN.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np

from cogbatch.text import ngrams, normalise, tokens
from cogbatch.types import Candidate

RESAMPLES = 1000
TAIL = 0.025  # of the resampled means lie below, and as many above, a 95 % interval


@dataclass(frozen=True)
class ItemMetrics:
    """What the candidates of one item are like.

    Args:
        num_candidates: delivered.
        unique_rate: texts that differ after normalisation, per candidate.
        distinct_1, distinct_2, distinct_3: see distinct_n.
        logprob_per_token: nats under the model before warpers; mean over candidates.
        num_tokens: of the model, end token included; mean over candidates.
    """

    num_candidates: float
    unique_rate: float | None
    distinct_1: float | None
    distinct_2: float | None
    distinct_3: float | None
    logprob_per_token: float | None
    num_tokens: float | None


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


METRICS = tuple(field.name for field in fields(ItemMetrics))


def item_metrics(candidates: Sequence[Candidate]) -> ItemMetrics:
    """The metrics of one item. Without candidates all but their number are None."""
    same = [normalise(candidate.text) for candidate in candidates]
    words = [tokens(text) for text in same]
    return ItemMetrics(
        num_candidates=len(candidates),
        unique_rate=len(set(same)) / len(same) if same else None,
        distinct_1=distinct_n(words, 1),
        distinct_2=distinct_n(words, 2),
        distinct_3=distinct_n(words, 3),
        logprob_per_token=_mean(map(logprob_per_token, candidates)),
        num_tokens=_mean(candidate.num_tokens for candidate in candidates),
    )


def distinct_n(texts: Iterable[Sequence[str]], n: int) -> float | None:
    """Different n-grams per n-gram over all texts together, in (0, 1]; None where no text has n tokens.

    Li et al. 2016, arXiv:1510.03055, who divide by the number of tokens; by that of n-grams, as usual since,
    texts without repetition have 1 for every n. Depends on how much text there is: compare equal k only.
    """
    counts = Counter(ngram for text in texts for ngram in ngrams(text, n))
    return len(counts) / counts.total() if counts else None


def logprob_per_token(candidate: Candidate) -> float | None:
    """Nats per token of one candidate; None where it has no token or no finite log-probability."""
    if candidate.num_tokens < 1 or not math.isfinite(candidate.cumulative_logprob):
        return None
    return candidate.cumulative_logprob / candidate.num_tokens


def repeats(texts: Sequence[str]) -> tuple[int | None, ...]:
    """For each text the index of the first earlier one that is the same after normalisation, or None."""
    first: dict[str, int] = {}
    found = [first.setdefault(normalise(text), index) for index, text in enumerate(texts)]
    return tuple(None if earlier == index else earlier for index, earlier in enumerate(found))


def averages(items: Iterable[ItemMetrics], *, seed: int = 0) -> tuple[Average, ...]:
    """Every metric averaged over items, in the order of METRICS. The same seed gives the same intervals.

    Items are resampled whole (percentile bootstrap, Efron 1979), so that all metrics see the same draws.
    """
    table = np.fromiter(map(_floats, items), dtype=np.dtype((np.float64, len(METRICS))))  # [N, M]
    defined = ~np.isnan(table)
    values = np.where(defined, table, 0.0)
    counts = defined.sum(axis=0)
    rng = np.random.default_rng(seed)
    means = np.full((RESAMPLES, len(METRICS)), np.nan)
    for resample in means if len(table) else ():
        weights = np.bincount(rng.integers(len(table), size=len(table)), minlength=len(table))  # [N]
        drawn = weights @ defined
        np.divide(weights @ values, drawn, out=resample, where=drawn > 0)
    return tuple(
        _average(name, int(count), total, column[~np.isnan(column)])
        for name, count, total, column in zip(METRICS, counts, values.sum(axis=0), means.T, strict=True)
    )


def _average(name: str, count: int, total: float, means: np.ndarray) -> Average:
    mean = float(total / count) if count else None
    low, high = np.quantile(means, (TAIL, 1 - TAIL)).tolist() if count > 1 else (None, None)
    return Average(name, count, mean, low, high)


def _floats(item: ItemMetrics) -> tuple[float, ...]:
    return tuple(math.nan if value is None else value for value in astuple(item))


def _mean(values: Iterable[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return math.fsum(defined) / len(defined) if defined else None
