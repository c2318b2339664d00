"""Where a text differs from another, word by word; Chinese by the character. Marks nothing up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from rapidfuzz.distance import LCSseq

from cogbatch.text import TOKEN, normalise

MAX_WORDS = 2000  # of a text that is compared; the rest counts as different


@dataclass(frozen=True)
class Piece:
    """A stretch of a text, and whether the other text has it too. Pieces joined are the text."""

    text: str
    differs: bool


def most_typical(texts: Sequence[str]) -> int:
    """The index of the text that has most in common with the others; the first of several.

    Raises ValueError: no texts.
    """
    words = [_words(text) for text in texts]
    common = [
        sum(LCSseq.normalized_similarity(own, other) for other in words if other is not own) for own in words
    ]
    return max(range(len(texts)), key=lambda index: (common[index], -index))


def differences(text: str, base: str) -> tuple[Piece, ...]:
    """The text in pieces that differ from the base and pieces that do not, by turns.

    Case, width and punctuation make no difference. What stands between two words that differ belongs to
    them; any other gap between words is common.
    """
    spans = [match.span() for match in TOKEN.finditer(text)]
    own, other = _words(text), _words(base)
    differs = [True] * len(spans)
    for block in LCSseq.opcodes(other, own):
        if block.tag == "equal":
            differs[block.dest_start : block.dest_end] = [False] * (block.dest_end - block.dest_start)
    return tuple(_joined(_pieces(text, spans, differs)))


def _words(text: str) -> list[str]:
    return [normalise(match[0]) for match, _ in zip(TOKEN.finditer(text), range(MAX_WORDS), strict=False)]


def _pieces(text: str, spans: Sequence[tuple[int, int]], differs: Sequence[bool]) -> Iterator[Piece]:
    end, before = 0, False
    for (start, stop), own in zip(spans, differs, strict=True):
        yield Piece(text[end:start], before and own)
        yield Piece(text[start:stop], own)
        end, before = stop, own
    yield Piece(text[end:], False)


def _joined(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Neighbours of one kind as one piece, without empty ones."""
    for differs, run in groupby((piece for piece in pieces if piece.text), key=lambda piece: piece.differs):
        yield Piece("".join(piece.text for piece in run), differs)
