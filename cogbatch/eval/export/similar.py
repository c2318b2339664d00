"""When two texts say nearly the same: Jaccard similarity of their pairs of neighbouring words.

Words are those of cogbatch.text, Chinese by the character. LSH finds who may be near, the sets decide.
"""

from __future__ import annotations

import hashlib

import numpy as np
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray

from cogbatch.text import ngrams, normalise, tokens

MAX_SHINGLES = 1024  # the smallest hashes of a longer text stand for it (bottom-k, Broder 1997)
NUM_PERM = 128
MAX_MISSED = 0.02  # of pairs at exactly the threshold, which LSH does not bring together

Shingles = NDArray[np.uint64]


def shingles(text: str) -> Shingles:
    """Sorted, different hashes of the pairs of neighbouring words; of a single word where there is one."""
    folded = normalise(text)
    words = tokens(folded)
    pairs = [" ".join(pair) for pair in ngrams(words, 2)] or words or [folded]
    hashes = [int.from_bytes(hashlib.blake2b(pair.encode(), digest_size=8).digest()) for pair in set(pairs)]
    return np.sort(np.array(hashes, dtype=np.uint64))[:MAX_SHINGLES]


def similarity(one: Shingles, other: Shingles) -> float:
    """Jaccard similarity from 0 to 1; an estimate only where the texts have more than 1,024 pairs."""
    union = np.union1d(one, other)[:MAX_SHINGLES]
    shared = np.intersect1d(np.intersect1d(one, other, assume_unique=True), union, assume_unique=True)
    return len(shared) / len(union)


def bands(threshold: float) -> tuple[int, int]:
    """(bands, rows of each) of LSH for a similarity: as many rows as keep misses at 2 %.

    A pair of similarity s is missed by all b bands of r rows with probability (1 - s^r)^b (Leskovec,
    Rajaraman and Ullman, Mining of Massive Datasets, 3.4.2). What LSH finds in vain is only compared.
    """
    fitting = [
        (NUM_PERM // rows, rows)
        for rows in range(1, NUM_PERM // 2 + 1)
        if (1 - threshold**rows) ** (NUM_PERM // rows) <= MAX_MISSED
    ]
    return max(fitting, key=lambda found: found[1], default=(NUM_PERM, 1))


class NearTexts:
    """Texts, none of which is like an earlier one. About 6 KB of memory each."""

    def __init__(self, threshold: float) -> None:
        """threshold: similarity, above 0 and at most 1, from which a text is like another."""
        self._threshold = threshold
        self._index = MinHashLSH(num_perm=NUM_PERM, params=bands(threshold))
        self._kept: list[Shingles] = []

    def add(self, text: str) -> bool:
        """Takes the text in, unless it is like one that is in. Returns whether it was taken."""
        found = shingles(text)
        sketch = MinHash(num_perm=NUM_PERM, seed=1)
        sketch.update_batch([value.tobytes() for value in found])
        for number in self._index.query(sketch):
            if similarity(found, self._kept[number]) >= self._threshold:
                return False
        self._index.insert(len(self._kept), sketch)
        self._kept.append(found)
        return True
