"""Scenes by seed: coloured shapes in the cells of a 3 x 3 grid, as ground truth and as a picture.

Ground truth and pixels only; words about a scene are in grammar.py, judging them in check.py.
The same seed gives the same scene and the same pixels on any machine: randomness uses only
`random.Random.random()`, whose sequence Python promises, and drawing uses integers without anti-aliasing.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

from PIL import Image, ImageDraw

SHAPES = ("circle", "square", "triangle", "star", "cross")
COLOURS = {
    "red": (214, 40, 40),
    "orange": (244, 140, 6),
    "yellow": (250, 216, 40),
    "green": (36, 150, 60),
    "blue": (38, 84, 214),
    "purple": (126, 44, 160),
    "pink": (244, 130, 190),
    "brown": (120, 72, 32),
}
SIZES = {"small": 13, "large": 22}  # half the width in pixels
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "middle", "right")
PLACES = tuple(f"{row} {column}" for row in ROWS for column in COLUMNS)  # place index = 3 * row + column
TEXTURES = ("plain", "striped", "dotted", "checked")
TINTS = {  # two tones of each background
    "white": ((250, 250, 248), (216, 218, 220)),
    "cream": ((248, 240, 220), (222, 206, 176)),
    "sky": ((222, 238, 248), (180, 206, 226)),
    "grey": ((168, 172, 176), (136, 140, 146)),
    "night": ((46, 50, 62), (76, 82, 98)),
}
CELL = 56  # pixels; four model pixels each, so that a cell is exactly one 14-pixel patch of a 42-pixel input
SIDE = 3 * CELL
JITTER = 3  # largest offset of a shape from the middle of its cell, in pixels

_STAR = (  # unit circle, points at radius 1 and 0.42
    *((0.0, -1.0), (0.247, -0.340), (0.951, -0.309), (0.399, 0.130), (0.588, 0.809)),
    *((0.0, 0.420), (-0.588, 0.809), (-0.399, 0.130), (-0.951, -0.309), (-0.247, -0.340)),
)
_TRIANGLE = ((0.0, -0.95), (1.0, 0.85), (-1.0, 0.85))

T = TypeVar("T")


@dataclass(frozen=True)
class Shape:
    """Keys of SHAPES, COLOURS, SIZES and PLACES, and the offset from the cell's middle in pixels."""

    shape: str
    colour: str
    size: str
    place: str
    dx: int = 0
    dy: int = 0

    @property
    def row(self) -> int:
        return PLACES.index(self.place) // 3

    @property
    def column(self) -> int:
        return PLACES.index(self.place) % 3


@dataclass(frozen=True)
class Scene:
    """The ground truth of one picture; `shapes` are in reading order of their places."""

    seed: int
    texture: str
    tint: str
    shapes: tuple[Shape, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Scene:
        data = json.loads(text)
        return cls(**{**data, "shapes": tuple(Shape(**shape) for shape in data["shapes"])})


@dataclass(frozen=True)
class Difficulty:
    """What may occur: from 1 to 9 shapes, how many kinds and colours, textures at all, offsets in pixels."""

    min_shapes: int = 1
    max_shapes: int = 4
    num_kinds: int = len(SHAPES)
    num_colours: int = len(COLOURS)
    textures: bool = True
    jitter: int = JITTER

    def __post_init__(self) -> None:
        limits = (
            ("min_shapes", 1, self.max_shapes),
            ("max_shapes", 1, len(PLACES)),
            ("num_kinds", 1, len(SHAPES)),
            ("num_colours", 1, len(COLOURS)),
            ("jitter", 0, CELL // 2 - max(SIZES.values())),
        )
        for name, low, high in limits:
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}, expected {low} to {high}")


def pick(rng: random.Random, options: Sequence[T]) -> T:
    """One of options, uniformly; unlike `rng.choice`, the same in every version of Python."""
    return options[int(rng.random() * len(options))]


def draw_some(rng: random.Random, options: Sequence[T], count: int) -> list[T]:
    """`count` different elements of options in random order."""
    order = sorted(range(len(options)), key=[rng.random() for _ in options].__getitem__)
    return [options[index] for index in order[:count]]


def scene(seed: int, difficulty: Difficulty = Difficulty()) -> Scene:
    """The scene of this seed: a pure function of its arguments."""
    rng = random.Random(seed)
    number = difficulty.min_shapes + int(rng.random() * (difficulty.max_shapes - difficulty.min_shapes + 1))
    span = 2 * difficulty.jitter + 1
    shapes = tuple(
        Shape(
            shape=pick(rng, SHAPES[: difficulty.num_kinds]),
            colour=pick(rng, tuple(COLOURS)[: difficulty.num_colours]),
            size=pick(rng, tuple(SIZES)),
            place=place,
            dx=int(rng.random() * span) - difficulty.jitter,
            dy=int(rng.random() * span) - difficulty.jitter,
        )
        for place in sorted(draw_some(rng, PLACES, number), key=PLACES.index)
    )
    texture = pick(rng, TEXTURES) if difficulty.textures else "plain"
    return Scene(seed=seed, texture=texture, tint=pick(rng, tuple(TINTS)), shapes=shapes)


def draw(scene: Scene) -> Image.Image:
    """The picture of a scene: RGB, 168 x 168 pixels."""
    image = Image.new("RGB", (SIDE, SIDE), TINTS[scene.tint][0])
    pen = ImageDraw.Draw(image)
    _draw_texture(pen, texture=scene.texture, tone=TINTS[scene.tint][1])
    for shape in scene.shapes:
        _draw_shape(pen, shape)
    return image


def png(image: Image.Image) -> bytes:
    """The picture as PNG bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _draw_texture(pen: ImageDraw.ImageDraw, *, texture: str, tone: tuple[int, int, int]) -> None:
    step = CELL // 4  # a cell shows two periods of every texture
    if texture == "striped":
        for y in range(step, SIDE, 2 * step):
            pen.rectangle((0, y, SIDE - 1, y + step - 1), fill=tone)
    elif texture == "checked":
        for y in range(0, SIDE, step):
            for x in range(step if (y // step) % 2 == 0 else 0, SIDE, 2 * step):
                pen.rectangle((x, y, x + step - 1, y + step - 1), fill=tone)
    elif texture == "dotted":
        for y in range(step, SIDE, 2 * step):
            for x in range(step, SIDE, 2 * step):
                pen.ellipse((x - 6, y - 6, x + 6, y + 6), fill=tone)


def _draw_shape(pen: ImageDraw.ImageDraw, shape: Shape) -> None:
    x = shape.column * CELL + CELL // 2 + shape.dx
    y = shape.row * CELL + CELL // 2 + shape.dy
    half, fill = SIZES[shape.size], COLOURS[shape.colour]
    if shape.shape == "circle":
        pen.ellipse((x - half, y - half, x + half, y + half), fill=fill)
    elif shape.shape == "square":
        side = round(0.88 * half)  # as much ink as a circle
        pen.rectangle((x - side, y - side, x + side, y + side), fill=fill)
    elif shape.shape == "cross":
        arm = round(0.34 * half)
        pen.rectangle((x - half, y - arm, x + half, y + arm), fill=fill)
        pen.rectangle((x - arm, y - half, x + arm, y + half), fill=fill)
    else:
        points = _STAR if shape.shape == "star" else _TRIANGLE
        pen.polygon([(x + round(half * px), y + round(half * py)) for px, py in points], fill=fill)


if __name__ == "__main__":
    from jobs.demo.table import main

    main()
