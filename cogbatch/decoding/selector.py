"""What a selector is: it chooses k candidates out of a larger pool of one item. Texts and numbers only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cogbatch.decoding.similarity import similarity_matrix
from cogbatch.decoding.support import support
from cogbatch.text import normalise
from cogbatch.types import Candidate, GenerationParams

LOWEST_QUALITY = -1000.0  # keeps sums finite where a model calls a text impossible


@dataclass(frozen=True)
class SelectionContext:
    """What a selector may ask about its pool.

    Args:
        params: of the item.
        counts: how often the text of each candidate was drawn; empty means once each.
        scores: a selector leaves the score of an index that it chose here, if it has one.
    """

    pool: Sequence[Candidate]
    params: GenerationParams
    counts: Sequence[int] = ()
    scores: dict[int, float] = field(default_factory=dict)

    @cached_property
    def texts(self) -> list[str]:
        """[n] as they count when asking whether two are the same."""
        return [normalise(candidate.text) for candidate in self.pool]

    @cached_property
    def similarity(self) -> NDArray[np.float64]:
        """[n, n], symmetric, in [0, 1], 1 on the diagonal, positive semidefinite."""
        return similarity_matrix(
            self.texts,
            kind=self.params.similarity,
            embedding_model=self.params.embedding_model,
        )

    @cached_property
    def quality(self) -> NDArray[np.float64]:
        """[n] how good each text is, by params.quality; 0 is the best that there is.

        support: see there. logprob: log-probability per token, in nats, under the model before warpers, at
        least LOWEST_QUALITY. Per token, because the sum calls every short text better than every long one.
        The mean has a bias of its own, a weak one: long texts pay once for their end token and have more that
        follows from what was said, repetition above all. Loops are flagged and left out before a selector
        sees them.
        """
        if self.params.quality == "support":
            return support(self.texts)
        each = np.array([c.cumulative_logprob / max(c.num_tokens, 1) for c in self.pool], dtype=np.float64)
        return np.nan_to_num(each, nan=LOWEST_QUALITY, posinf=0.0).clip(LOWEST_QUALITY, 0.0)


class Selector(Protocol):
    """Chooses among candidates with different texts. Stateless; does not depend on the pool's order.

    uses: fields of GenerationParams that it reads, beyond num_candidates, pool_size and selector.
    """

    uses: frozenset[str]

    def check(self, params: GenerationParams) -> None:
        """Raises ValueError for params under which it cannot do what was asked."""

    def select(self, pool: Sequence[Candidate], k: int, context: SelectionContext) -> Sequence[int]:
        """At most k different indices into pool, best first. The pool may hold fewer than k."""
