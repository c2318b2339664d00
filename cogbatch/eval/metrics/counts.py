"""The words of texts and how often each n-gram comes in each: what diversity and overlap are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from cogbatch.text import normalise, tokens

MAX_ORDER = 4  # as in BLEU, CIDEr and the n-gram kernel of the Vendi score

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class TextCounts:
    """Words and n-grams of k texts, sorted by their words: their order must not count, not even by rounding.

    Args:
        words: of each text. orders: [k, G] for n = 1 to 4: how often each of the G n-grams, in no particular
            order, comes in each text. A text with fewer than n words has a row of zeros.
    """

    words: tuple[tuple[str, ...], ...]
    orders: tuple[Counts, ...]


def words_of(text: str) -> tuple[str, ...]:
    """The tokens that metrics compare: without case, width and punctuation; a CJK character is one."""
    return tuple(tokens(normalise(text)))


def count_texts(texts: Sequence[str]) -> TextCounts:
    """Counts the n-grams of k texts."""
    return _counted(tuple(texts))


@lru_cache(maxsize=1)  # the metrics of an item ask for the same texts one after the other
def _counted(texts: tuple[str, ...]) -> TextCounts:
    words = tuple(sorted(map(words_of, texts)))
    flat = list(chain.from_iterable(words))
    ids = {word: index for index, word in enumerate(dict.fromkeys(flat))}
    first = np.fromiter(map(ids.__getitem__, flat), dtype=np.int64, count=len(flat))  # [T]
    lengths = np.array(list(map(len, words)), dtype=np.int64)
    owner = np.repeat(np.arange(len(words)), lengths)  # [T] the text of each word
    left = np.repeat(lengths.cumsum(), lengths) - np.arange(len(flat))  # [T] words from it to the text's end
    orders = [_matrix(owner, first, len(words), len(ids))]
    gram, start = first, np.arange(len(flat))  # the number of each n-gram, and its first word
    for n in range(2, MAX_ORDER + 1):
        goes_on = left[start] >= n
        start = start[goes_on]
        distinct, gram = np.unique(gram[goes_on] * len(ids) + first[start + n - 1], return_inverse=True)
        orders.append(_matrix(owner[start], gram, len(words), len(distinct)))
    return TextCounts(words, tuple(orders))


def _matrix(owner: Counts, gram: Counts, num_texts: int, num_grams: int) -> Counts:
    """[k, G] from the text and the number of each n-gram."""
    flat = np.bincount(owner * num_grams + gram, minlength=num_texts * num_grams)
    counts: Counts = flat.reshape(num_texts, num_grams)
    return counts
