"""BLEU by sacrebleu, over our own words: Chinese by the character, punctuation and case out, as in captions.

Papineni et al. 2002; Post 2018, arXiv:1804.08771. In [0, 100]. Not the same number as with sacrebleu's own
tokenizers, which keep punctuation and case: compare within cogbatch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import zip_longest
from typing import Any

from sacrebleu.metrics.bleu import BLEU

from cogbatch.eval.metrics.counts import MAX_ORDER, words_of

SMOOTHING = "exp"  # sacrebleu's default: half, a quarter, ... of a match for orders that have none


def sentence_bleu(candidate: str, references: Sequence[str]) -> float | None:
    """BLEU of one text, over the orders it is long enough for. None without references."""
    if not references:
        return None
    score = _bleu(effective_order=True).sentence_score(_spaced(candidate), list(map(_spaced, references)))
    return min(score.score, 100.0)


def corpus_bleu(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float | None:
    """BLEU of all texts together, which is not the mean of theirs. None when no text has references.

    Args:
        candidates: one of each item. references: of each item, as many as there are; an item without any
            is left out.

    Raises ValueError: not as many candidates as items with references.
    """
    if len(candidates) != len(references):
        raise ValueError(
            f"{len(candidates)} candidates and references of {len(references)} items: expected as many"
        )
    judged = [pair for pair in zip(candidates, references, strict=True) if pair[1]]
    if not judged:
        return None
    # The first reference of every item, the second, ...: None where an item has no more of them.
    streams: list[Any] = list(zip_longest(*(map(_spaced, texts) for _, texts in judged)))
    score = _bleu(effective_order=False).corpus_score([_spaced(text) for text, _ in judged], streams)
    return min(score.score, 100.0)


def bleu_of_counts(
    matches: list[int], totals: list[int], length: int, reference_lengths: Sequence[int]
) -> float:
    """sentence_bleu from counts for n = 1 to 4: matches, and n-grams there are. Lengths in words."""
    closest = min(reference_lengths, key=lambda other: (abs(other - length), other))
    score = BLEU.compute_bleu(
        correct=matches,
        total=totals,
        sys_len=length,
        ref_len=closest,
        smooth_method=SMOOTHING,
        effective_order=True,
        max_ngram_order=MAX_ORDER,
    )
    return min(score.score, 100.0)


@cache
def _bleu(*, effective_order: bool) -> BLEU:
    return BLEU(
        tokenize="none",
        smooth_method=SMOOTHING,
        max_ngram_order=MAX_ORDER,
        effective_order=effective_order,
    )


def _spaced(text: str) -> str:
    return " ".join(words_of(text))
