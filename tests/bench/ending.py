"""A strategy whose rows end at random, whatever the model says: random weights hardly ever choose the end."""

from __future__ import annotations

from typing import cast

import torch

from cogbatch.decoding import registry
from cogbatch.decoding.rng import ItemRandom, Purpose
from cogbatch.decoding.sample import Sample
from cogbatch.decoding.strategy import State, Strategy

END = 2  # of the byte tokenizer


class Ending(Sample):
    """sample, but every token is the end with a fixed probability.

    Rows that take the end for an ordinary token (ignore_eos) do the same work and run on.
    """

    def __init__(self, probability: float) -> None:
        self._probability = probability

    def step(
        self, logprobs: torch.Tensor, state: State, t: int, rng: ItemRandom
    ) -> tuple[torch.Tensor, torch.Tensor]:
        parent, token = super().step(logprobs, state, t, rng)
        lanes = state.opened(len(token)) if t == 0 else state.lanes
        drawn = [rng.uniform(purpose=Purpose.OFFSET, step=t, stream=lane) for lane in lanes]
        return parent, token.masked_fill(torch.tensor(drawn) < self._probability, END)


def register(name: str, strategy: Strategy) -> None:
    """Makes a strategy of this process known by a name."""
    cast(dict[str, Strategy], registry.STRATEGIES)[name] = strategy


def hazard(new_tokens: int) -> float:
    """The probability of the end at each token with which rows of at most new_tokens have half on average.

    A row's mean length is (1 - (1 - p)^n) / p, which falls with p.
    """
    low, high = 1e-9, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        longer = (1 - (1 - middle) ** new_tokens) / middle > new_tokens / 2
        low, high = (middle, high) if longer else (low, middle)
    return low
