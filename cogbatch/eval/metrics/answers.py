"""Whether a short answer is the right one: exact match, and the accuracy of the VQA challenge."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from cogbatch.text import normalise

AGREEING = 3  # people who must give an answer for it to count in full

# From here to the contractions: what the challenge's evaluation code does, github.com/GT-Vision-Lab/VQA.
MARKS = ';/[]"{}()=+\\_-><@`,?!' + "、《》〈〉「」『』“”"  # the second row is ours: NFKC leaves these
THOUSANDS = re.compile(r"\d,\d")
FULL_STOP = re.compile(r"[.。](?!\d)")
ARTICLES = frozenset({"a", "an", "the"})
NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
} | {"none": "0"}
# As written in full. Those that are a word without their apostrophe (we'll, she'd, it's) are not among them.
CONTRACTIONS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd've
he'd he's how'd how'll how's i'd've i'm i've isn't it'd it'd've it'll ma'am might've mightn't mightn't've
must've mustn't needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've
somebody'd somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's something'd
something'd've something'll that's there'd there'd've there're there's they'd they'd've they'll they're
they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's where'd where's where've
who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'd've
y'all'll you'd you'd've you'll you're you've
"""
# One apostrophe left out, any one: "couldnt've" and "couldn'tve" are both couldn't've.
RESTORED = {
    word[: mark.start()] + word[mark.end() :]: word
    for word in CONTRACTIONS.split()
    for mark in re.finditer("'", word)
}


def exact_match(answer: str, references: Sequence[str]) -> float | None:
    """1 when the answer is one of the references after normalise, else 0. None without references."""
    return float(normalise(answer) in set(map(normalise, references))) if references else None


def vqa_accuracy(answer: str, humans: Sequence[str]) -> float | None:
    """min(people who gave that answer / 3, 1), averaged over leaving out each of the people: in [0, 1].

    Antol et al. 2015, arXiv:1505.00468; both sides through normalise_answer. Made for ten people: with fewer
    than four no answer reaches 1, with fewer than two there is nobody left to ask, and the value is None.

    Args:
        humans: the answer of each person, repeats included.
    """
    if len(humans) < 2:
        return None
    given = normalise_answer(answer)
    same = sum(normalise_answer(human) == given for human in humans)
    with_one_less, with_all = min((same - 1) / AGREEING, 1.0), min(same / AGREEING, 1.0)
    return (same * with_one_less + (len(humans) - same) * with_all) / len(humans)


def normalise_answer(text: str) -> str:
    """An answer as the VQA challenge compares it: "The two dogs." -> "2 dogs".

    A punctuation mark becomes a blank, or is dropped when it touches one anywhere; digits for zero to ten; no
    articles; apostrophes that contractions lack. Ours beyond that: full-width forms (NFKC), Chinese
    punctuation and curly apostrophes, and people's answers are treated in the same way as the model's.
    """
    text = " ".join(unicodedata.normalize("NFKC", text).replace("’", "'").split())
    spaced = text
    for mark in MARKS:
        touches_blank = f"{mark} " in text or f" {mark}" in text
        spaced = spaced.replace(mark, "" if touches_blank or THOUSANDS.search(text) else " ")
    words = FULL_STOP.sub("", spaced).lower().split()
    kept = [NUMBERS.get(word, word) for word in words if word not in ARTICLES]
    return " ".join(RESTORED.get(word, word) for word in kept)
