"""What the candidates of some items are like, as lists of values for histograms. Averages are in metrics/."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cogbatch.eval.metrics import vendi_score
from cogbatch.eval.metrics.item import logprob_per_token
from cogbatch.eval.runs import Item

FIGURES = ("tokens", "nats per token", "different answers")


def figures(items: Iterable[Item]) -> dict[str, list[float]]:
    """The values of each of FIGURES that are defined; the lists are empty where no item has candidates.

    tokens, nats per token (log-probability): of each candidate. different answers: of each item, the Vendi
    score of its texts, which is 1 for equal ones and their number where nothing is alike.
    """
    values: dict[str, list[float]] = {name: [] for name in FIGURES}
    for item in items:
        values["tokens"] += [candidate.num_tokens for candidate in item.candidates]
        scores = map(logprob_per_token, item.candidates)
        values["nats per token"] += [score for score in scores if score is not None]
        different = vendi_score([candidate.text for candidate in item.candidates])
        values["different answers"] += [] if different is None else [different]
    return values


def spread(values: Sequence[float]) -> Mapping[str, float] | None:
    """Least, median and most of the values; None where there are none."""
    if not values:
        return None
    ordered = sorted(values)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    return {"min": ordered[0], "median": middle, "max": ordered[-1]}
