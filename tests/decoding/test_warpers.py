"""Filters of log-probabilities, with answers worked out by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    EtaLogitsWarper,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from cogbatch.decoding.warpers import (
    eta,
    min_p,
    no_repeat_ngram,
    repetition_penalty,
    top_k,
    top_p,
    typical,
    warp,
)
from cogbatch.types import GenerationParams

LOGPROBS = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log()


def kept(logprobs: torch.Tensor) -> list[int]:
    return (logprobs[0] > -torch.inf).nonzero().flatten().tolist()


@pytest.mark.parametrize(("k", "expected"), [(1, [0]), (2, [0, 1]), (4, [0, 1, 2, 3]), (9, [0, 1, 2, 3])])
def test_top_k_keeps_the_k_most_probable(k: int, expected: list[int]) -> None:
    assert kept(top_k(LOGPROBS, k)) == expected


@pytest.mark.parametrize(
    ("p", "expected"),
    [(1e-300, [0]), (0.01, [0]), (0.49, [0]), (0.51, [0, 1]), (0.8, [0, 1, 2]), (0.95, [0, 1, 2, 3])],
)
def test_top_p_keeps_the_smallest_set_that_reaches_p(p: float, expected: list[int]) -> None:
    assert kept(top_p(LOGPROBS, p)) == expected
    assert kept(top_p(LOGPROBS.flip(-1), p)) == sorted(3 - token for token in expected)


@pytest.mark.parametrize(
    ("p", "expected"), [(0.0, [0, 1, 2, 3]), (0.25, [0, 1, 2]), (0.4, [0, 1]), (1.0, [0])]
)
def test_min_p_is_relative_to_the_most_probable(p: float, expected: list[int]) -> None:
    assert kept(min_p(LOGPROBS, p)) == expected


def test_repetition_penalty_raises_the_power_of_seen_tokens_once() -> None:
    seen = torch.tensor([[1, 1, 3]])
    expected = torch.tensor([[0.5, 0.25**2, 0.15, 0.1**2]]).log()
    torch.testing.assert_close(repetition_penalty(LOGPROBS, seen, 2.0), expected)
    assert repetition_penalty(LOGPROBS, seen[:, :0], 2.0).equal(LOGPROBS)


def test_temperature_divides_before_the_filters() -> None:
    params = GenerationParams(temperature=0.5, top_p=0.7)
    # squares: .25 .0625 .0225 .01 of .345 -> .725 .181 ...: the first alone reaches .7
    assert kept(warp(LOGPROBS, torch.zeros(1, 0, dtype=torch.long), params)) == [0]


@given(
    st.lists(st.floats(-20, 0), min_size=1, max_size=12),
    st.floats(0.01, 1.0),
    st.integers(0, 12),
    st.floats(0.0, 1.0),
)
def test_the_most_probable_token_is_never_dropped(row: list[float], p: float, k: int, floor: float) -> None:
    logprobs = torch.tensor([row]).log_softmax(-1)
    params = GenerationParams(top_p=p, top_k=k, min_p=floor)
    warped = warp(logprobs, torch.zeros(1, 0, dtype=torch.long), params)
    assert warped.max() == logprobs.max()


@pytest.mark.parametrize("temperature", [1e-39, 1e-8, 1e8])
def test_the_best_token_survives_any_temperature(temperature: float) -> None:
    warped = warp(LOGPROBS, torch.zeros(1, 0, dtype=torch.long), GenerationParams(temperature=temperature))
    assert warped.argmax() == 0
    assert warped.max() == 0
    assert not warped.isnan().any()


def test_typical_keeps_what_is_nearest_to_the_entropy() -> None:
    """.5 .25 .15 .1: entropy 1.208 nats; surprises .69 1.39 1.90 2.30 are .51 .18 .69 1.09 away from it."""
    assert kept(typical(LOGPROBS, 0.2)) == [1]
    assert kept(typical(LOGPROBS, 0.3)) == [0, 1]
    assert kept(typical(LOGPROBS, 0.8)) == [0, 1, 2]
    assert kept(typical(LOGPROBS, 1e-9)) == [1]


def test_eta_drops_what_is_rare_for_the_entropy() -> None:
    """exp(-1.208) is .299: at .3, sqrt(.3) * .299 = .164 is less than .3; at .01 both are, .01 itself."""
    assert kept(eta(LOGPROBS, 0.3)) == [0, 1]
    assert kept(eta(LOGPROBS, 0.01)) == [0, 1, 2, 3]
    certain = torch.tensor([[0.97, 0.02, 0.01]]).log()  # entropy .154: sqrt(.0225) * .857 = .129 > .0225
    assert kept(eta(certain, 0.0225)) == [0]
    assert kept(eta(certain, 0.015)) == [0, 1]
    assert kept(eta(torch.tensor([[0.6, 0.4]]).log(), 0.99)) == [0]  # the best stays, whatever the floor


def test_no_ngram_comes_twice() -> None:
    seen = torch.tensor([[1, 2, 3, 1, 2], [1, 2, 3, 3, 0]])
    logprobs = LOGPROBS.expand(2, 4)
    assert kept(no_repeat_ngram(logprobs, seen, 3)) == [0, 1, 2]  # 1 2 3 would come again
    assert kept(no_repeat_ngram(logprobs, seen, 3)[1:]) == [0, 1, 2, 3]
    assert kept(no_repeat_ngram(logprobs, seen, 1)) == [0]
    assert kept(no_repeat_ngram(logprobs, seen[:, :2], 3)) == [0, 1, 2, 3]


def test_a_row_that_may_not_go_on_at_all_is_left_alone() -> None:
    seen = torch.tensor([[0, 1, 2, 3], [0, 0, 0, 0]])
    filtered = no_repeat_ngram(LOGPROBS.expand(2, 4), seen, 1)
    assert kept(filtered) == [0, 1, 2, 3]
    assert kept(filtered[1:]) == [1, 2, 3]


@given(st.integers(0, 1000), st.floats(0.05, 0.95), st.integers(1, 4), st.floats(0.3, 4.0))
def test_filters_are_those_of_transformers(seed: int, p: float, n: int, spread: float) -> None:
    """Where the definition is the same: all but repetition_penalty and the direction of ties."""
    generator = torch.Generator().manual_seed(seed)
    scores = (spread * torch.randn(3, 20, generator=generator)).log_softmax(-1)
    tokens = torch.randint(0, 4, (3, 9), generator=generator)
    pairs = [
        (TemperatureLogitsWarper(p), GenerationParams(temperature=p)),
        (TopKLogitsWarper(n), GenerationParams(top_k=n)),
        (TopPLogitsWarper(p), GenerationParams(top_p=p)),
        (MinPLogitsWarper(p), GenerationParams(min_p=p)),
        (TypicalLogitsWarper(p), GenerationParams(typical_p=p)),
        (EtaLogitsWarper(p), GenerationParams(eta_cutoff=p)),
        (NoRepeatNGramLogitsProcessor(n), GenerationParams(no_repeat_ngram_size=n)),
    ]
    for theirs, params in pairs:
        expected = theirs(tokens, scores).softmax(-1)
        torch.testing.assert_close(warp(scores, tokens, params).softmax(-1), expected)
    together = GenerationParams(
        no_repeat_ngram_size=n,
        temperature=0.5 + p,
        top_k=12,
        top_p=p,
        min_p=0.02,
        typical_p=0.9,
        eta_cutoff=0.05,
    )
    expected = scores
    for theirs in (
        NoRepeatNGramLogitsProcessor(n),
        TemperatureLogitsWarper(0.5 + p),
        TopKLogitsWarper(12),
        TopPLogitsWarper(p),
        MinPLogitsWarper(0.02),
        TypicalLogitsWarper(0.9),
        EtaLogitsWarper(0.05),
    ):
        expected = theirs(tokens, expected)
    torch.testing.assert_close(warp(scores, tokens, together).softmax(-1), expected.softmax(-1))


@given(st.integers(0, 100), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_every_filter_keeps_a_token_of_rows_with_dropped_ones(seed: int, p: float, cutoff: float) -> None:
    logprobs = torch.randn(4, 6, generator=torch.Generator().manual_seed(seed))
    for row in range(4):
        logprobs[row, : row + 2] = -torch.inf
    for filtered in (
        top_p(logprobs, p),
        min_p(logprobs, p),
        top_k(logprobs, 1),
        typical(logprobs, p),
        eta(logprobs, cutoff),
    ):
        assert not filtered.isnan().any()
        assert (filtered.amax(-1) > -torch.inf).all()
        assert (filtered[logprobs == -torch.inf] == -torch.inf).all()
