"""Filters from log-probabilities to log-probabilities; -inf drops a token. Pure functions, rows independent.

Every filter keeps at least one token of a row, and all but no_repeat_ngram and typical the most probable.
R rows, V vocabulary.
"""

from __future__ import annotations

import math

import torch

from cogbatch.decoding.strategy import unless_empty
from cogbatch.types import GenerationParams

WARPER_FIELDS = frozenset(
    {
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "typical_p",
        "eta_cutoff",
        "repetition_penalty",
        "no_repeat_ngram_size",
    }
)
_ONE_TOKEN_TOP_P = 1e-6  # the best of up to a million tokens has at least this mass


def warp(logprobs: torch.Tensor, tokens: torch.Tensor, params: GenerationParams) -> torch.Tensor:
    """The filters that params ask for, in the order users know from transformers.

    Repetition penalty, no-repeat-ngram, temperature, top-k, top-p, min-p, typical, eta. Each sees what the
    ones before it left. logprobs: [R, V]. tokens: [R, t] generated so far. Returns [R, V], not normalised.
    """
    logprobs = discourage_repetition(logprobs, tokens, params)
    if params.temperature != 1.0:
        # From the best token down, so that it survives any temperature.
        logprobs = (logprobs - logprobs.max(-1, keepdim=True).values) / params.temperature
    if params.top_k > 0:
        logprobs = top_k(logprobs, params.top_k)
    if params.top_p < 1.0:
        logprobs = top_p(logprobs, params.top_p)
    if params.min_p > 0.0:
        logprobs = min_p(logprobs, params.min_p)
    if params.typical_p < 1.0:
        logprobs = typical(logprobs, params.typical_p)
    if params.eta_cutoff > 0.0:
        logprobs = eta(logprobs, params.eta_cutoff)
    return logprobs


def require_choice(params: GenerationParams) -> None:
    """Raises ValueError: several candidates from warpers that leave one token at every step."""
    one_token = {
        "top_k": params.top_k == 1,
        "min_p": params.min_p == 1,
        "top_p": params.top_p <= _ONE_TOKEN_TOP_P,
    }
    for name in one_token:
        if params.num_candidates > 1 and one_token[name]:
            raise ValueError(
                f"{name} = {getattr(params, name)} leaves one token, so all {params.num_candidates} "
                f"candidates would be equal: change {name} ({'1' if name == 'top_p' else '0'} keeps all "
                "tokens) or ask for one candidate"
            )


def discourage_repetition(
    logprobs: torch.Tensor, tokens: torch.Tensor, params: GenerationParams
) -> torch.Tensor:
    """The two filters that look at what was generated, for strategies that do without the others."""
    if params.repetition_penalty != 1.0:
        logprobs = repetition_penalty(logprobs, tokens, params.repetition_penalty)
    if params.no_repeat_ngram_size > 0:
        logprobs = no_repeat_ngram(logprobs, tokens, params.no_repeat_ngram_size)
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


def no_repeat_ngram(logprobs: torch.Tensor, tokens: torch.Tensor, n: int) -> torch.Tensor:
    """Drops tokens that would complete an n-gram which the row has already.

    tokens: [R, t] generated so far; n-grams of the prompt do not count. n: >= 1. A row in which everything is
    forbidden is left alone. Paulus et al. 2018, arXiv:1705.04304.
    """
    length = tokens.shape[1]
    if length < n:
        return logprobs
    seen = tokens.unfold(1, n, 1)  # [R, t - n + 1, n]
    completes = (seen[:, :, :-1] == tokens[:, None, length - n + 1 :]).all(-1)
    if not completes.any():
        return logprobs
    filtered = logprobs.clone()
    filtered[
        completes.nonzero()[:, 0].to(logprobs.device), seen[completes][:, -1].to(logprobs.device)
    ] = -torch.inf
    return unless_empty(filtered, logprobs)


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


def typical(logprobs: torch.Tensor, p: float) -> torch.Tensor:
    """Keeps the tokens whose surprise is nearest to the entropy, until their mass reaches p.

    p: in (0, 1]. Meister et al. 2022, arXiv:2202.00666.
    """
    normal = logprobs.log_softmax(-1)
    distance = (-normal - _entropy(normal)).abs()
    order = distance.argsort(dim=-1, stable=True)
    ordered = normal.exp().gather(1, order)
    drop = ordered.cumsum(-1) - ordered >= p  # by the mass of the tokens ahead
    drop[:, 0] = False
    return logprobs.masked_fill(torch.empty_like(drop).scatter_(1, order, drop), -torch.inf)


def eta(logprobs: torch.Tensor, cutoff: float) -> torch.Tensor:
    """Drops tokens less probable than min(cutoff, sqrt(cutoff) * exp(-entropy)), but for the best one.

    cutoff: in (0, 1). Hewitt et al. 2022, arXiv:2210.15191.
    """
    normal = logprobs.log_softmax(-1)
    floor = (0.5 * math.log(cutoff) - _entropy(normal)).clamp(max=math.log(cutoff))
    floor = torch.minimum(floor, normal.max(-1, keepdim=True).values)
    return logprobs.masked_fill(normal < floor, -torch.inf)


def _entropy(normal: torch.Tensor) -> torch.Tensor:
    """Normalised log-probabilities [R, V] -> their entropy [R, 1] in nats; dropped tokens count nothing."""
    return torch.special.entr(normal.exp()).sum(-1, keepdim=True)
