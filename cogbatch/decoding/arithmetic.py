"""Arithmetic sampling: k draws, each as from the model, spread evenly over its distribution.

Vilnis et al. 2023, arXiv:2210.15458: the model's distribution over sequences is laid out in [0, 1), and lane
j decodes the point (u + j / k) mod 1 with one u for all lanes. Every prefix then appears floor or ceil of k
times its probability. Repeats are delivered: means over the draws stay unbiased, with less variance than
those of independent draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cogbatch.decoding.ranking import as_step
from cogbatch.decoding.rng import ItemRandom, Purpose
from cogbatch.decoding.strategy import Choice, State
from cogbatch.decoding.warpers import WARPER_FIELDS, require_choice, warp
from cogbatch.types import GenerationParams

_BLOCK = 512  # tokens
_BELOW_ONE = float(np.nextafter(1.0, 0.0))


class Arithmetic:
    """A lane whose prefix has less than 1 / k of the mass is alone there: it goes on with fresh numbers.

    That is the same distribution, and keeps a point's 53 bits from running out.
    """

    uses: frozenset[str] = WARPER_FIELDS
    distinct = False
    nested = False  # the points depend on k

    def check(self, params: GenerationParams) -> None:
        require_choice(params)

    def num_rows(self, params: GenerationParams) -> int:
        return params.num_candidates

    def step(
        self, logprobs: torch.Tensor, state: State, t: int, rng: ItemRandom
    ) -> tuple[torch.Tensor, torch.Tensor]:
        k = state.params.num_candidates
        if t == 0:
            offset = rng.uniform(purpose=Purpose.OFFSET, step=0, stream=0)
            lanes = state.opened(k)
            state.memory = {lane: Point((offset + lane / k) % 1.0) for lane in lanes}
            parent = np.zeros(len(lanes), dtype=np.int64)
        else:
            lanes = state.lanes
            parent = np.arange(len(lanes))
        points: list[Point] = [state.memory[lane] for lane in lanes]
        for lane, point in zip(lanes, points, strict=True):
            if point.mass < 1 / k:
                point.place = rng.uniform(purpose=Purpose.CODE, step=t, stream=lane)
        mass = warp(logprobs, state.tokens, state.params).softmax(-1)  # [R, V]
        token, place, probability = decode_points(mass, parent, np.array([point.place for point in points]))
        for index, point in enumerate(points):
            point.place = place[index]
            point.mass *= probability[index]
        return as_step(parent, token)

    def finish(self, state: State) -> list[Choice]:
        return [Choice(hypothesis) for hypothesis in sorted(state.finished, key=lambda h: h.lane)]


@dataclass
class Point:
    """Where a lane stands within its prefix's part of the distribution, in [0, 1), and how large that is."""

    place: float
    mass: float = 1.0


def decode_points(
    mass: torch.Tensor, parent: NDArray[np.int64], place: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """(token, place within the token's part, the part's share) of each point, all [R'].

    Tokens lie in the order of their ids, cumulated in float64; in two levels, blocks first, because most
    blocks hold no point. mass: [R, V] float32, sums to about 1. parent: [R'] row of mass of each point.
    """
    padded = torch.nn.functional.pad(mass, (0, -mass.shape[1] % _BLOCK))
    blocks = padded.view(mass.shape[0], -1, _BLOCK)  # [R, V / _BLOCK, _BLOCK]
    sums = blocks.sum(-1, dtype=torch.float64).cpu().numpy()[parent]  # [R', V / _BLOCK]
    total = sums.sum(-1)
    block, rest, _ = _find(sums, place * total)
    inside = blocks[torch.from_numpy(parent), torch.from_numpy(block)].double().cpu().numpy()  # [R', _BLOCK]
    token, rest, share = _find(inside, rest)
    return block * _BLOCK + token, np.clip(rest / share, 0.0, _BELOW_ONE), share / total


def _find(
    masses: NDArray[np.float64], target: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """(index of the part that holds target, how far into it, its mass) per row; never a part without mass."""
    ends = masses.cumsum(-1)  # [R, n]
    target = np.clip(target, 0.0, np.nextafter(ends[:, -1], 0.0))  # rounding may carry it past an end
    index = np.minimum((ends <= target[:, None]).sum(-1), masses.shape[1] - 1)
    rows = np.arange(len(masses))
    return index, target - (ends[rows, index] - masses[rows, index]), masses[rows, index]
