"""How alike two texts are: n-gram overlap, edit distance, or embeddings of a local model.

Every kind gives a kernel, so that its determinants mean volume. Texts and numbers only: no model's tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

from cogbatch.decoding.embedding import embed, find_model
from cogbatch.text import normalise, tokens
from cogbatch.types import Similarity

Matrix = NDArray[np.float64]
Places = NDArray[np.int64]

_BLOCK = 4096  # columns: bounds memory where pools and texts are large


def similarity_matrix(
    texts: Sequence[str], *, kind: Similarity, embedding_model: str | None = None
) -> NDArray[np.float64]:
    """[n, n] similarities of n texts: symmetric, in [0, 1], positive semidefinite; of equal texts exactly 1.

    Case, blanks and final punctuation do not count (cogbatch.text.normalise). The order of the texts changes
    no bit of a pair's similarity; with "edit" the other texts may, see _edit.

    Args:
        kind: ngram: cosine of counts of words and pairs of neighbours, each Chinese character a word. edit:
            1 - Levenshtein distance of characters over the longer length. embedding: (1 + cosine) / 2 of the
            vectors of embedding_model, a directory that model2vec loads.

    Raises:
        ValueError: an unknown kind, or embedding without a model that can be loaded.
    """
    check_similarity(kind, embedding_model)
    if not texts:
        return np.zeros((0, 0))
    # Different texts only, sorted: rounding depends on places in a matrix, and so would on the texts' order.
    normalised = [normalise(text) for text in texts]
    different = sorted(set(normalised))
    kernel = _KINDS[kind](different) if embedding_model is None else _embedding(different, embedding_model)
    kernel = np.clip((kernel + kernel.T) / 2, 0, 1)
    np.fill_diagonal(kernel, 1)
    place = {text: index for index, text in enumerate(different)}
    places = [place[text] for text in normalised]
    return kernel[np.ix_(places, places)]


def check_similarity(kind: str, embedding_model: str | None) -> None:
    """Raises ValueError: an unknown kind, a model without use, or none where one is needed."""
    if kind == "embedding":
        if embedding_model is None:
            raise ValueError(
                "similarity 'embedding' needs embedding_model: give a local directory, or take ngram or edit"
            )
        find_model(embedding_model)
    elif kind not in _KINDS:
        raise ValueError(f"similarity is {kind!r}: expected one of ngram, edit, embedding")
    elif embedding_model is not None:
        raise ValueError(f"similarity {kind!r} does not use embedding_model: leave it out, or take embedding")


def _ngram(texts: Sequence[str]) -> Matrix:
    """Cosine of counts of words and pairs of neighbours. The ends of a text count as neighbours."""
    numbers: dict[str, int] = {}
    rows: list[int] = []
    words: list[int] = []  # numbers of all words of all texts, each text followed by the number 0 for its end
    for row, text in enumerate(texts):
        # Signs and other texts without words are one word of their own.
        own = tokens(text) or ([text] if text else [])
        words += [numbers.setdefault(word, len(numbers) + 1) for word in own]
        words.append(0)
        rows += [row] * (len(own) + 1)
    after = np.array(words)
    size = len(numbers) + 1
    before = np.concatenate(([0], after[:-1]))  # the end before a text is its start
    grams = np.concatenate((after[after > 0], size + before * size + after))
    text_of = np.concatenate((np.array(rows)[after > 0], rows))
    kinds, columns = np.unique(grams, return_inverse=True)
    cells, counts = np.unique(text_of * len(kinds) + columns, return_counts=True)
    text_of, columns = np.divmod(cells, len(kinds))
    squares = np.bincount(text_of, weights=counts**2)
    # Most grams stand in one text only: they count in its length and in no product.
    shared = np.bincount(columns)[columns] > 1
    products = _products(text_of[shared], columns[shared], counts[shared], len(texts))
    np.fill_diagonal(products, squares)
    return products / np.sqrt(np.outer(squares, squares))


def _products(rows: Places, columns: Places, counts: Places, n: int) -> Matrix:
    """[n, n] inner products of n rows of counts, a block of columns at a time. Exact: they are integers."""
    products = np.zeros((n, n))
    kinds, columns = np.unique(columns, return_inverse=True)
    for start in range(0, len(kinds), _BLOCK):
        inside = (columns >= start) & (columns < start + _BLOCK)
        block = np.zeros((n, min(_BLOCK, len(kinds) - start)))
        block[rows[inside], columns[inside] - start] = counts[inside]
        products += block @ block.T
    return products


def _edit(texts: Sequence[str]) -> Matrix:
    """Normalised Levenshtein similarity, made a kernel.

    It is none by itself: some sets of texts have a negative eigenvalue. Where that is so, the similarities of
    different texts shrink by one common factor, just enough to raise that eigenvalue to 0; who is more alike
    than whom stays as it is.
    """
    raw = cdist(texts, texts, scorer=Levenshtein.normalized_similarity, dtype=np.float64)
    lowest = float(np.linalg.eigvalsh(raw)[0])
    identity = np.eye(len(texts))
    return raw if lowest >= 0 else (raw - lowest * identity) / (1 - lowest)


def _embedding(texts: Sequence[str], model: str) -> Matrix:
    """(1 + cosine) / 2 of embeddings, the cosine with a zero vector being 0.

    The mean of two kernels, one of them all ones, and so a kernel; to cut cosines off at 0 would give none.
    """
    vectors = embed(texts, model)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(lengths > 0, lengths, 1)
    cosines: Matrix = unit @ unit.T
    return (1 + cosines) / 2


_KINDS: dict[str, Callable[[Sequence[str]], Matrix]] = {"ngram": _ngram, "edit": _edit}
