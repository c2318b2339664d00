"""When two texts count as the same, and what their tokens are. Shared by selectors and metrics.

Not a model's tokenizer: these tokens are for people and metrics. Standard library only.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence

FINAL_PUNCTUATION = ".,;:!?。、"  # after NFKC, which maps full-width forms and the ellipsis to these
# Ideographs (extensions A to H, the iteration mark) and kana: scripts that put no blanks between words.
CJK = r"\u3005\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
# Excluded, rather than letters included: combining marks (Hindi, Thai) and joiners stay in their words.
PUNCTUATION = (
    r"!-/:-@\[-`{-~\u00a1-\u00a9\u00ab-\u00b1\u00b4\u00b6-\u00b8\u00bb\u00bf\u00d7\u00f7\u060c\u061b\u061f\u06d4"
    r"\u0964\u0965\u2010-\u205e\u3001-\u3004\u3008-\u3020\u3030\u303d\ufe30-\ufe6f\uff01-\uff0f\uff1a-\uff20"
    r"\uff3b-\uff40\uff5b-\uff65"
)
LETTERS = rf"[^\s{PUNCTUATION}{CJK}]+"
TOKEN = re.compile(rf"[{CJK}]|{LETTERS}(?:['’\-]{LETTERS})*")


def normalise(text: str) -> str:
    """The text as it counts when asking whether two are the same: "A  red SQUARE." -> "a red square".

    NFKC and case folding (Unicode 3.13), blanks joined to one space, no punctuation at the end. Idempotent.
    """
    folded = unicodedata.normalize("NFKC", text)
    while (again := unicodedata.normalize("NFKC", folded.casefold())) != folded:
        folded = again  # a second round is needed only for rare combining marks
    return " ".join(folded.split()).rstrip(FINAL_PUNCTUATION + " ")


def tokens(text: str) -> list[str]:
    """Words in order, as written; every CJK character is a token of its own; punctuation is none.

    "a well-lit cat's 红猫" -> ["a", "well-lit", "cat's", "红", "猫"].
    """
    return TOKEN.findall(text)


def ngrams(sequence: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """The runs of n neighbours, in order; none when the sequence is shorter. Raises ValueError: n below 1."""
    if n < 1:
        raise ValueError(f"n is {n}, expected at least 1")
    return list(zip(*(sequence[start:] for start in range(n)), strict=False))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The hint with the known name that is most like this one; nothing where none is."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]}?" if near else ""
