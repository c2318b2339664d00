"""Which strategies exist, and whether generation parameters make sense for the one they name."""

from __future__ import annotations

import math
from dataclasses import fields

from cogbatch.decoding.greedy import Greedy
from cogbatch.decoding.sample import Sample
from cogbatch.decoding.strategy import Strategy
from cogbatch.types import GenerationParams

STRATEGIES: dict[str, Strategy] = {"greedy": Greedy(), "sample": Sample()}

# Read by the engine itself, whatever the strategy.
COMMON_FIELDS = frozenset(
    {
        "num_candidates",
        "strategy",
        "max_new_tokens",
        "min_new_tokens",
        "ignore_eos",
        "seed",
        "deterministic",
        "return_token_ids",
    }
)

# name -> (is the value fine, what was expected)
_RANGES = {
    "num_candidates": (lambda v: v >= 1, "an integer of at least 1"),
    "temperature": (lambda v: 0 < v <= 1e6, "above 0 (strategy 'greedy' has no randomness), at most 1e6"),
    "top_p": (lambda v: 0 < v <= 1, "in (0, 1]"),
    "top_k": (lambda v: v >= 0, "0 (keep all) or more"),
    "min_p": (lambda v: 0 <= v <= 1, "in [0, 1]"),
    "repetition_penalty": (lambda v: v > 0 and math.isfinite(v), "above 0"),
    "max_new_tokens": (lambda v: v >= 1, "an integer of at least 1"),
    "min_new_tokens": (lambda v: v >= 0, "0 or more"),
}
_INTEGERS = frozenset({"num_candidates", "top_k", "max_new_tokens", "min_new_tokens", "seed"})


def check_params(params: GenerationParams) -> Strategy:
    """The strategy that params name.

    Raises:
        ValueError: with every mistake in one message: a value out of range, an unknown strategy, a parameter
            that the strategy does not use, or k > 1 where all candidates would be equal.
    """
    problems = [
        problem for name in _RANGES | dict.fromkeys(_INTEGERS) if (problem := _range_problem(params, name))
    ]
    if not problems and params.min_new_tokens > params.max_new_tokens:
        problems.append(
            f"min_new_tokens is {params.min_new_tokens}: "
            f"expected at most max_new_tokens ({params.max_new_tokens})"
        )
    problems += [
        f"{name} is {getattr(params, name)!r}: expected true or false"
        for name in ("ignore_eos", "deterministic", "return_token_ids")
        if not isinstance(getattr(params, name), bool)
    ]
    strategy = STRATEGIES.get(params.strategy) if isinstance(params.strategy, str) else None
    if strategy is None:
        problems.append(
            f"unknown strategy {params.strategy!r}: expected one of {', '.join(sorted(STRATEGIES))}"
        )
    else:
        ignored = [
            field.name
            for field in fields(params)
            if field.name not in COMMON_FIELDS | strategy.uses
            and getattr(params, field.name) != field.default
        ]
        problems += [
            f"strategy {params.strategy!r} does not use {name}: leave it out, or choose another strategy"
            for name in ignored
        ]
    if strategy is None or problems:
        raise ValueError("; ".join(problems))
    strategy.check(params)
    return strategy


def _range_problem(params: GenerationParams, name: str) -> str | None:
    value = getattr(params, name)
    if isinstance(value, bool) or not isinstance(value, int if name in _INTEGERS else int | float):
        return f"{name} is {value!r}: expected {'an integer' if name in _INTEGERS else 'a number'}"
    is_fine, expected = _RANGES.get(name, (lambda _: True, ""))
    return None if is_fine(value) else f"{name} is {value!r}: expected {expected}"
