"""True texts about a scene: captions of many contents and wordings, and questions with short answers.

Speaks only; reading texts back is check.py. A caption always names a shape with its colour, which is enough
to be false of nearly every other scene.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

from jobs.demo.facts import RELATIONS, Background, Count, Fact, Facts, Mention, Relation, related
from jobs.demo.scenes import COLOURS, SHAPES, Scene, Shape, draw_some, pick
from jobs.demo.words import ENGLISH, Language, Names, polish


@dataclass(frozen=True)
class Caption:
    """A text and what it claims."""

    text: str
    facts: Facts


@dataclass(frozen=True)
class Question:
    """A question that has exactly one answer in its scene."""

    kind: str
    text: str
    answer: str


def caption(scene: Scene, rng: random.Random, *, language: Language = ENGLISH) -> Caption:
    """A random true caption.

    One level of detail for the whole caption and, mostly, all shapes: a person's captions of one picture
    differ, but not in every word, and neither should these (8 draws give about six different contents).
    """
    properties = _detail(rng)
    number = len(scene.shapes) if rng.random() < 0.65 else 1 + int(rng.random() * len(scene.shapes))
    mentions = [_mention(shape, properties) for shape in _some_in_order(scene.shapes, number, rng)]
    form = rng.random()
    if form < 0.08 and (relation := _relation(scene, rng)):
        return _finish([_say_relation(relation, rng, language)], (relation,), language)
    if form < 0.3 and "place" in properties:
        sentences = [_say_placed(mention, rng, language) for mention in mentions[:2]]
        return _finish(sentences, tuple(mentions[:2]), language)
    facts: Facts = tuple(mentions)
    text = _join([say_mention(mention, rng, language) for mention in mentions], language)
    if form < 0.48:
        text = pick(rng, language.counted).format(count=language.counts[len(scene.shapes)], list=text)
        facts = (Count(len(scene.shapes)), *facts)
    else:
        text = pick(rng, language.listings).format(list=text)
    sentences = [text]
    ending = rng.random()
    if ending < 0.18:
        facts = (*facts, Background(scene.texture))
        texture = pick(rng, language.textures[scene.texture])
        if ending < 0.09:
            sentences = [text + language.on_background.format(texture=texture)]
        else:
            sentences.append(pick(rng, language.background).format(texture=texture))
    return _finish(sentences, facts, language)


def say_mention(mention: Mention, rng: random.Random, language: Language) -> str:
    """The words of a mention, such as "a large red circle in the top left" (article not yet polished)."""
    names: dict[str, Names] = {
        "size": language.sizes,
        "colour": language.colours,
        "shape": language.shapes,
        "place": language.places,
    }
    parts = []
    for slot, pattern, _ in language.slots:
        key = getattr(mention, slot, None)
        if slot == "article":
            parts.append(pattern)
        elif key is not None:
            parts.append(pattern.format(pick(rng, names[slot][key])))
    return "".join(parts)


def questions(scene: Scene, *, language: Language = ENGLISH) -> Iterator[Question]:
    """Every question of the grammar that has one answer in this scene; "no" only where it is not too easy."""
    for kind, patterns in language.questions.items():
        for pattern in patterns:
            for values, answer in _QUESTIONS[kind](scene, language, pattern):
                text = pattern.format(**values)
                yield Question(kind=kind, text=polish(text), answer=answer)


def ask(
    scene: Scene, rng: random.Random, *, count: int = 1, language: Language = ENGLISH
) -> tuple[Question, ...]:
    """Random questions, possibly repeated: first kind, then answer, then words, so that no answer is rare."""
    by_kind = _by_kind(scene, language)
    kinds = tuple(by_kind)
    return tuple(_one_of(by_kind[pick(rng, kinds)], rng) for _ in range(count))


def ask_each(scene: Scene, rng: random.Random, *, language: Language = ENGLISH) -> tuple[Question, ...]:
    """One question of every kind that the scene allows, its answer and words chosen as in `ask`."""
    return tuple(_one_of(by_answer, rng) for by_answer in _by_kind(scene, language).values())


def _by_kind(scene: Scene, language: Language) -> dict[str, dict[str, list[Question]]]:
    """kind -> answer -> questions."""
    found: dict[str, dict[str, list[Question]]] = {}
    for question in questions(scene, language=language):
        found.setdefault(question.kind, {}).setdefault(question.answer, []).append(question)
    return found


def _one_of(by_answer: dict[str, list[Question]], rng: random.Random) -> Question:
    return pick(rng, by_answer[pick(rng, tuple(by_answer))])


def _some_in_order(shapes: tuple[Shape, ...], number: int, rng: random.Random) -> list[Shape]:
    """`number` of the shapes in reading order or its reverse, as people go through a picture."""
    chosen = draw_some(rng, shapes, number)
    return sorted(chosen, key=shapes.index, reverse=rng.random() < 0.5)


def _detail(rng: random.Random) -> tuple[str, ...]:
    chance = rng.random()
    if chance < 0.4:
        return ("colour",)
    if chance < 0.75:
        return ("colour", "place")
    return ("colour", "size") if chance < 0.9 else ("colour", "size", "place")


def _mention(shape: Shape, properties: tuple[str, ...]) -> Mention:
    return Mention(shape=shape.shape, **{name: getattr(shape, name) for name in properties})


def _relation(scene: Scene, rng: random.Random) -> Relation | None:
    if len(scene.shapes) < 2:
        return None
    first, second = draw_some(rng, scene.shapes, 2)
    true = [relation for relation in RELATIONS if related(first, relation, second)]
    return Relation(_mention(first, ("colour",)), pick(rng, true), _mention(second, ("colour",)))


def _say_relation(relation: Relation, rng: random.Random, language: Language) -> str:
    return pick(rng, language.related).format(
        first=say_mention(relation.first, rng, language),
        relation=language.relations[relation.relation][0],
        second=say_mention(relation.second, rng, language),
    )


def _say_placed(mention: Mention, rng: random.Random, language: Language) -> str:
    if mention.place is None:
        raise ValueError("a placed sentence needs a mention with a place")
    bare = Mention(shape=mention.shape, colour=mention.colour, size=mention.size)
    return pick(rng, language.placed).format(
        place=pick(rng, language.places[mention.place]), mention=say_mention(bare, rng, language)
    )


def _join(items: list[str], language: Language) -> str:
    if len(items) == 1:
        return items[0]
    return language.joiners[0].join(items[:-1]) + language.joiners[1] + items[-1]


def _finish(sentences: list[str], facts: tuple[Fact, ...], language: Language) -> Caption:
    gap = " " if language.stop == "." else ""
    return Caption(polish(gap.join(sentence + language.stop for sentence in sentences)), facts)


Answers = Iterator[tuple[dict[str, str], str]]  # the values of a pattern, and the answer


def _only(scene: Scene, **wanted: str) -> Shape | None:
    """The one shape with these properties, or None."""
    found = [s for s in scene.shapes if all(getattr(s, name) == value for name, value in wanted.items())]
    return found[0] if len(found) == 1 else None


def _count(scene: Scene, language: Language, _: str) -> Answers:
    yield {}, language.numbers[len(scene.shapes)]


def _count_of(scene: Scene, language: Language, _: str) -> Answers:
    for shape in SHAPES:
        number = sum(one.shape == shape for one in scene.shapes)
        yield {"shapes": language.plurals[shape][0]}, language.numbers[number]


def _colour_of(scene: Scene, language: Language, _: str) -> Answers:
    for one in scene.shapes:
        if _only(scene, shape=one.shape):
            yield {"shape": language.shapes[one.shape][0]}, language.colours[one.colour][0]


def _colour_at(scene: Scene, language: Language, _: str) -> Answers:
    for one in scene.shapes:
        yield {"place": language.places[one.place][0]}, language.colours[one.colour][0]


def _shape_of(scene: Scene, language: Language, _: str) -> Answers:
    for one in scene.shapes:
        if _only(scene, colour=one.colour):
            yield {"colour": language.colours[one.colour][0]}, language.shapes[one.shape][0]


def _shape_at(scene: Scene, language: Language, _: str) -> Answers:
    for one in scene.shapes:
        yield {"place": language.places[one.place][0]}, language.shapes[one.shape][0]


def _named(scene: Scene, language: Language, pattern: str) -> Iterator[tuple[dict[str, str], Shape]]:
    """Shapes that the pattern's words single out: by colour and shape, or by shape alone."""
    for one in scene.shapes:
        values = {"shape": language.shapes[one.shape][0], "colour": language.colours[one.colour][0]}
        wanted = {"shape": one.shape} | ({"colour": one.colour} if "{colour}" in pattern else {})
        if _only(scene, **wanted):
            yield values, one


def _place(scene: Scene, language: Language, pattern: str) -> Answers:
    for values, one in _named(scene, language, pattern):
        yield values, language.places[one.place][0]


def _size(scene: Scene, language: Language, pattern: str) -> Answers:
    for values, one in _named(scene, language, pattern):
        yield values, language.sizes[one.size][0]


def _background(scene: Scene, language: Language, _: str) -> Answers:
    yield {}, language.textures[scene.texture][0]


def _existence(scene: Scene, language: Language, _: str) -> Answers:
    present = {(one.colour, one.shape) for one in scene.shapes}
    for colour, shape in itertools.product(COLOURS, SHAPES):
        near = any(colour == c or shape == s for c, s in present)
        if near:
            values = {"colour": language.colours[colour][0], "shape": language.shapes[shape][0]}
            yield values, language.yes[(colour, shape) not in present]


def _related(scene: Scene, language: Language, _: str) -> Answers:
    for first, second in itertools.permutations(scene.shapes, 2):
        if not (_only(scene, shape=first.shape) and _only(scene, shape=second.shape)):
            continue
        for relation in RELATIONS:
            yield (
                {
                    "shape": language.shapes[first.shape][0],
                    "relation": language.relations[relation][-1],
                    "other": language.shapes[second.shape][0],
                },
                language.true[not related(first, relation, second)],
            )


_QUESTIONS = {
    "count": _count,
    "count of a shape": _count_of,
    "colour of a shape": _colour_of,
    "colour at a place": _colour_at,
    "shape of a colour": _shape_of,
    "shape at a place": _shape_at,
    "place": _place,
    "size": _size,
    "background": _background,
    "existence": _existence,
    "relation": _related,
}
