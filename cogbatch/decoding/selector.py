"""What a selector is: it chooses k candidates out of a larger pool of one item. Texts and numbers only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cogbatch.decoding.similarity import similarity_matrix
from cogbatch.types import Candidate, GenerationParams


@dataclass(frozen=True)
class SelectionContext:
    """What a selector may ask about its pool.

    params: of the item. scores: a selector leaves the score of an index that it chose here, if it has one.
    """

    pool: Sequence[Candidate]
    params: GenerationParams
    scores: dict[int, float] = field(default_factory=dict)

    @cached_property
    def similarity(self) -> NDArray[np.float64]:
        """[n, n], symmetric, in [0, 1], 1 on the diagonal, positive semidefinite."""
        return similarity_matrix(
            [candidate.text for candidate in self.pool],
            kind=self.params.similarity,
            embedding_model=self.params.embedding_model,
        )

    @cached_property
    def quality(self) -> NDArray[np.float64]:
        """[n] log-probability per token, in nats, under the model."""
        return np.array([c.cumulative_logprob / max(c.num_tokens, 1) for c in self.pool])


class Selector(Protocol):
    """Chooses among candidates with different texts. Stateless; does not depend on the pool's order.

    uses: fields of GenerationParams that it reads, beyond num_candidates, pool_size and selector.
    """

    uses: frozenset[str]

    def check(self, params: GenerationParams) -> None:
        """Raises ValueError for params under which it cannot do what was asked."""

    def select(self, pool: Sequence[Candidate], k: int, context: SelectionContext) -> Sequence[int]:
        """At most k different indices into pool, best first. The pool may hold fewer than k."""
