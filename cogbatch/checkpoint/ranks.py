"""Model-parallel ranks of one tensor: cut it as SAT does, and put it together again. Tensors only, no files.

The rules are sat/mpu/layers.py's; which tensor is cut where is data, in names.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cogbatch.checkpoint.names import TensorName


def rank_shape(name: TensorName, num_ranks: int) -> tuple[int, ...]:
    """The shape of one rank's piece. Raises ValueError: a section does not divide by num_ranks."""
    if name.dim is None:
        return name.shape
    for length in name.sections:
        if length % num_ranks:
            raise ValueError(
                f"{name.sat!r}: {length} of dimension {name.dim} cannot be shared by {num_ranks} ranks"
            )
    shape = list(name.shape)
    shape[name.dim] //= num_ranks
    return tuple(shape)


def shares(tensor: Tensor, name: TensorName, num_ranks: int) -> list[list[Tensor]]:
    """For each rank the views of tensor that make up its piece, one after the other along name.dim.

    Raises ValueError: a section does not divide by num_ranks.
    """
    rank_shape(name, num_ranks)
    if name.dim is None or num_ranks == 1:
        return [[tensor]] * num_ranks
    chunks = [section.chunk(num_ranks, name.dim) for section in tensor.split(name.sections, name.dim)]
    return [list(views) for views in zip(*chunks, strict=True)]


def split(tensor: Tensor, name: TensorName, num_ranks: int) -> list[Tensor]:
    """Each rank's piece; views where one section is shared, else new tensors.

    Raises ValueError: a section does not divide by num_ranks.
    """
    return [
        views[0] if len(views) == 1 else torch.cat(views, name.dim or 0)
        for views in shares(tensor, name, num_ranks)
    ]


def merge(pieces: Sequence[Tensor], name: TensorName) -> Tensor:
    """The whole tensor of the pieces, in rank order; a replicated one is rank 0's. Inverse of split."""
    if name.dim is None or len(pieces) == 1:
        return pieces[0]
    lengths = [length // len(pieces) for length in name.sections]
    sections = zip(*(piece.split(lengths, name.dim) for piece in pieces), strict=True)
    return torch.cat([chunk for section in sections for chunk in section], name.dim)
