"""Which strategies and selectors exist: ours, and those that installed packages offer as entry points.

A package registers one in its pyproject.toml; the name on the left is what users write.

    [project.entry-points."cogbatch.strategies"]
    my-strategy = "my_package:MyStrategy"
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from cogbatch.decoding.arithmetic import Arithmetic
from cogbatch.decoding.beam import Beam
from cogbatch.decoding.branch import Branch
from cogbatch.decoding.diverse_beam import DiverseBeam
from cogbatch.decoding.greedy import Greedy
from cogbatch.decoding.sample import Sample
from cogbatch.decoding.selector import Selector
from cogbatch.decoding.selectors import SELECTORS
from cogbatch.decoding.stochastic_beam import StochasticBeam
from cogbatch.decoding.strategy import Strategy

STRATEGIES: Mapping[str, Strategy] = {
    "greedy": Greedy(),
    "sample": Sample(),
    "arithmetic": Arithmetic(),
    "stochastic-beam": StochasticBeam(),
    "beam": Beam(),
    "diverse-beam": DiverseBeam(),
    "branch": Branch(),
}


def strategy_named(name: str) -> Strategy:
    """The strategy. Raises ValueError: unknown, or its package cannot be loaded."""
    return STRATEGIES[name] if name in STRATEGIES else _load("strategy", name)


def selector_named(name: str) -> Selector:
    """The selector. Raises ValueError: unknown, or its package cannot be loaded."""
    return SELECTORS[name] if name in SELECTORS else _load("selector", name)


def strategy_names() -> list[str]:
    """Every strategy that can be named, ours first."""
    return [*STRATEGIES, *sorted(set(_offered("strategy")) - set(STRATEGIES))]


def selector_names() -> list[str]:
    """Every selector that can be named, ours first."""
    return [*SELECTORS, *sorted(set(_offered("selector")) - set(SELECTORS))]


def _offered(kind: str) -> dict[str, EntryPoint]:
    group = {"strategy": "cogbatch.strategies", "selector": "cogbatch.selectors"}[kind]
    return {entry.name: entry for entry in entry_points(group=group)}


@cache
def _load(kind: str, name: str) -> Any:
    offered = _offered(kind)
    if name not in offered:
        known = [*strategy_names(), "portfolio"] if kind == "strategy" else selector_names()
        raise ValueError(f"unknown {kind} {name!r}: expected one of {', '.join(known)}")
    entry = offered[name]
    try:
        return entry.load()()
    except Exception as err:  # whatever a foreign package does when it is imported
        reason = f"{type(err).__name__}: {err}"
        raise ValueError(f"{kind} {name!r} ({entry.value}) cannot be loaded: {reason}") from err
