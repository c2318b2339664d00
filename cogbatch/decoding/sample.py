"""Ancestral sampling: k independent draws from the warped model, lane by lane.

Gumbel-max: argmax(log p + Gumbel noise) is a draw from p, and a small numerical difference in log p moves
it far less often than it moves an inverse-CDF draw. Lane j never depends on k, nor on other lanes.
"""

from __future__ import annotations

import torch

from cogbatch.decoding.rng import ItemRandom, Purpose
from cogbatch.decoding.strategy import Choice, State
from cogbatch.decoding.warpers import WARPER_FIELDS, require_choice, warp
from cogbatch.types import GenerationParams


class Sample:
    uses: frozenset[str] = WARPER_FIELDS | {"resample_loops"}
    distinct = False
    nested = True

    def check(self, params: GenerationParams) -> None:
        require_choice(params)

    def num_rows(self, params: GenerationParams) -> int:
        return params.num_candidates

    def step(
        self, logprobs: torch.Tensor, state: State, t: int, rng: ItemRandom
    ) -> tuple[torch.Tensor, torch.Tensor]:
        warped = warp(logprobs, state.tokens, state.params)  # [R, V]
        lanes = state.opened(state.params.num_candidates) if t == 0 else state.lanes
        token = rng.draw(warped, purpose=Purpose.TOKEN, step=t, streams=lanes)
        parent = torch.zeros_like(token) if t == 0 else torch.arange(len(lanes), device=token.device)
        return parent, token

    def finish(self, state: State) -> list[Choice]:
        return [Choice(hypothesis) for hypothesis in sorted(state.finished, key=lambda h: h.lane)]
