"""Metrics of candidates: how diverse, how likely, how right; and their averages over items with intervals.

Pure: values in, values out. Nothing here knows of files. A value that is not defined, for example the length
of no candidates, is None and left out of the average; nothing is ever NaN. Words are those of cogbatch.text:
Chinese by the character.
"""

from cogbatch.eval.metrics.answers import exact_match, normalise_answer, vqa_accuracy
from cogbatch.eval.metrics.at_k import (
    check_draws,
    mean_at_k,
    oracle_at_k,
    pass_at_every_k,
    pass_at_k,
)
from cogbatch.eval.metrics.averages import Average, averages
from cogbatch.eval.metrics.bleu import corpus_bleu, sentence_bleu
from cogbatch.eval.metrics.cider import CiderD
from cogbatch.eval.metrics.diversity import (
    compression_ratio,
    distinct_n,
    repeats,
    rouge_l_distance,
    self_bleu,
    unique_rate,
    vendi_score,
)
from cogbatch.eval.metrics.item import ItemMetrics, item_metrics, logprob_per_token
from cogbatch.eval.metrics.quality import quality_metrics
from cogbatch.eval.metrics.rouge import rouge_l

__all__ = [
    "Average",
    "CiderD",
    "ItemMetrics",
    "averages",
    "check_draws",
    "compression_ratio",
    "corpus_bleu",
    "distinct_n",
    "exact_match",
    "item_metrics",
    "logprob_per_token",
    "mean_at_k",
    "normalise_answer",
    "oracle_at_k",
    "pass_at_every_k",
    "pass_at_k",
    "quality_metrics",
    "repeats",
    "rouge_l",
    "rouge_l_distance",
    "self_bleu",
    "sentence_bleu",
    "unique_rate",
    "vendi_score",
    "vqa_accuracy",
]
