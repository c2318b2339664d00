"""What a request's parameters come down to: one run of a strategy, or several for a portfolio.

A selector makes the runs draw a pool; a portfolio shares the draws out among its members. Both are the
engine's business: a strategy only ever sees the parameters of its own run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cogbatch.decoding.registry import strategy_named
from cogbatch.decoding.strategy import Strategy
from cogbatch.types import GenerationParams, PortfolioMember

PORTFOLIO = "portfolio"

# What belongs to the request as a whole, and so not to a run.
_OF_THE_REQUEST: Mapping[str, Any] = {"selector": None, "pool_size": None, "portfolio": ()}


@dataclass(frozen=True)
class Part:
    """One run of a strategy.

    prompt: None is the request's own. params: of this run; num_candidates is what it draws.
    source: what Candidate.source says.
    """

    strategy: Strategy
    params: GenerationParams
    source: str
    prompt: str | None = None


def pool_size(params: GenerationParams) -> int:
    """How many candidates are drawn: k, or the pool's size where a selector chooses k of them."""
    if params.selector is None:
        return params.num_candidates
    return 4 * params.num_candidates if params.pool_size is None else params.pool_size


def parts(params: GenerationParams) -> tuple[Part, ...]:
    """The runs of a request; members of a portfolio that get no share are left out.

    Raises ValueError: an unknown strategy or field, a portfolio within a portfolio, or one without members.
    """
    draws = pool_size(params)
    if params.strategy != PORTFOLIO:
        run = dataclasses.replace(params, **_OF_THE_REQUEST, num_candidates=draws)
        return (Part(strategy_named(params.strategy), run, source=params.strategy),)
    if not params.portfolio:
        raise ValueError("strategy 'portfolio' needs portfolio: a list of {prompt, share, params}")
    for index, member in enumerate(params.portfolio):
        if not (isinstance(member.share, int | float) and 0 < member.share < float("inf")):
            raise ValueError(f"portfolio[{index}]: share is {member.share!r}: expected above 0")
    shares = apportion([member.share for member in params.portfolio], draws)
    return tuple(
        _member(index, member, params, num_candidates=share)
        for index, (member, share) in enumerate(zip(params.portfolio, shares, strict=True))
        if share
    )


def apportion(shares: Sequence[float], total: int) -> list[int]:
    """Whole numbers that add up to total, in proportion to shares: largest remainders, the first on a tie."""
    exact = [share * total / sum(shares) for share in shares]
    counts = [int(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda index: counts[index] - exact[index])
    for index in by_remainder[: total - sum(counts)]:
        counts[index] += 1
    return counts


def _member(index: int, member: PortfolioMember, params: GenerationParams, *, num_candidates: int) -> Part:
    where = f"portfolio[{index}]"
    known = {field.name for field in dataclasses.fields(GenerationParams)}
    fixed = {*_OF_THE_REQUEST, "num_candidates", "return_token_ids", "deterministic"}
    for name in member.params:
        if name not in known or name in fixed:
            raise ValueError(
                f"{where}: params has {name!r}, which "
                + ("belongs to the whole request" if name in fixed else "is no generation parameter")
            )
    values = {"strategy": "sample", **member.params}
    if values["strategy"] == PORTFOLIO:
        raise ValueError(f"{where}: a portfolio cannot hold another one")
    run = dataclasses.replace(params, **_OF_THE_REQUEST, **values, num_candidates=num_candidates)
    source = f"{PORTFOLIO}[{index}] {values['strategy']}"
    return Part(strategy_named(str(values["strategy"])), run, source=source, prompt=member.prompt)
