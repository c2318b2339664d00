"""What a decoding strategy is, and the state that one item has between its steps. Never sees a model.

A strategy sees one item. Each step it gets log-probabilities [R, V] of the rows that are alive and answers
with (parent [R'], token [R']): which row each next row continues, and with which token. R = 1 at t = 0, so
parents of zeros fork the prompt; arange moves nothing; anything else reorders. Rows whose token ends them
are retired by the state, the others come back in the same order at the next step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from cogbatch.decoding.rng import ItemRandom
from cogbatch.types import FinishReason, GenerationParams


@dataclass(frozen=True)
class Hypothesis:
    """One finished row. cumulative_logprob: nats, under the model before warpers, end token included."""

    tokens: tuple[int, ...]
    cumulative_logprob: float
    finish_reason: FinishReason
    lane: int


@dataclass(frozen=True)
class Choice:
    """A hypothesis that a strategy delivers; weight and score where it defines them."""

    hypothesis: Hypothesis
    weight: float | None = None
    score: float | None = None


@dataclass
class State:
    """One item between steps.

    Args:
        params: of this item. end_ids: tokens that end a row, empty with ignore_eos.
        tokens: [R, t] int64 on the CPU, generated so far by the rows alive.
        lanes: [R], fixed when the prompt is forked.
        first_lanes: names of the rows that fork the prompt; None is 0, 1, ... (a second draw needs others).
        logprobs: [R] cumulative log-probabilities of the rows alive.
        finished: rows that ended, in the order in which they did.
        memory: whatever the strategy keeps.
    """

    params: GenerationParams
    end_ids: frozenset[int]
    tokens: torch.Tensor = field(default_factory=lambda: torch.zeros(1, 0, dtype=torch.long))
    lanes: list[int] = field(default_factory=lambda: [0])
    logprobs: list[float] = field(default_factory=lambda: [0.0])
    finished: list[Hypothesis] = field(default_factory=list)
    first_lanes: tuple[int, ...] | None = None
    memory: Any = None

    @property
    def step(self) -> int:
        """Tokens generated so far by each row alive."""
        return self.tokens.shape[1]

    def opened(self, num_rows: int) -> list[int]:
        """The lanes of the first num_rows rows that fork the prompt."""
        return list(range(num_rows) if self.first_lanes is None else self.first_lanes[:num_rows])

    def allowed(self, logprobs: torch.Tensor) -> torch.Tensor:
        """Log-probabilities a strategy may choose from: no end token before min_new_tokens.

        A row that could do nothing but end may end.
        """
        if self.step >= self.params.min_new_tokens or not self.end_ids:
            return logprobs
        ends = torch.tensor(sorted(self.end_ids), device=logprobs.device)
        return unless_empty(logprobs.index_fill(1, ends, -torch.inf), logprobs)

    def ends(self, token: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the tokens chosen at this step end their rows, as end tokens or as the last ones."""
        if self.step + 1 >= self.params.max_new_tokens:
            return np.ones(token.shape, dtype=bool)
        return np.isin(token, list(self.end_ids))

    def advance(self, logprobs: torch.Tensor, parent: torch.Tensor, token: torch.Tensor) -> list[int]:
        """`take` of what a strategy's step returned.

        logprobs: [R, V] of the model, as the step saw them before min_new_tokens. parent, token: [R'] int64.
        """
        parents, chosen = torch.stack([parent, token]).tolist()
        return self.take(parents, chosen, logprobs[parent, token].tolist())

    def take(self, parents: list[int], chosen: list[int], gained: list[float]) -> list[int]:
        """Appends the chosen tokens, retires rows that ended, and returns the parents of those that live on.

        parents, chosen: [R'] rows and their next tokens. gained: [R'] log-probabilities of those, in nats.
        """
        forking = self.step == 0
        lanes = self.opened(len(parents)) if forking else [self.lanes[row] for row in parents]
        totals = [self.logprobs[row] + gain for row, gain in zip(parents, gained, strict=True)]
        tokens = torch.cat([self.tokens[parents], torch.tensor(chosen, dtype=torch.long)[:, None]], dim=1)
        last = tokens.shape[1] >= self.params.max_new_tokens
        alive = []
        for row, choice in enumerate(chosen):
            if choice in self.end_ids or last:
                reason: FinishReason = "stop" if choice in self.end_ids else "length"
                sequence = tuple(tokens[row].tolist())
                self.finished.append(Hypothesis(sequence, totals[row], reason, lanes[row]))
            else:
                alive.append(row)
        self.tokens = tokens[alive]
        self.lanes = [lanes[row] for row in alive]
        self.logprobs = [totals[row] for row in alive]
        return [parents[row] for row in alive]


def unless_empty(filtered: torch.Tensor, logprobs: torch.Tensor) -> torch.Tensor:
    """filtered, but rows that it leaves without any token as they are in logprobs. Both [R, V]."""
    return torch.where(filtered.amax(-1, keepdim=True) == -torch.inf, logprobs, filtered)


class Strategy(Protocol):
    """How the tokens of one item are chosen. Stateless: everything between steps lives in State.

    uses: fields of GenerationParams that it reads, beyond the common ones (params.COMMON_FIELDS).
    distinct: promises candidates with different tokens, and so may deliver fewer than k. Different tokens may
        still spell the same text: the engine drops those.
    nested: promises that the candidates for a smaller k are the first of those for a larger one.
    """

    uses: frozenset[str]
    distinct: bool
    nested: bool

    def check(self, params: GenerationParams) -> None:
        """Raises ValueError for params under which it cannot do what was asked."""

    def num_rows(self, params: GenerationParams) -> int:
        """The most rows that live on after any step; a step may return more, if the others end with it."""

    def step(
        self, logprobs: torch.Tensor, state: State, t: int, rng: ItemRandom
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(parent [R'], token [R']), int64, from log-probabilities [R, V] float32. R' = 0 ends the item."""

    def finish(self, state: State) -> list[Choice]:
        """At most k candidates, best first where the strategy ranks them."""
