"""ROUGE-L: how much of a text's words a reference has in the same order. Chinese by the character."""

from __future__ import annotations

from collections.abc import Sequence

from rapidfuzz.distance import LCSseq

from cogbatch.eval.metrics.counts import words_of


def rouge_l(candidate: str, references: Sequence[str], *, beta: float = 1.0) -> float | None:
    """F-measure of the longest common subsequence with the closest reference, in [0, 1].

    Lin 2004, ROUGE-L of a sentence: P = LCS / words of the candidate, R = LCS / words of the reference,
    F = (1 + beta²) P R / (R + beta² P). Two texts without words are the same. None without references.

    Args:
        beta: > 0; 1 weighs both the same, as rouge-score does, above 1 favours recall. coco-caption has 1.2,
            and takes the best P and the best R, which may be those of two references.

    Raises ValueError: beta not above 0.
    """
    if not beta > 0:
        raise ValueError(f"beta is {beta}, expected above 0")
    words = words_of(candidate)
    return max((_f_measure(words, words_of(reference), beta) for reference in references), default=None)


def _f_measure(candidate: Sequence[str], reference: Sequence[str], beta: float) -> float:
    """(1 + beta²) LCS / (candidate + beta² reference), which is F without a division by zero matches."""
    if not candidate and not reference:
        return 1.0
    common = LCSseq.similarity(candidate, reference)
    return (1 + beta**2) * common / (len(candidate) + beta**2 * len(reference))
