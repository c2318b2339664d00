"""Judges a candidate against its scene: true, false or unparsable; an answer right (true) or wrong (false).

`jobs.demo.check:check` is the checker of this demo for sweeps. It reads texts with the patterns of words.py;
no model, no picture, no fuzzy matching: what does not match a pattern is unparsable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

from jobs.demo.facts import Background, Count, Fact, Facts, Mention, Relation, content, hold, num_facts
from jobs.demo.grammar import questions
from jobs.demo.scenes import Scene, scene
from jobs.demo.words import LANGUAGES, Language, Names, plain

Label = Literal["true", "false", "unparsable"]
OTHER_SEEDS = range(900_000, 900_200)  # held-out scenes that a caption must tell from its own
MIN_FALSE_ELSEWHERE = 0.8


@dataclass(frozen=True)
class Verdict:
    """What a candidate is worth.

    reason: empty when true; "vague" when its facts hold in more than a fifth of other scenes. num_facts:
    single facts stated. content: equal for texts that say the same; () when unparsable.
    """

    label: Label
    reason: str = ""
    num_facts: int = 0
    content: tuple[str, ...] = ()

    @property
    def correct(self) -> bool:
        """Whether it is true."""
        return self.label == "true"

    @property
    def score(self) -> float:
        """1 when it is true, else 0."""
        return float(self.correct)


def check(candidate_text: str, row: Mapping[str, object]) -> Verdict:
    """The verdict on a candidate of a row.

    Args:
        row: `scene` (the ground truth as JSON) and `prompt`; a prompt that is a question about the scene
            makes the candidate an answer, any other prompt a caption.

    Raises:
        ValueError: row has no scene.
    """
    if not isinstance(row.get("scene"), str):
        raise ValueError(f"row has no 'scene' with the ground truth as JSON; it has {sorted(row)}")
    truth = Scene.from_json(str(row["scene"]))
    answer = answer_of(str(row.get("prompt") or ""), truth)
    return check_caption(candidate_text, truth) if answer is None else check_answer(candidate_text, answer)


def check_caption(text: str, truth: Scene) -> Verdict:
    """True when every fact holds and the facts together are false of at least 80 % of other scenes."""
    facts = read(text)
    if facts is None:
        return Verdict("unparsable", "not a caption of the grammar")
    said = (num_facts(facts), content(facts))
    if not hold(facts, truth):
        return Verdict("false", "does not hold", *said)
    if _false_elsewhere(facts) < MIN_FALSE_ELSEWHERE:
        return Verdict("false", "vague", *said)
    return Verdict("true", "", *said)


def check_answer(text: str, answer: str) -> Verdict:
    """True when text is the answer, whatever its case, blanks and final stop."""
    said = plain(text).rstrip(".。 ")
    if said == plain(answer):
        return Verdict("true", "", 1, (said,))
    return Verdict("false", f"expected {answer!r}", 1, (said,))


def answer_of(question: str, truth: Scene) -> str | None:
    """The right answer, or None when this is not a question of the grammar about this scene."""
    return _answers(truth).get(plain(question))


@lru_cache(maxsize=1024)
def _answers(truth: Scene) -> dict[str, str]:
    """Of every question of the grammar; the candidates of a scene are judged one after the other."""
    asked = (one for language in LANGUAGES.values() for one in questions(truth, language=language))
    answers: dict[str, str] = {}
    for one in asked:
        answers.setdefault(plain(one.text), one.answer)
    return answers


@lru_cache(maxsize=65536)
def read(text: str) -> Facts | None:
    """The facts that a caption states, in order; None when any part of it is not of the grammar."""
    for language in LANGUAGES.values():
        facts = _read(plain(text), language)
        if facts is not None:
            return facts
    return None


@cache
def _others() -> tuple[Scene, ...]:
    return tuple(scene(seed) for seed in OTHER_SEEDS)


@lru_cache(maxsize=65536)
def _false_elsewhere(facts: Facts) -> float:
    return sum(not hold(facts, other) for other in _others()) / len(OTHER_SEEDS)


def _read(text: str, language: Language) -> Facts | None:
    sentences = [part.strip() for part in text.split(language.stop)]
    if sentences[-1]:  # no final stop: cut short
        return None
    facts: list[Fact] = []
    for sentence in sentences[:-1]:
        said = _read_sentence(sentence, language)
        if said is None:
            return None
        facts += said
    return tuple(facts) if facts else None


def _read_sentence(sentence: str, language: Language) -> list[Fact] | None:
    for pattern in _sentence_patterns(language.name):
        match = pattern.fullmatch(sentence)
        facts = match and _facts_of(match.groupdict(), language)
        if facts:
            return facts
    return None


def _facts_of(said: dict[str, str | None], language: Language) -> list[Fact] | None:
    facts: list[Fact | None] = []
    if count := said.get("count"):
        facts.append(Count(language.counts.index(count)))
    if mentions := said.get("list"):
        facts += _read_list(mentions, language)
    if mention := said.get("mention"):
        bare = _read_mention(mention, language)
        place = _key(language.places, said.get("place"))
        is_bare = bare is not None and bare.place is None
        facts.append(Mention(bare.shape, bare.colour, bare.size, place) if bare and is_bare else None)
    if (first := said.get("first")) and (second := said.get("second")):
        one, other = _read_mention(first, language), _read_mention(second, language)
        relation = _key(language.relations, said.get("relation"))
        facts.append(Relation(one, relation, other) if one and other and relation else None)
    if texture := _key(language.textures, said.get("texture")):
        facts.append(Background(texture))
    whole = [fact for fact in facts if fact is not None]
    return whole if len(whole) == len(facts) else None


def _read_list(text: str, language: Language) -> list[Mention | None]:
    separators = "|".join(re.escape(joiner) for joiner in language.joiners)
    return [_read_mention(item, language) for item in re.split(separators, text)]


def _read_mention(text: str, language: Language) -> Mention | None:
    match = _mention_pattern(language.name).fullmatch(text)
    if match is None:
        return None
    shape = _key(language.shapes, match["shape"])
    return shape and Mention(  # type: ignore[return-value] # shape is a word of the pattern
        shape=shape,
        colour=_key(language.colours, match["colour"]),
        size=_key(language.sizes, match["size"]),
        place=_key(language.places, match["place"]),
    )


def _key(names: Names, word: str | None) -> str | None:
    return next((key for key, words in names.items() if word in words), None)


def _words(names: Names) -> str:
    words = sorted((word for words in names.values() for word in words), key=len, reverse=True)
    return "|".join(map(re.escape, words))


@cache
def _mention_pattern(name: str) -> re.Pattern[str]:
    language = LANGUAGES[name]
    names = {
        "size": language.sizes,
        "colour": language.colours,
        "shape": language.shapes,
        "place": language.places,
    }
    parts = []
    for slot, pattern, required in language.slots:
        if slot == "article":
            part = re.escape(pattern)
        else:
            part = re.escape(pattern).replace(r"\{\}", f"(?P<{slot}>{_words(names[slot])})")
        parts.append(part if required else f"(?:{part})?")
    return re.compile("".join(parts))


@cache
def _sentence_patterns(name: str) -> tuple[re.Pattern[str], ...]:
    language = LANGUAGES[name]
    groups = {
        "list": ".+?",
        "mention": ".+",
        "first": ".+?",
        "second": ".+?",
        "count": "|".join(map(re.escape, language.counts[1:])),
        "place": _words(language.places),
        "relation": _words(language.relations),
        "texture": _words(language.textures),
    }

    def compiled(pattern: str) -> re.Pattern[str]:
        expression = re.escape(plain(pattern) if not pattern.startswith(" ") else pattern)
        for group, words in groups.items():
            expression = expression.replace(re.escape("{" + group + "}"), f"(?P<{group}>{words})")
        return re.compile(expression)

    with_list = [
        pattern + ending
        for ending in (language.on_background, "")
        for pattern in (*language.counted, *language.listings)
    ]
    others = (*language.counting, *language.background, *language.placed, *language.related)
    return tuple(map(compiled, (*others, *with_list)))
