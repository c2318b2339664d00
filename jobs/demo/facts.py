"""What a text claims about a scene, and whether it holds. No words here: all values are keys of scenes.py."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from jobs.demo.scenes import Scene, Shape

RELATIONS = ("above", "below", "left", "right")


@dataclass(frozen=True)
class Mention:
    """There is such a shape; None leaves a property open."""

    shape: str
    colour: str | None = None
    size: str | None = None
    place: str | None = None

    def fits(self, shape: Shape) -> bool:
        return (
            self.shape == shape.shape
            and self.colour in (None, shape.colour)
            and self.size in (None, shape.size)
            and self.place in (None, shape.place)
        )

    @property
    def num_facts(self) -> int:
        """Colour, size and place count one each; a bare noun counts one."""
        return max(1, sum(value is not None for value in (self.colour, self.size, self.place)))


@dataclass(frozen=True)
class Count:
    """The scene has this many shapes."""

    number: int
    num_facts = 1


@dataclass(frozen=True)
class Background:
    """The background has this texture."""

    texture: str
    num_facts = 1


@dataclass(frozen=True)
class Relation:
    """Some shape that fits `first` stands in this relation to another that fits `second`."""

    first: Mention
    relation: str
    second: Mention

    @property
    def num_facts(self) -> int:
        return self.first.num_facts + self.second.num_facts + 1


Fact = Mention | Count | Background | Relation
Facts = tuple[Fact, ...]


def related(first: Shape, relation: str, second: Shape) -> bool:
    """Whether first is above, below, left or right of second: whether rows or columns differ that way."""
    return {
        "above": first.row < second.row,
        "below": first.row > second.row,
        "left": first.column < second.column,
        "right": first.column > second.column,
    }[relation]


def hold(facts: Iterable[Fact], scene: Scene) -> bool:
    """Whether all facts hold together; several mentions must be about different shapes."""
    facts = tuple(facts)
    mentions = [fact for fact in facts if isinstance(fact, Mention)]
    return _match(mentions, scene) and all(
        _holds(fact, scene) for fact in facts if not isinstance(fact, Mention)
    )


def num_facts(facts: Iterable[Fact]) -> int:
    """How many single facts a text states."""
    return sum(fact.num_facts for fact in facts)


def content(facts: Iterable[Fact]) -> tuple[str, ...]:
    """What a text says whatever its words and order: equal for two texts with the same content."""
    return tuple(sorted(map(repr, facts)))


def _holds(fact: Fact, scene: Scene) -> bool:
    match fact:
        case Count(number):
            return number == len(scene.shapes)
        case Background(texture):
            return texture == scene.texture
        case Relation(first, relation, second):
            return any(
                first.fits(a) and second.fits(b) and related(a, relation, b)
                for a, b in itertools.permutations(scene.shapes, 2)
            )
        case Mention():
            return _match([fact], scene)


def _match(mentions: list[Mention], scene: Scene) -> bool:
    return any(
        all(mention.fits(shape) for mention, shape in zip(mentions, shapes, strict=True))
        for shapes in itertools.permutations(scene.shapes, len(mentions))
    )
