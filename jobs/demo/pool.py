"""Training data: many scenes drawn once, with encoded texts, packed into rows of equal length.

Arrays only; the model and the loop are train.py. Pictures take the way of a job: full size, then PIL's
bicubic resize to the model's input.
"""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import sentencepiece
from numpy.typing import NDArray
from PIL import Image

from jobs.demo.grammar import ask, ask_each, caption
from jobs.demo.scenes import COLOURS, PLACES, SHAPES, SIZES, TEXTURES, draw, pick, scene
from jobs.demo.vocabulary import DIRECTORY
from jobs.demo.words import CHINESE, ENGLISH, Language

FIRST_SEED = 2_000_000  # seeds below are held out
INPUT_SIZE = 42  # pixels; a cell is one 14-pixel patch
EOS = 2
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Pool:
    """N scenes. Each has T texts, a text being prompt ids and answer ids behind one another.

    images: [N, 42, 42, 3] uint8. cells: [N, 9, 5] uint8, the labels of each cell: shape, colour and size
    (0: empty), place, texture. ids: all texts in a row, uint16. starts: [N * T + 1] int64 into ids.
    prompts: [N * T] uint8, the length of each prompt. weights: [N * T] float32, of each text in the loss.
    """

    images: NDArray[np.uint8]
    cells: NDArray[np.uint8]
    ids: NDArray[np.uint16]
    starts: Ints
    prompts: NDArray[np.uint8]
    weights: NDArray[np.float32]

    @property
    def num_texts(self) -> int:
        """T, texts per scene."""
        return len(self.prompts) // len(self.images)

    @cached_property
    def num_shapes(self) -> NDArray[np.int64]:
        """[N], shapes in each scene."""
        counts: NDArray[np.int64] = (self.cells[:, :, 0] > 0).sum(axis=1)
        return counts

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> Pool:
        with np.load(path) as arrays:
            return cls(**arrays)


@dataclass(frozen=True)
class Rows:
    """B scenes, each with as many of its texts as fit into W tokens.

    segments: [B, W], 1, 2, ... for the texts, -1 for padding. positions: [B, W] rotary positions, 4, 5, ...
    in each text. targets: [B, W], the next token where it belongs to an answer, else -1. weights: [B, W],
    summing to each text's weight over its answer, so that one-word answers are not drowned by captions.
    """

    images: NDArray[np.uint8]
    cells: NDArray[np.uint8]
    ids: Ints
    segments: Ints
    positions: Ints
    targets: Ints
    weights: NDArray[np.float32]


def pack(pool: Pool, chosen: Sequence[int] | Ints, *, width: int, rng: np.random.Generator) -> Rows:
    """The chosen scenes, each with texts of its own in random order until `width` tokens are full."""
    shape = (len(chosen), width)
    ids, positions = np.zeros(shape, np.int64), np.full(shape, 4)
    segments, targets = np.full(shape, -1), np.full(shape, -1)
    weights = np.zeros(shape, np.float32)
    for row, index in enumerate(chosen):
        filled, segment = 0, 0
        for text in index * pool.num_texts + rng.permutation(pool.num_texts):
            start, end, prompt = pool.starts[text], pool.starts[text + 1], int(pool.prompts[text])
            length = end - start - 1  # the last token is only a target
            if filled + length > width:
                continue
            segment += 1
            here = slice(filled, filled + length)
            answer = slice(filled + prompt - 1, filled + length)
            ids[row, here] = pool.ids[start : end - 1]
            segments[row, here] = segment
            positions[row, here] = np.arange(4, 4 + length)
            targets[row, answer] = pool.ids[start + prompt : end]
            weights[row, answer] = pool.weights[text] / (length - prompt + 1)
            filled += length
    images, cells = pool.images[chosen], pool.cells[chosen]
    return Rows(images, cells, ids, segments, positions, targets, weights)


def build(num_scenes: int, *, first_seed: int = FIRST_SEED, processes: int = 2) -> Pool:
    """Draws and describes scenes, 3 ms each on one core; 0 processes: in this one. Always the same result."""
    step = 1000
    ranges = [
        range(seed, min(seed + step, first_seed + num_scenes))
        for seed in range(first_seed, first_seed + num_scenes, step)
    ]
    if processes == 0:
        pieces = [_piece(seeds) for seeds in ranges]
    else:
        with multiprocessing.get_context("spawn").Pool(processes) as workers:
            pieces = workers.map(_piece, ranges, chunksize=1)
    images, cells, ids, lengths, prompts, weights = (
        np.concatenate(arrays) for arrays in zip(*pieces, strict=True)
    )
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return Pool(images, cells, ids, starts, prompts, weights)


def small(image: Image.Image) -> NDArray[np.uint8]:
    """[42, 42, 3] uint8, as the model's image processor resizes."""
    return np.asarray(image.resize((INPUT_SIZE, INPUT_SIZE), Image.Resampling.BICUBIC))


_Piece = tuple[NDArray[np.generic], ...]


def _piece(seeds: range) -> _Piece:
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(DIRECTORY / "tokenizer.model"))
    images, cells, ids, lengths, prompts, weights = [], [], [], [], [], []
    for seed in seeds:
        truth = scene(seed)
        images.append(small(draw(truth)))
        labels = np.zeros((len(PLACES), 5), np.uint8)
        for shape in truth.shapes:
            labels[PLACES.index(shape.place), :3] = (
                1 + SHAPES.index(shape.shape),
                1 + list(COLOURS).index(shape.colour),
                1 + list(SIZES).index(shape.size),
            )
        labels[:, 3] = range(len(PLACES))
        labels[:, 4] = TEXTURES.index(truth.texture)
        cells.append(labels)
        for prompt, answer, weight in texts(seed):
            before, after = tokenizer.encode(prompt), [*tokenizer.encode(answer), EOS]
            ids += [*before, *after]
            lengths.append(len(before) + len(after))
            prompts.append(len(before))
            weights.append(weight)
    return (
        np.stack(images),
        np.stack(cells),
        np.array(ids, np.uint16),
        np.array(lengths, np.int64),
        np.array(prompts, np.uint8),
        np.array(weights, np.float32),
    )


def texts(seed: int) -> list[tuple[str, str, float]]:
    """(prompt, answer, weight) of a scene: 3 captions and 6 answers in English, 1 and 2 in Chinese.

    The first English question is on a relation where there can be one: the kind that is learned last.
    """
    truth, rng = scene(seed), random.Random(seed)
    found: list[tuple[str, str, float]] = []
    plan: tuple[tuple[Language, int, int], ...] = ((ENGLISH, 3, 6), (CHINESE, 1, 2))
    for language, num_captions, num_questions in plan:
        for _ in range(num_captions):
            prompt = language.prompts[0] if rng.random() < 0.8 else pick(rng, language.prompts)
            found.append((prompt, caption(truth, rng, language=language).text, 2.0))
        asked = ask(truth, rng, count=num_questions, language=language)
        if language is ENGLISH:
            relation = [one for one in ask_each(truth, rng) if one.kind == "relation"]
            asked = (*relation, *asked)[:num_questions]
        found += [(question.text, question.answer, 1.0) for question in asked]
    return found
