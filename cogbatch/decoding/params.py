"""Whether generation parameters make sense: ranges, who uses what, and candidates that would all be equal."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields
from typing import Any, get_args

from cogbatch.decoding.parts import PORTFOLIO, parts, pool_size
from cogbatch.decoding.registry import selector_named, strategy_named, strategy_names
from cogbatch.types import BeamScore, GenerationParams, Quality, Similarity

# Read by the engine itself, whatever the strategy.
COMMON_FIELDS = frozenset(
    {
        "num_candidates",
        "strategy",
        "selector",
        "max_new_tokens",
        "min_new_tokens",
        "ignore_eos",
        "seed",
        "deterministic",
        "return_token_ids",
    }
)
# Read where selector is set, beside what the selector itself uses.
_SELECTION_FIELDS = frozenset({"pool_size", "strategy_options"})

Range = tuple[Callable[[Any], bool], str]
_AT_LEAST_1: Range = (lambda v: v >= 1, "an integer of at least 1")
_AT_LEAST_0: Range = (lambda v: v >= 0, "0 or more")
# name -> (is the value fine, what was expected)
_INTEGERS: dict[str, Range] = {
    "num_candidates": _AT_LEAST_1,
    "top_k": (lambda v: v >= 0, "0 (keep all) or more"),
    "no_repeat_ngram_size": (lambda v: v >= 0, "0 (allow all) or more"),
    "num_beams": _AT_LEAST_1,
    "num_beam_groups": _AT_LEAST_1,
    "branch_length": _AT_LEAST_1,
    "pool_size": _AT_LEAST_1,
    "resample_loops": _AT_LEAST_0,
    "max_new_tokens": _AT_LEAST_1,
    "min_new_tokens": _AT_LEAST_0,
    "seed": (lambda _: True, "an integer"),
}
_NUMBERS: dict[str, Range] = {
    "temperature": (lambda v: 0 < v <= 1e6, "above 0 (strategy 'greedy' has no randomness), at most 1e6"),
    "top_p": (lambda v: 0 < v <= 1, "in (0, 1]"),
    "min_p": (lambda v: 0 <= v <= 1, "in [0, 1]"),
    "typical_p": (lambda v: 0 < v <= 1, "in (0, 1]"),
    "eta_cutoff": (lambda v: 0 <= v < 1, "in [0, 1)"),
    "repetition_penalty": (lambda v: v > 0 and math.isfinite(v), "above 0"),
    "length_penalty": (lambda v: -10 <= v <= 10, "in [-10, 10]"),
    "diversity_penalty": (lambda v: v >= 0 and math.isfinite(v), "0 or more"),
    "quality_weight": (lambda v: 0 <= v <= 1, "in [0, 1]"),
}
_CHOICES = {
    "beam_score": get_args(BeamScore),
    "similarity": get_args(Similarity),
    "quality": get_args(Quality),
}
_SWITCHES = ("ignore_eos", "deterministic", "return_token_ids")
_MAY_BE_NONE = frozenset({"num_beams", "pool_size"})


def check_params(params: GenerationParams) -> None:
    """Raises ValueError, with every mistake in one message, for parameters that make no sense.

    A value out of range, an unknown strategy or selector, a parameter that nobody uses, or k > 1 where all
    candidates would be equal.
    """
    problems = list(_range_problems(params))
    if not problems and params.min_new_tokens > params.max_new_tokens:
        problems.append(
            f"min_new_tokens is {params.min_new_tokens}: "
            f"expected at most max_new_tokens ({params.max_new_tokens})"
        )
    try:
        # A portfolio shares out its draws, which takes numbers in their ranges.
        if isinstance(params.strategy, str) and not (params.strategy == PORTFOLIO and problems):
            problems += _unused(params)
    except ValueError as err:  # of an unknown name, or a portfolio that makes no sense
        problems.append(str(err))
    if problems:
        raise ValueError("; ".join(problems))
    if params.selector is not None:
        selector_named(params.selector).check(params)
        if pool_size(params) < params.num_candidates:
            raise ValueError(
                f"pool_size is {params.pool_size}: expected at least num_candidates ({params.num_candidates})"
            )
    for part in parts(params):
        if problems := list(_range_problems(part.params)):
            raise ValueError(f"{part.source}: {'; '.join(problems)}")
        part.strategy.check(part.params)


def used_fields(params: GenerationParams) -> frozenset[str]:
    """Fields that somebody reads. Raises ValueError: an unknown name, a portfolio that makes no sense."""
    used = COMMON_FIELDS.union(*(run.strategy.uses for run in parts(params)))
    if params.selector is not None:
        used |= _SELECTION_FIELDS | selector_named(params.selector).uses
    return used | {"portfolio"} if params.strategy == PORTFOLIO else used


def _unused(params: GenerationParams) -> Iterator[str]:
    """One text for each parameter that was given and that nobody reads."""
    used = used_fields(params)
    for field in fields(params):
        if field.name not in used and getattr(params, field.name) != _default(field):
            missing = "without a selector" if field.name in _SELECTION_FIELDS else ""
            yield (
                f"strategy {params.strategy!r} does not use {field.name}"
                f"{missing and ' ' + missing}: leave it out, or choose another strategy"
            )
    for index, member in enumerate(params.portfolio if params.strategy == PORTFOLIO else ()):
        strategy = strategy_named(str(member.params.get("strategy", "sample")))
        for name in sorted(set(member.params) - COMMON_FIELDS - strategy.uses):
            yield f"portfolio[{index}]: its strategy does not use {name}"


def _range_problems(params: GenerationParams) -> Iterator[str]:
    for table, kind, types in ((_NUMBERS, "a number", int | float), (_INTEGERS, "an integer", int)):
        for name, (is_fine, expected) in table.items():
            value = getattr(params, name)
            if value is None and name in _MAY_BE_NONE:
                continue
            if isinstance(value, bool) or not isinstance(value, types):
                yield f"{name} is {value!r}: expected {kind}"
            elif not is_fine(value):
                yield f"{name} is {value!r}: expected {expected}"
    for name, choices in _CHOICES.items():
        if (value := getattr(params, name)) not in choices:
            yield f"{name} is {value!r}: expected one of {', '.join(choices)}"
    for name in _SWITCHES:
        if not isinstance(value := getattr(params, name), bool):
            yield f"{name} is {value!r}: expected true or false"
    if not isinstance(params.strategy, str):
        yield f"unknown strategy {params.strategy!r}: expected one of {', '.join(strategy_names())}"


def _default(field: Field[Any]) -> object:
    return field.default_factory() if field.default_factory is not MISSING else field.default
