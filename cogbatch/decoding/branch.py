"""k different openings, drawn without replacement, each continued by sampling. For short answers.

What answers differ in is often their first words (Wang and Zhou 2024, arXiv:2402.10200, branch on the first
token and go on greedily). Drawn rather than taken from the top, openings stay as probable as they are; no
weights, since what follows is sampled.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from cogbatch.decoding.rng import ItemRandom, Purpose, prefix_stream
from cogbatch.decoding.stochastic_beam import Draws, draw_step
from cogbatch.decoding.strategy import Choice, State
from cogbatch.decoding.warpers import WARPER_FIELDS, require_choice, warp
from cogbatch.types import GenerationParams


class Branch:
    uses: frozenset[str] = WARPER_FIELDS | {"branch_length"}
    distinct = True  # by their openings
    nested = True

    def check(self, params: GenerationParams) -> None:
        require_choice(params)

    def num_rows(self, params: GenerationParams) -> int:
        return params.num_candidates

    def step(
        self, logprobs: torch.Tensor, state: State, t: int, rng: ItemRandom
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if state.memory is None:
            state.memory = Openings()
        openings: Openings = state.memory
        length = state.params.branch_length
        if t < length:
            return draw_step(logprobs, state, rng, openings.draws, count=state.params.num_candidates)
        if t == length:
            openings.noisy = dict(zip(map(tuple, state.tokens.tolist()), openings.draws.noisy, strict=True))
        # The noise belongs to the opening: neither k nor the order of the rows matters.
        streams = [prefix_stream(row) for row in state.tokens[:, :length].tolist()]
        warped = warp(logprobs, state.tokens, state.params)  # [R, V]
        token = rng.draw(warped, purpose=Purpose.BRANCH, step=t, streams=streams)
        return torch.arange(len(streams), device=token.device), token

    def finish(self, state: State) -> list[Choice]:
        openings: Openings = state.memory
        found = [(end.noisy, state.finished[end.index]) for end in openings.draws.ended]
        for hypothesis in state.finished:
            opening = hypothesis.tokens[: state.params.branch_length]
            if opening in openings.noisy:
                found.append((openings.noisy[opening], hypothesis))
        return [Choice(hypothesis) for _, hypothesis in sorted(found, key=lambda entry: -entry[0])]


@dataclass
class Openings:
    """draws: of the first tokens. noisy: of each opening that goes on, its log-probability with noise."""

    draws: Draws = field(default_factory=Draws)
    noisy: dict[tuple[int, ...], float] = field(default_factory=dict)
