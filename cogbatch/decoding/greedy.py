"""The most probable token at every step: one candidate, no randomness."""

from __future__ import annotations

import torch

from cogbatch.decoding.rng import ItemRandom
from cogbatch.decoding.strategy import Choice, State
from cogbatch.decoding.warpers import discourage_repetition
from cogbatch.types import GenerationParams


class Greedy:
    uses: frozenset[str] = frozenset({"repetition_penalty", "no_repeat_ngram_size"})
    distinct = False
    nested = True

    def check(self, params: GenerationParams) -> None:
        if params.num_candidates > 1:
            raise ValueError(
                f"strategy 'greedy' gives one candidate, but num_candidates is {params.num_candidates}: "
                "all of them would be equal. Use strategy 'sample'."
            )

    def num_rows(self, params: GenerationParams) -> int:  # noqa: ARG002 - the protocol's signature
        return 1

    def step(
        self,
        logprobs: torch.Tensor,
        state: State,
        t: int,  # noqa: ARG002
        rng: ItemRandom,  # noqa: ARG002
    ) -> tuple[torch.Tensor, torch.Tensor]:
        token = discourage_repetition(logprobs, state.tokens, state.params).argmax(-1)
        return torch.zeros_like(token), token

    def finish(self, state: State) -> list[Choice]:
        return [Choice(hypothesis) for hypothesis in state.finished]
