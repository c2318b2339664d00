"""From draws to candidates: pools and selectors, portfolios, loops drawn anew, errors of strategies."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image

from cogbatch import Engine, GenerationParams, GenerationRequest, RequestOutput
from cogbatch.decoding import registry
from cogbatch.decoding.candidates import select
from cogbatch.decoding.loops import is_loop
from cogbatch.decoding.parts import apportion, parts
from cogbatch.decoding.sample import Sample
from cogbatch.decoding.selector import SelectionContext
from cogbatch.engine.runner import Runner
from cogbatch.text import normalise
from cogbatch.types import Candidate, PortfolioMember
from tests.tiny import ByteTokenizer, tiny_model

IMAGE = Image.frombytes("RGB", (56, 56), random.Random(0).randbytes(56 * 56 * 3))
SHORT = GenerationParams(num_candidates=4, max_new_tokens=5, temperature=1.5)


class Longest:
    """Prefers more tokens; its score is their number."""

    uses: frozenset[str] = frozenset({"strategy_options"})

    def check(self, params: GenerationParams) -> None:
        if set(params.strategy_options) - {"broken"}:
            raise ValueError(f"unknown option of longest: {dict(params.strategy_options)}")

    def select(self, pool: Sequence[Candidate], k: int, context: SelectionContext) -> list[int]:
        if context.params.strategy_options.get("broken"):
            return [0, 0]
        order = sorted(range(len(pool)), key=lambda index: (-pool[index].num_tokens, pool[index].text))[:k]
        context.scores.update({index: float(pool[index].num_tokens) for index in order})
        return order


class Broken(Sample):
    """Fails at the third token."""

    def step(self, logprobs: torch.Tensor, state: Any, t: int, rng: Any) -> tuple[torch.Tensor, torch.Tensor]:
        if t == 2:
            raise RuntimeError("no third token")
        return super().step(logprobs, state, t, rng)


@pytest.fixture(autouse=True)
def _foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a package had registered them."""
    strategies: Mapping[str, Any] = {**registry.STRATEGIES, "broken": Broken()}
    monkeypatch.setattr(registry, "STRATEGIES", strategies)
    monkeypatch.setattr(registry, "SELECTORS", {**registry.SELECTORS, "longest": Longest()})


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(tiny_model(), ByteTokenizer())


def answer(engine: Engine, params: GenerationParams, *, prompt: str = "why?") -> RequestOutput:
    (output,) = engine.generate([GenerationRequest("a", IMAGE, prompt)], params)
    return output


def test_a_selector_learns_how_often_each_text_was_drawn() -> None:
    """Drawn once each, the cats agree; the dog, drawn four times, is what the model mostly says."""
    texts = ["a cat", "one dog", "A cat.", "a big cat", "one dog", "One dog!", "one dog"]
    drawn = [Candidate(0, text, (lane,), -1.0, 1, "stop", lane=lane) for lane, text in enumerate(texts)]
    (chosen,) = select(drawn, GenerationParams(selector="mbr"))
    assert chosen.text == "one dog"
    assert (chosen.lane, chosen.score) == (1, pytest.approx(4 / 7))


def test_a_selector_chooses_k_different_texts_out_of_the_pool(engine: Engine) -> None:
    pool = answer(engine, replace(SHORT, num_candidates=12)).candidates
    params = replace(SHORT, num_candidates=3, pool_size=12, selector="longest")
    chosen = answer(engine, params).candidates
    assert len({normalise(candidate.text) for candidate in chosen}) == len(chosen) == 3
    assert {candidate.lane for candidate in chosen} <= {candidate.lane for candidate in pool}
    longest = sorted((candidate.num_tokens for candidate in pool), reverse=True)[0]
    assert chosen[0].score == chosen[0].num_tokens == longest
    assert [candidate.index for candidate in chosen] == [0, 1, 2]


def test_a_pool_with_fewer_texts_than_k_delivers_fewer(engine: Engine) -> None:
    params = replace(SHORT, selector="longest", pool_size=6, temperature=0.01, num_candidates=5)
    delivered = answer(engine, params).candidates
    assert 0 < len(delivered) < 5


def test_a_selector_that_breaks_its_promise_is_an_error_of_the_request(engine: Engine) -> None:
    params = replace(SHORT, selector="longest", strategy_options={"broken": True})
    error = answer(engine, params).error
    assert error is not None
    assert error.stage == "generate"
    assert "selector 'longest' chose [0, 0]" in error.message


def test_what_a_strategy_raises_is_an_error_of_its_request_alone(engine: Engine) -> None:
    requests = [
        GenerationRequest("good", IMAGE, "why?"),
        GenerationRequest("bad", IMAGE, "why?", params=replace(SHORT, strategy="broken")),
    ]
    outputs = {output.id: output for output in engine.generate(requests, SHORT)}
    assert outputs["bad"].error is not None
    assert outputs["bad"].error.message == "strategy 'broken': no third token"
    assert outputs["good"] == answer_alone(engine, requests[0])


def answer_alone(engine: Engine, request: GenerationRequest) -> RequestOutput:
    (output,) = engine.generate([request], SHORT)
    return output


def test_a_portfolio_draws_what_its_members_would(engine: Engine) -> None:
    members = (
        PortfolioMember(share=3, params={"temperature": 0.7}),
        PortfolioMember(prompt="Again: {prompt} {x}", params={"strategy": "greedy"}),
    )
    whole = answer(
        engine, GenerationParams(num_candidates=4, strategy="portfolio", portfolio=members, max_new_tokens=5)
    ).candidates
    sampled = answer(engine, GenerationParams(num_candidates=3, temperature=0.7, max_new_tokens=5)).candidates
    asked = answer(engine, GenerationParams(strategy="greedy", max_new_tokens=5), prompt="Again: why? {x}")
    assert [c.token_ids for c in whole] == [c.token_ids for c in (*sampled, *asked.candidates)]
    assert [c.source for c in whole] == ["portfolio[0] sample"] * 3 + ["portfolio[1] greedy"]
    assert [c.index for c in whole] == [0, 1, 2, 3]


def test_members_that_ask_the_same_draw_differently(engine: Engine) -> None:
    members = (PortfolioMember(), PortfolioMember())
    twice = GenerationParams(num_candidates=4, strategy="portfolio", portfolio=members, temperature=2.0)
    texts = [candidate.text for candidate in answer(engine, replace(twice, max_new_tokens=8)).candidates]
    assert texts[:2] != texts[2:]


def test_a_portfolio_encodes_its_image_once() -> None:
    model = tiny_model()
    calls = []
    model.model.vision.register_forward_hook(lambda *_: calls.append(1))
    members = tuple(PortfolioMember(prompt=text) for text in ("one", "two", "three"))
    params = GenerationParams(num_candidates=3, strategy="portfolio", portfolio=members, max_new_tokens=3)
    answer(Engine(model, ByteTokenizer()), params)
    assert len(calls) == 1


@pytest.mark.parametrize("text", ["", "why is it so?"])
def test_a_shared_image_gives_the_same_numbers(text: str) -> None:
    runner = Runner(tiny_model())
    pixels = torch.randn(3, 56, 56)
    ids, types = [1, *[0] * 18, *(3 + byte for byte in text.encode())], [0, *[1] * 18, *[0] * len(text)]
    images = [runner.prefill_image(1, pixels) for _ in range(2)]
    runner.prefill_text([*ids, 7, 8, 9], [*types, 0, 0, 0], behind=images[0])  # a neighbour
    first, second = (runner.prefill_text(ids, types, behind=image) if text else image for image in images)
    assert torch.equal(runner.first_logprobs(first), runner.first_logprobs(second))
    assert all(torch.equal(a.states, b.states) for a, b in zip(first.chain, second.chain, strict=True))
    assert first.next_position == second.next_position


LOOPING = GenerationParams(num_candidates=6, max_new_tokens=60, ignore_eos=True)


@pytest.fixture(scope="module")
def stammering() -> Engine:
    """About half of its candidates say one token again and again."""
    model = tiny_model(initializer_range=0.02)
    model.lm_head.weight.data.copy_(6 * model.model.embed_tokens.weight.data)
    return Engine(model, ByteTokenizer())


def test_loops_are_flagged_and_drawn_anew_as_often_as_asked(stammering: Engine) -> None:
    plain = answer(stammering, LOOPING).candidates
    looped = [is_loop(candidate.token_ids) for candidate in plain]
    assert any(looped)
    assert not all(looped)
    assert [candidate.flags == ("loop",) for candidate in plain] == looped
    again = answer(stammering, replace(LOOPING, resample_loops=1)).candidates
    for before, after, was_loop in zip(plain, again, looped, strict=True):
        if was_loop:
            assert after.lane == before.lane + (1 << 20)  # type: ignore[operator]
            assert after.token_ids != before.token_ids
        else:
            assert after == before


def test_drawing_anew_does_not_depend_on_k(stammering: Engine) -> None:
    many = answer(stammering, replace(LOOPING, resample_loops=3)).candidates
    few = answer(stammering, replace(LOOPING, resample_loops=3, num_candidates=3)).candidates
    # Other numbers of rows round differently: tokens and lanes are what a seed fixes.
    assert [(c.token_ids, c.lane) for c in few] == [(c.token_ids, c.lane) for c in many[:3]]


def test_a_selector_takes_loops_only_where_it_must(stammering: Engine) -> None:
    pool = answer(stammering, LOOPING).candidates
    sound = sum(not candidate.flags for candidate in pool)
    some = answer(
        stammering, replace(LOOPING, selector="longest", pool_size=6, num_candidates=sound)
    ).candidates
    assert not any(candidate.flags for candidate in some)
    every = answer(stammering, replace(LOOPING, selector="longest", pool_size=6, num_candidates=6)).candidates
    assert any(candidate.flags for candidate in every)


def test_shares_are_whole_and_add_up() -> None:
    assert apportion([1, 1, 1], 8) == [3, 3, 2]
    assert apportion([3, 1], 4) == [3, 1]
    assert apportion([0.9, 0.1], 1) == [1, 0]
    params = GenerationParams(
        num_candidates=1, strategy="portfolio", portfolio=(PortfolioMember(share=9), PortfolioMember())
    )
    assert len(parts(params)) == 1


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"selector": "nearest"}, "unknown selector 'nearest': expected one of"),
        ({"selector": "longest", "pool_size": 3, "num_candidates": 4}, "pool_size is 3: expected at least"),
        ({"pool_size": 3}, "does not use pool_size without a selector"),
        ({"selector": "longest", "strategy_options": {"a": 1}}, "unknown option of longest"),
        ({"strategy_options": {"a": 1}}, "does not use strategy_options"),
        ({"strategy": "portfolio"}, "needs portfolio: a list of"),
        ({"portfolio": (PortfolioMember(),)}, "'sample' does not use portfolio"),
        (
            {"strategy": "portfolio", "portfolio": (PortfolioMember(params={"strategy": "portfolio"}),)},
            "cannot hold another",
        ),
        (
            {"strategy": "portfolio", "portfolio": (PortfolioMember(params={"num_candidates": 3}),)},
            r"portfolio\[0\]: params has 'num_candidates', which belongs to the whole request",
        ),
        (
            {"strategy": "portfolio", "portfolio": (PortfolioMember(params={"temprature": 3}),)},
            r"portfolio\[0\]: params has 'temprature', which is no generation parameter",
        ),
        (
            {"strategy": "portfolio", "portfolio": (PortfolioMember(params={"temperature": -1}),)},
            r"portfolio\[0\] sample: temperature is -1: expected above 0",
        ),
        (
            {"strategy": "portfolio", "portfolio": (PortfolioMember(params={"num_beams": 3}),)},
            r"portfolio\[0\]: its strategy does not use num_beams",
        ),
        (
            {"strategy": "portfolio", "portfolio": (PortfolioMember(share=-1),)},
            r"share is -1: expected above 0",
        ),
    ],
)
def test_requests_that_make_no_sense_are_refused(
    engine: Engine, params: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        engine.generate([], GenerationParams(**params))
