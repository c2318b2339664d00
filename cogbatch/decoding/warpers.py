"""Filters from log-probabilities to log-probabilities; -inf drops a token. Pure functions, rows independent.

Every filter keeps at least the most probable token of a row. R rows, V vocabulary.
"""

from __future__ import annotations

import torch

from cogbatch.types import GenerationParams


def warp(logprobs: torch.Tensor, tokens: torch.Tensor, params: GenerationParams) -> torch.Tensor:
    """The filters that params ask for, in the order users know from transformers.

    Repetition penalty, temperature, top-k, top-p, min-p. logprobs: [R, V]. tokens: [R, t] generated so far.
    """
    if params.repetition_penalty != 1.0:
        logprobs = repetition_penalty(logprobs, tokens, params.repetition_penalty)
    if params.temperature != 1.0:
        # From the best token down, so that it survives any temperature.
        logprobs = (logprobs - logprobs.max(-1, keepdim=True).values) / params.temperature
    if params.top_k > 0:
        logprobs = top_k(logprobs, params.top_k)
    if params.top_p < 1.0:
        logprobs = top_p(logprobs, params.top_p)
    if params.min_p > 0.0:
        logprobs = min_p(logprobs, params.min_p)
    return logprobs


def repetition_penalty(logprobs: torch.Tensor, tokens: torch.Tensor, penalty: float) -> torch.Tensor:
    """Raises the probability of tokens already generated to the power `penalty`.

    logprobs: [R, V] of the model. tokens: [R, t] generated so far, not the prompt. Keskar et al. 2019,
    arXiv:1909.05858, on log-probabilities: the form on logits depends on their arbitrary offset, and
    without care for the sign it favours the tokens it should punish.
    """
    if tokens.shape[1] == 0:
        return logprobs
    tokens = tokens.to(logprobs.device)
    return logprobs.scatter(1, tokens, logprobs.gather(1, tokens) * penalty)


def top_k(logprobs: torch.Tensor, k: int) -> torch.Tensor:
    """Keeps the k most probable tokens of each row, and ties with the k-th. k: >= 1."""
    if k >= logprobs.shape[1]:
        return logprobs
    kth = logprobs.topk(k, dim=-1).values[:, -1:]
    return logprobs.masked_fill(logprobs < kth, -torch.inf)


def top_p(logprobs: torch.Tensor, p: float) -> torch.Tensor:
    """Keeps the smallest set of most probable tokens whose mass reaches p.

    p: in (0, 1]. Holtzman et al. 2020, arXiv:1904.09751.
    """
    ordered, order = logprobs.softmax(-1).sort(dim=-1, descending=True, stable=True)
    drop = ordered.cumsum(-1) - ordered >= p  # by the mass of the tokens ahead
    drop[:, 0] = False  # whatever rounding makes of a tiny p
    dropped = torch.empty_like(drop).scatter_(1, order, drop)
    return logprobs.masked_fill(dropped, -torch.inf)


def min_p(logprobs: torch.Tensor, p: float) -> torch.Tensor:
    """Drops tokens less probable than p times the most probable one.

    p: in [0, 1]. Nguyen et al. 2024, arXiv:2407.01082.
    """
    floor = logprobs.max(-1, keepdim=True).values + torch.tensor(p).log()
    return logprobs.masked_fill(logprobs < floor, -torch.inf)
