"""CIDEr-D: agreement of a caption with the references of its image, in n-grams weighted by how rare they are.

Vedantam et al. 2015, arXiv:1411.5726, with the choices of the authors' code: document frequencies over the
references at hand, term frequencies as counts, n = 1 to 4 weighted alike, and the mean over references.
Words are ours (words_of), not those of the PTB tokenizer and without stemming: compare within cogbatch.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cogbatch.eval.metrics.counts import MAX_ORDER, words_of
from cogbatch.text import ngrams

SIGMA = 6.0  # words; of the penalty for a length other than the reference's
SCALE = 10.0

Ngram = tuple[str, ...]


@dataclass(frozen=True)
class CiderD:
    """Scores against the references of a corpus.

    Args:
        num_documents: items of the corpus. document_frequencies: in the references of how many items each
            n-gram comes.
    """

    num_documents: int
    document_frequencies: Mapping[Ngram, int]

    @classmethod
    def of(cls, corpus: Iterable[Sequence[str]]) -> CiderD:
        """From the references of every item, all of them: weights depend on the corpus.

        Items without references do not count.
        """
        num_documents = 0
        frequencies: Counter[Ngram] = Counter()
        for references in corpus:
            num_documents += bool(references)
            frequencies.update({ngram for text in references for ngram in _ngrams(words_of(text))})
        return cls(num_documents, frequencies)

    def scores(self, candidates: Sequence[str], references: Sequence[str]) -> list[float | None]:
        """CIDEr-D of each candidate of one item, in [0, 10]; 10 is the only reference itself.

        A text of fewer than 4 words reaches less, and n-grams that every item has weigh nothing. None without
        references, and where the corpus has fewer than two items, so that nothing is rare.
        """
        if not references or self.num_documents < 2:
            return [None] * len(candidates)
        known = [self._vector(text) for text in references]
        return [_score(self._vector(text), known) for text in candidates]

    def _vector(self, text: str) -> _Vector:
        """Counts times inverse document frequency; an n-gram that no reference has counts as in one item."""
        words = words_of(text)
        weights: list[dict[Ngram, float]] = [{} for _ in range(MAX_ORDER)]
        for ngram, count in Counter(_ngrams(words)).items():
            rarity = math.log(self.num_documents / max(1, self.document_frequencies.get(ngram, 0)))
            weights[len(ngram) - 1][ngram] = count * rarity
        norms = [math.sqrt(math.fsum(weight**2 for weight in order.values())) for order in weights]
        return _Vector(len(words), weights, norms)


@dataclass(frozen=True)
class _Vector:
    """num_words; for n = 1 to 4: weights of its n-grams, and their Euclidean norm."""

    num_words: int
    weights: list[dict[Ngram, float]]
    norms: list[float]


def _score(candidate: _Vector, references: Sequence[_Vector]) -> float:
    return SCALE * math.fsum(_similarity(candidate, known) for known in references) / len(references)


def _similarity(candidate: _Vector, reference: _Vector) -> float:
    """Cosine, mean over n, of weights clipped to the reference's: repeating a rare word gains nothing."""
    cosines = []
    for n in range(MAX_ORDER):
        own, known = candidate.weights[n], reference.weights[n]
        common = math.fsum(min(own[ngram], known[ngram]) * known[ngram] for ngram in own.keys() & known)
        norm = candidate.norms[n] * reference.norms[n]
        cosines.append(common / norm if norm else 0.0)
    difference = candidate.num_words - reference.num_words
    return math.fsum(cosines) / MAX_ORDER * math.exp(-(difference**2) / (2 * SIGMA**2))


def _ngrams(words: Sequence[str]) -> list[Ngram]:
    return [ngram for n in range(1, MAX_ORDER + 1) for ngram in ngrams(words, n)]
