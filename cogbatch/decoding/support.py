"""How far a pool backs each of its texts: what many draws say is more likely so than what one draw says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cogbatch.text import normalise, tokens

RAREST = 3


def support(texts: Sequence[str]) -> NDArray[np.float64]:
    """[n] mean log share of the texts that hold them, over the RAREST words and pairs of words of each text.

    Between -log n, for a text whose rarest parts are its own, and 0. Self-consistency (Wang et al. 2022,
    arXiv:2203.11171) part by part: a text is as sound as what is said least often in it, so that many ways to
    put together what the draws agree on are all well supported, where agreement of whole texts would call for
    look-alikes. Equal texts count once: else whatever is drawn often would back itself.
    """
    parts = [_parts(text) for text in texts]
    backers = Counter(part for distinct in {frozenset(own) for own in parts} for part in distinct)
    number = max(1, len({frozenset(own) for own in parts}))
    shares = [np.sort([backers[part] / number for part in own])[:RAREST] for own in parts]
    return np.array([float(np.log(share).mean()) for share in shares], dtype=np.float64)


def _parts(text: str) -> set[tuple[str, ...]]:
    """Words and pairs of neighbours, the ends of the text among them; each Chinese character is a word."""
    words = ["", *tokens(normalise(text)), ""]
    return {(word,) for word in words} | set(pairwise(words))
