"""What metrics are called, what they mean and how they are written. Computes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

NONE = "–"


@dataclass(frozen=True)
class Label:
    """name: as a person says it. meaning: in a few words. digits: behind the point. unit: for an axis."""

    name: str
    meaning: str
    digits: int
    unit: str = ""

    @property
    def title(self) -> str:
        """The name as a heading."""
        return self.name[:1].upper() + self.name[1:]


LABELS = {
    "num_candidates": Label("candidates", "delivered per item", 2),
    "unique_rate": Label("unique rate", "different texts per candidate, after normalisation", 3),
    "distinct_1": Label("distinct-1", "different words per word, over an item's candidates", 3),
    "distinct_2": Label("distinct-2", "the same of pairs of words", 3),
    "distinct_3": Label("distinct-3", "the same of runs of three words", 3),
    "self_bleu": Label("self-BLEU", "0 to 100: each candidate against the others, low is diverse", 1),
    "rouge_l_distance": Label("1 − ROUGE-L", "mean over pairs: 0 all the same, 1 no word in common", 3),
    "vendi_score": Label("Vendi score", "how many different candidates in effect, by their n-grams", 2),
    "logprob_per_token": Label(
        "log-probability", "nats per token, under the model before warpers", 3, "nats/token"
    ),
    "num_tokens": Label("length", "tokens, end token included", 1, "tokens"),
    "seconds_per_item": Label(
        "cost", "engine seconds: prefill, its part of decoding steps, choice of candidates", 3, "s an item"
    ),
    "score": Label("score", "of the judge, mean over an item's candidates", 3),
    "best_score": Label("best score", "the highest of an item's candidates", 3),
    "correct": Label("correct", "share of candidates that are", 3),
    "distinct_correct": Label("distinct correct", "different contents among an item's correct candidates", 2),
}


def label(metric: str) -> Label:
    """The label of any metric, also of those that have a number in their name."""
    if metric.startswith("pass@"):
        return Label(metric, f"odds that of {metric.removeprefix('pass@')} draws at least one is correct", 3)
    return LABELS.get(metric) or Label(metric, "", 3)


def axis_title(metric: str) -> str:
    """What stands at an axis: the name, and its unit."""
    said = label(metric)
    return f"{said.name}, {said.unit}" if said.unit else said.name


def number(value: float | None, digits: int) -> str:
    """A figure with thousands and a real minus; a dash for None."""
    return NONE if value is None else f"{value:,.{digits}f}".replace("-", "−")


def counted(count: int, noun: str) -> str:
    """1 error, 2 errors."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def interval(low: float | None, high: float | None, digits: int) -> str:
    """Both ends; a dash where there are none."""
    return NONE if low is None or high is None else f"{number(low, digits)} to {number(high, digits)}"


def percent(share: float) -> str:
    """A share between 0 and 1; what is not all is never said to be 100 %, nor what is not nothing 0 %."""
    shown = round(100 * share, 1)
    if share < 1:
        shown = min(shown, 99.9)
    if share > 0:
        shown = max(shown, 0.1)
    return f"{shown:g} %"


def span(seconds: float) -> str:
    """A time as people say it: 40 s, 12 min, 3.5 h, 2.1 days."""
    for length, unit in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"


def without_middle_k(metrics: Iterable[str]) -> list[str]:
    """The metrics; of pass@1 to pass@n only the first and the last, for tables."""
    found = list(metrics)
    curve = [metric for metric in found if metric.startswith("pass@")]
    return [metric for metric in found if metric not in curve[1:-1]]
