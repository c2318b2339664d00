"""What k candidates are worth together: the best of them, their mean, and the chance that one is right.

oracle_at_k and mean_at_k look at the first k as delivered, so they hold for any strategy. pass@k looks at
every k of n draws, which says something about other draws only if none of these was chosen: check_draws.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import accumulate
from operator import mul
from typing import Any

# Strategies that deliver every draw they make. Those of arithmetic are spread out, not independent: its mean
# is that of sample, its pass@k for k > 1 tends to be above, and holds for arithmetic alone.
DRAWING = frozenset({"sample", "arithmetic", "greedy"})
CHOOSING = frozenset({"beam", "diverse-beam", "stochastic-beam", "branch"})
PORTFOLIO = "portfolio"


def oracle_at_k(scores: Sequence[float], k: int) -> float | None:
    """The best of the first k scores, of all when fewer were delivered; None when none was.

    Raises ValueError: k below 1.
    """
    return max(_first(scores, k), default=None)


def mean_at_k(scores: Sequence[float], k: int) -> float | None:
    """The mean of the first k scores, of all when fewer were delivered; None when none was.

    Raises ValueError: k below 1.
    """
    first = _first(scores, k)
    return math.fsum(first) / len(first) if first else None


def pass_at_k(num_draws: int, num_correct: int, k: int) -> float:
    """Chance that k of the n draws, picked at random, hold a correct one: 1 - C(n - c, k) / C(n, k).

    Without bias for the chance of k independent draws (Chen et al. 2021, arXiv:2107.03374).

    Raises ValueError: not 0 <= num_correct <= num_draws, or not 1 <= k <= num_draws.
    """
    values = pass_at_every_k(num_draws, num_correct)
    if not 1 <= k <= num_draws:
        raise ValueError(f"k is {k}, expected 1 to num_draws ({num_draws})")
    return values[k - 1]


def pass_at_every_k(num_draws: int, num_correct: int) -> tuple[float, ...]:
    """pass_at_k for k = 1 to num_draws, from one run.

    As a product of ratios at most 1, which neither overflows nor loses digits.

    Raises ValueError: not 0 <= num_correct <= num_draws.
    """
    if not 0 <= num_correct <= num_draws:
        raise ValueError(f"num_correct is {num_correct}, expected 0 to num_draws ({num_draws})")
    wrong = num_draws - num_correct
    # Chance to draw wrong ones only; 0 for good once they are used up.
    missed = accumulate(((wrong - i) / (num_draws - i) for i in range(num_draws)), mul)
    return tuple(1 - chance for chance in missed)


def check_draws(generation: Mapping[str, Any], *, independent: Collection[str] = ()) -> None:
    """Refuses pass@k where candidates are not all the draws that were made, as they fell.

    Args:
        generation: GenerationParams by name, as spec.generation in job.json or dataclasses.asdict has them;
            what is absent has its default. independent: names of strategies from other packages that are
            known to draw independently and to deliver every draw.

    Raises ValueError: a selector chose among them, a strategy promises distinct ones or is not known, or
    loops were drawn anew; the message has every reason.
    """
    reasons = list(_reasons(generation, DRAWING | frozenset(independent)))
    if reasons:
        raise ValueError(
            f"pass@k needs draws that are independent and all delivered, but {'; '.join(reasons)}. "
            "Run the job with strategy 'sample', no selector and resample_loops 0"
        )


def _reasons(generation: Mapping[str, Any], drawing: frozenset[str]) -> Iterator[str]:
    selector = generation.get("selector")
    if selector is not None:
        yield f"selector {selector!r} chose them out of a larger pool"
    strategy = generation.get("strategy", "sample")
    if strategy != PORTFOLIO:
        yield from _reasons_of_run(strategy, generation.get("resample_loops", 0), drawing)
        return
    for index, member in enumerate(generation.get("portfolio", ())):
        params = member.get("params", {})
        loops = params.get("resample_loops", generation.get("resample_loops", 0))
        for reason in _reasons_of_run(params.get("strategy", "sample"), loops, drawing):
            yield f"portfolio[{index}]: {reason}"


def _reasons_of_run(strategy: str, resample_loops: int, drawing: frozenset[str]) -> Iterator[str]:
    if strategy in CHOOSING:
        yield f"strategy {strategy!r} delivers distinct candidates only"
    elif strategy not in drawing:
        yield f"strategy {strategy!r} is not known to draw independently"
    if resample_loops:
        yield f"resample_loops is {resample_loops}, so candidates that looped were drawn anew"


def _first(scores: Sequence[float], k: int) -> Sequence[float]:
    if k < 1:
        raise ValueError(f"k is {k}, expected at least 1")
    return scores[:k]
