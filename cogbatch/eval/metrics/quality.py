"""What the judged candidates of one item are worth together. Judges nothing itself."""

from __future__ import annotations

from collections.abc import Sequence

from cogbatch.eval.metrics.at_k import mean_at_k, oracle_at_k, pass_at_every_k
from cogbatch.text import normalise


def quality_metrics(
    texts: Sequence[str],
    scores: Sequence[float | None],
    correct: Sequence[bool | None],
    contents: Sequence[str | None],
    *,
    draws: bool,
) -> dict[str, float | None]:
    """The metrics of one item, by name; None where no candidate was judged.

    score: mean over candidates; best_score: the highest. correct: share of candidates that are;
    distinct_correct: different contents among those, by text (normalised) where content is None.
    pass@1 to pass@n: see pass_at_k.

    Args:
        texts, scores, correct, contents: of each candidate.
        draws: the candidates are all draws that were made (check_draws), so that pass@k means something.
    """
    known = [score for score in scores if score is not None]
    judged = [value for value in correct if value is not None]
    found: dict[str, float | None] = {
        "score": mean_at_k(known, len(known)) if known else None,
        "best_score": oracle_at_k(known, len(known)) if known else None,
        "correct": sum(judged) / len(judged) if judged else None,
        "distinct_correct": None,
    }
    if judged:
        said = zip(texts, correct, contents, strict=True)
        right = {normalise(text) if content is None else (content,) for text, good, content in said if good}
        found["distinct_correct"] = len(right)
        if draws:
            passed = pass_at_every_k(len(judged), sum(judged))
            found |= {f"pass@{k}": value for k, value in enumerate(passed, start=1)}
    return found
