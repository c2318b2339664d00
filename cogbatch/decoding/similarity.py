"""How alike two texts are: n-gram overlap, edit distance, or embeddings of a local model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cogbatch.types import Similarity


def similarity_matrix(
    texts: Sequence[str], *, kind: Similarity, embedding_model: str | None = None
) -> NDArray[np.float64]:
    """[n, n] similarities of n texts."""
    raise NotImplementedError(kind, embedding_model, len(texts))
