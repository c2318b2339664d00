"""Filters of log-probabilities, with answers worked out by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cogbatch.decoding.warpers import min_p, repetition_penalty, top_k, top_p, warp
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
