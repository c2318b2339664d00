"""Sampling without replacement: k different sequences, as if drawn one after the other and put aside.

Stochastic beam search (Kool et al. 2019, arXiv:1903.06059): every sequence has its log-probability plus
Gumbel noise, drawn top-down so that only the k best prefixes are ever looked at. The first candidate is an
ordinary sample, and the noise of a prefix depends on its tokens alone: the candidates for a smaller k are
the first of those for a larger one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from cogbatch.decoding.ranking import as_step, best_first, top_tokens
from cogbatch.decoding.rng import ItemRandom, Purpose, prefix_stream
from cogbatch.decoding.strategy import Choice, State
from cogbatch.decoding.warpers import WARPER_FIELDS, require_choice, warp
from cogbatch.types import GenerationParams


class StochasticBeam:
    """k + 1 rows, the last one for the threshold of the weights.

    Choice.weight is 1 / P(the sequence is among the first k, given the threshold), so that the sum of
    weight * h(sequence) over the candidates estimates the sum of h over all sequences without bias (Kool et
    al., section 4.2): with h = exp(cumulative_logprob) * f, the model's own expectation of f, whatever the
    warpers, as long as they drop nothing. Choice.score is the log-probability under the warped model.
    """

    uses: frozenset[str] = WARPER_FIELDS
    distinct = True
    nested = True

    def check(self, params: GenerationParams) -> None:
        require_choice(params)

    def num_rows(self, params: GenerationParams) -> int:
        return params.num_candidates + 1

    def step(
        self,
        logprobs: torch.Tensor,
        state: State,
        t: int,  # noqa: ARG002
        rng: ItemRandom,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if state.memory is None:
            state.memory = Draws()
        return draw_step(logprobs, state, rng, state.memory, count=self.num_rows(state.params))

    def finish(self, state: State) -> list[Choice]:
        ranked, k = state.memory.ended, state.params.num_candidates
        threshold = ranked[k].noisy if len(ranked) > k else -np.inf
        return [
            Choice(state.finished[end.index], weight=_weight(end.total, threshold), score=end.total)
            for end in ranked[:k]
        ]


@dataclass(frozen=True)
class Ended:
    """A finished sequence: log-probability without and with noise, index into state.finished."""

    total: float
    noisy: float
    index: int


@dataclass
class Draws:
    """What drawing without replacement remembers.

    Args:
        total: [R] log-probability of each row, under the warped model. noisy: [R] the same with noise.
        ended: finished sequences that are still among the best, best first.
    """

    total: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    noisy: NDArray[np.float64] = field(default_factory=lambda: np.full(1, np.nan))
    ended: list[Ended] = field(default_factory=list)


def draw_step(
    logprobs: torch.Tensor, state: State, rng: ItemRandom, draws: Draws, *, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Grows the `count` best noisy prefixes by one token; rows come back best first."""
    warped = warp(logprobs, state.tokens, state.params).log_softmax(-1)  # [R, V]
    streams = [prefix_stream(row) for row in state.tokens.tolist()]
    noise = rng.gumbel(warped.shape[1], purpose=Purpose.PREFIX, step=state.step, streams=streams)
    values, tokens = top_tokens(noise.to(warped.device).add_(warped), count)  # [R, n]
    gained = warped.gather(1, torch.from_numpy(tokens).to(warped.device)).double().cpu().numpy()
    noisy = draws.total[:, None] + values
    if state.step > 0:  # the prompt itself has no noise to agree with
        noisy = _given_maximum(noisy, draws.noisy)

    ended = np.array([end.noisy for end in draws.ended])
    best = best_first(np.concatenate([noisy.ravel(), ended]))[:count]
    draws.ended = [draws.ended[place - noisy.size] for place in best if place >= noisy.size]
    best = best[best < noisy.size]
    parent, token = best // tokens.shape[1], tokens.ravel()[best]
    total, noisy = (draws.total[:, None] + gained).ravel()[best], noisy.ravel()[best]
    ends = state.ends(token)
    draws.ended += [
        Ended(float(total[place]), float(noisy[place]), len(state.finished) + index)
        for index, place in enumerate(np.flatnonzero(ends))
    ]
    draws.ended.sort(key=lambda end: -end.noisy)
    draws.total, draws.noisy = total[~ends], noisy[~ends]
    return as_step(parent, token)


def _given_maximum(noisy: NDArray[np.float64], maximum: NDArray[np.float64]) -> NDArray[np.float64]:
    """Moves each row [n], best first, so that its best equals maximum [R]: Kool et al., appendix B.3."""
    with np.errstate(divide="ignore", invalid="ignore"):  # the best itself has v = -inf
        v = maximum[:, None] - noisy + np.log(-np.expm1(noisy - noisy[:, :1]))
    moved = maximum[:, None] - np.maximum(v, 0.0) - np.log1p(np.exp(-np.abs(v)))
    return np.where(noisy == -np.inf, -np.inf, moved)


def _weight(total: float, threshold: float) -> float:
    """1 / P(total + Gumbel noise > threshold)."""
    with np.errstate(over="ignore"):
        return float(-1.0 / np.expm1(-np.exp(total - threshold)))
