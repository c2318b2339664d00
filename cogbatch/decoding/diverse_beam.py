"""Diverse beam search: groups of beams, each kept away from the tokens of the groups before it.

Vijayakumar et al. 2016, arXiv:1610.02424, with Hamming diversity. The penalty decides which continuations a
group takes; scores, and so the order of what is delivered, are without it.
"""

from __future__ import annotations

import torch

from cogbatch.decoding.beam import Beam, best_choices, num_beams, search_step
from cogbatch.decoding.rng import ItemRandom
from cogbatch.decoding.strategy import Choice, State
from cogbatch.types import GenerationParams


class DiverseBeam:
    """num_beam_groups searches of num_beams / num_beam_groups beams each, run in step.

    At each step, a continuation of a later group ranks lower by diversity_penalty times the number of beams
    of earlier groups that chose its token at this step, as their end or to go on. A group is over as a beam
    search is, and from then on chooses nothing. Delivered are the best of each group, then the second best
    of each, until there are k; a sequence that several groups found counts once.
    """

    uses: frozenset[str] = Beam.uses | {"num_beam_groups", "diversity_penalty"}
    distinct = True
    nested = False

    def check(self, params: GenerationParams) -> None:
        Beam().check(params)
        groups, beams = params.num_beam_groups, num_beams(params)
        if beams % groups:
            raise ValueError(
                f"num_beams is {beams}: expected a multiple of num_beam_groups ({groups}), "
                "since all groups are equally wide"
            )
        if groups > 1 and params.diversity_penalty == 0 and params.num_candidates > beams // groups:
            raise ValueError(
                f"diversity_penalty is 0, so all {groups} groups would be equal and give "
                f"{beams // groups} of {params.num_candidates} candidates: set diversity_penalty above 0"
            )

    def num_rows(self, params: GenerationParams) -> int:
        return num_beams(params)

    def step(
        self,
        logprobs: torch.Tensor,
        state: State,
        t: int,  # noqa: ARG002
        rng: ItemRandom,  # noqa: ARG002
    ) -> tuple[torch.Tensor, torch.Tensor]:
        params = state.params
        return search_step(
            logprobs, state, num_groups=params.num_beam_groups, diversity_penalty=params.diversity_penalty
        )

    def finish(self, state: State) -> list[Choice]:
        return best_choices(state)
