"""Diversity and likelihood of one item's candidates: the metrics that every run has, without references."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cogbatch.eval.metrics.diversity import (
    distinct_rates,
    rouge_l_distance,
    self_bleu,
    unique_rate,
    vendi_score,
)
from cogbatch.types import Candidate


@dataclass(frozen=True)
class ItemMetrics:
    """What the candidates of one item are like. None where a value is not defined.

    Args:
        num_candidates: delivered.
        unique_rate: texts that differ after normalisation, per candidate.
        distinct_1, distinct_2, distinct_3: see distinct_n.
        self_bleu, rouge_l_distance, vendi_score: see the functions of these names.
        logprob_per_token: nats under the model before warpers; mean over candidates.
        num_tokens: of the model, end token included; mean over candidates.
    """

    num_candidates: float
    unique_rate: float | None = None
    distinct_1: float | None = None
    distinct_2: float | None = None
    distinct_3: float | None = None
    self_bleu: float | None = None
    rouge_l_distance: float | None = None
    vendi_score: float | None = None
    logprob_per_token: float | None = None
    num_tokens: float | None = None


def item_metrics(candidates: Sequence[Candidate]) -> ItemMetrics:
    """The metrics of one item. Without candidates all but their number are None."""
    texts = [candidate.text for candidate in candidates]
    distinct = distinct_rates(texts)
    return ItemMetrics(
        num_candidates=len(candidates),
        unique_rate=unique_rate(texts),
        distinct_1=distinct[0],
        distinct_2=distinct[1],
        distinct_3=distinct[2],
        self_bleu=self_bleu(texts),
        rouge_l_distance=rouge_l_distance(texts),
        vendi_score=vendi_score(texts),
        logprob_per_token=_mean(map(logprob_per_token, candidates)),
        num_tokens=_mean(candidate.num_tokens for candidate in candidates),
    )


def logprob_per_token(candidate: Candidate) -> float | None:
    """Nats per token of one candidate; None where it has no token or no finite log-probability."""
    if candidate.num_tokens < 1 or not math.isfinite(candidate.cumulative_logprob):
        return None
    return candidate.cumulative_logprob / candidate.num_tokens


def _mean(values: Iterable[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return math.fsum(defined) / len(defined) if defined else None
