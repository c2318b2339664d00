"""A selector made of a rule: a function that chooses from a ranked pool, numbers only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cogbatch.decoding.selector import SelectionContext
from cogbatch.decoding.selectors.pool import RankedPool, rank, shares
from cogbatch.decoding.similarity import check_similarity
from cogbatch.types import Candidate, GenerationParams

# (place in the ranked pool, score) of the k that are chosen, best first; k is at most the pool's length.
Rule = Callable[[RankedPool, int], list[tuple[int, float]]]


@dataclass
class RuleSelector:
    """Chooses what its rule does; at most one candidate of each text."""

    rule: Rule
    uses: frozenset[str]

    def check(self, params: GenerationParams) -> None:
        if "similarity" in self.uses:
            check_similarity(params.similarity, params.embedding_model)

    def select(self, pool: Sequence[Candidate], k: int, context: SelectionContext) -> list[int]:
        if not pool:
            return []
        places = rank(context)
        compares = "similarity" in self.uses
        ranked = RankedPool(
            quality=context.quality[places],
            similarity=context.similarity[np.ix_(places, places)] if compares else np.eye(len(places)),
            share=shares(context, places),
            quality_weight=context.params.quality_weight,
        )
        chosen = self.rule(ranked, min(k, len(places)))
        context.scores.update({places[place]: score for place, score in chosen})
        return [places[place] for place, _ in chosen]
