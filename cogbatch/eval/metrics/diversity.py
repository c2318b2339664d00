"""How much the candidates of one item differ from each other. Texts in, one number out; order never counts.

They see different things: texts that differ by one word are all unique and still close by ROUGE-L. Words are
those of words_of. A measure of pairs needs two texts: with fewer its value is None.
"""

from __future__ import annotations

import gzip
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Indel
from rapidfuzz.process import cdist

from cogbatch.eval.metrics.bleu import bleu_of_counts
from cogbatch.eval.metrics.counts import Counts, count_texts
from cogbatch.text import ngrams, normalise


def unique_rate(texts: Sequence[str]) -> float | None:
    """Texts that differ after normalisation, per text: in (0, 1]. None without texts."""
    return len(set(map(normalise, texts))) / len(texts) if texts else None


def repeats(texts: Sequence[str]) -> tuple[int | None, ...]:
    """For each text the index of the first earlier one that is the same after normalisation, or None."""
    first: dict[str, int] = {}
    found = [first.setdefault(normalise(text), index) for index, text in enumerate(texts)]
    return tuple(None if earlier == index else earlier for index, earlier in enumerate(found))


def distinct_n(texts: Iterable[Sequence[str]], n: int) -> float | None:
    """Different n-grams per n-gram over all texts together, in (0, 1]; None where no text has n tokens.

    Li et al. 2016, arXiv:1510.03055, who divide by the number of tokens; by that of n-grams, as usual since,
    texts without repetition have 1 for every n. Depends on how much text there is: compare equal k only.

    Args:
        texts: the tokens of each.
    """
    counts = Counter(chain.from_iterable(ngrams(text, n) for text in texts))
    return len(counts) / counts.total() if counts else None


def distinct_rates(texts: Sequence[str]) -> list[float | None]:
    """distinct_n of the texts' words for n = 1 to 4, counted once."""
    orders = count_texts(texts).orders
    return [counts.shape[1] / float(counts.sum()) if counts.size else None for counts in orders]


def self_bleu(texts: Sequence[str]) -> float | None:
    """BLEU of each text with all the others as its references, averaged: in [0, 100], low when diverse.

    Zhu et al. 2018, arXiv:1802.01886. Each is scored as by sentence_bleu. More texts find more matches:
    compare equal k only. Texts without words are left out; None when fewer than two are left.
    """
    counted = count_texts(texts)
    spoken = [index for index, words in enumerate(counted.words) if words]
    if len(spoken) < 2:
        return None
    lengths = [len(counted.words[index]) for index in spoken]
    orders = [counts[spoken] for counts in counted.orders]
    totals = np.stack([counts.sum(axis=1) for counts in orders], axis=1).tolist()  # [k, 4]
    matches = np.stack([_in_others(counts).sum(axis=1) for counts in orders], axis=1).tolist()
    scores = [
        bleu_of_counts(matches[row], totals[row], lengths[row], lengths[:row] + lengths[row + 1 :])
        for row in range(len(spoken))
    ]
    return math.fsum(scores) / len(scores)


def rouge_l_distance(texts: Sequence[str]) -> float | None:
    """1 - ROUGE-L (beta 1, see rouge_l), averaged over all pairs: in [0, 1], 0 when all are the same."""
    words = count_texts(texts).words
    if len(words) < 2:
        return None
    # 2 LCS / (a + b) is what rapidfuzz calls the normalised similarity of insertions and deletions.
    alike = cdist(words, words, scorer=Indel.normalized_similarity, dtype=np.float64)  # [k, k]
    return float(1 - alike[np.triu_indices(len(words), k=1)].mean())


def vendi_score(texts: Sequence[str]) -> float | None:
    """How many different texts there are in effect, in [1, k]: 1 when all are the same. None without texts.

    exp of the entropy of the eigenvalues of K / k (Friedman & Dieng 2022, arXiv:2210.02410), with the
    kernel of their n-gram score: K is the cosine of n-gram counts, averaged over n = 1 to 4. Texts with fewer
    than n words count as alike for that n when their words are the same.
    """
    counted = count_texts(texts)
    num_texts = len(counted.words)
    if num_texts == 0:
        return None
    kernel = sum(_cosine(counts, counted.words) for counts in counted.orders) / len(counted.orders)
    eigenvalues = np.linalg.eigvalsh(kernel / num_texts)
    shares = eigenvalues[eigenvalues > 0]  # rounding may leave some just below 0
    score = math.exp(-float(shares @ np.log(shares)))
    return min(max(score, 1.0), float(num_texts))


def compression_ratio(texts: Iterable[str]) -> float | None:
    """Bytes as UTF-8 per byte after gzip, high when texts repeat each other. None without any text.

    Shaib et al. 2024, arXiv:2403.00553. As written, sorted, joined by blanks. The ratio grows with the
    amount of text, gzip adds 18 bytes, and a Chinese character has 3: compare equal k and one language.
    """
    data = " ".join(sorted(texts)).encode(errors="replace")  # a lone surrogate has no UTF-8
    return len(data) / len(gzip.compress(data, compresslevel=9, mtime=0)) if data else None


def _in_others(counts: Counts) -> Counts:
    """[k, G]: of the n-grams of each text, how many the one among the others that has most of them covers.

    That is min(own, most among the others), which the second largest count of all caps just the same.
    """
    second = np.partition(counts, -2, axis=0)[-2]
    return np.minimum(counts, second)


def _cosine(counts: Counts, words: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """[k, k] cosines of the rows of [k, G]; rows of zeros are compared by their words."""
    rows = counts.astype(np.float64)
    squares = (rows * rows).sum(axis=1)
    rows /= np.sqrt(np.maximum(squares, 1))[:, None]
    kernel = rows @ rows.T
    short = np.flatnonzero(squares == 0).tolist()
    for row in short:
        kernel[row, short] = [words[row] == words[other] for other in short]
    return kernel
