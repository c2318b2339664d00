"""Best first, in float64: what strategies that compare rows with each other share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def best_first(scores: NDArray[np.float64]) -> NDArray[np.intp]:
    """Indices into flattened scores, best first, the earlier of two equals first; -inf is left out.

    NaN counts as the best, so that it reaches the engine, which reports it.
    """
    flat = np.where(np.isnan(scores), np.inf, scores).ravel()
    order = np.argsort(-flat, kind="stable")
    return order[flat[order] > -np.inf]


def top_tokens(scores: torch.Tensor, count: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(values, tokens) [R, min(count, V)] of the best tokens of each row, best first.

    Per row, because what is among the best of all rows is among the best of its own: far cheaper than
    ordering R * V scores.
    """
    values, tokens = scores.topk(min(count, scores.shape[1]), dim=-1)
    return values.double().cpu().numpy(), tokens.cpu().numpy()


def as_step(parent: NDArray[Any], token: NDArray[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """What step returns: both [R'] as int64 tensors."""
    return torch.from_numpy(parent.astype(np.int64)), torch.from_numpy(token.astype(np.int64))
