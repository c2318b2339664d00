"""Every registered strategy, bundled or from an installed package, against the laws that hold for all.

The laws of cogbatch.decoding.conformance on scripted models, and those that need the engine on a tiny one.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
import torch
from PIL import Image

from cogbatch import Engine, GenerationParams, GenerationRequest, RequestOutput
from cogbatch.decoding.arithmetic import Arithmetic
from cogbatch.decoding.conformance import LAWS
from cogbatch.decoding.registry import STRATEGIES, strategy_named, strategy_names
from cogbatch.decoding.rng import ItemRandom
from cogbatch.decoding.sample import Sample
from cogbatch.decoding.strategy import Choice, State
from cogbatch.model.modeling_cogvlm import CogVLMForCausalLM
from cogbatch.model.processing_cogvlm import encode_prompt, preprocess_image
from tests.tiny import ByteTokenizer, tiny_model

WARPED = {"temperature": 0.8, "top_k": 9, "top_p": 0.95, "typical_p": 0.97, "no_repeat_ngram_size": 3}
BEAMED = {"num_beams": 12, "length_penalty": 0.5, "repetition_penalty": 1.3}
# Beside the defaults, which every strategy has.
OPTIONS: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "greedy": ({"repetition_penalty": 1.2, "no_repeat_ngram_size": 2},),
    "sample": (WARPED,),
    "arithmetic": (WARPED,),
    "stochastic-beam": (WARPED,),
    "beam": (BEAMED, {"beam_score": "sat", "no_repeat_ngram_size": 2}),
    "diverse-beam": ({**BEAMED, "num_beam_groups": 3, "diversity_penalty": 0.7},),
    "branch": ({**WARPED, "branch_length": 1}, {"branch_length": 20}),
}
CASES = [
    pytest.param(name, options, id=f"{name}-{index}")
    for name in strategy_names()
    for index, options in enumerate(({}, *OPTIONS.get(name, ())))
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize(("name", "options"), CASES)
def test_laws_of_scripted_models(law: Any, name: str, options: Mapping[str, Any]) -> None:
    law(strategy_named(name), options)


def test_every_bundled_strategy_has_options_of_its_own() -> None:
    assert set(OPTIONS) == set(STRATEGIES)


class DropsOne(Sample):
    def finish(self, state: State) -> list[Choice]:
        return super().finish(state)[1:]


class CallsItselfDistinct(Sample):
    distinct = True


class MisnamesEnds(Sample):
    def finish(self, state: State) -> list[Choice]:
        return [Choice(replace(choice.hypothesis, finish_reason="stop")) for choice in super().finish(state)]


class WarpsWhatItReports(Sample):
    def finish(self, state: State) -> list[Choice]:
        return [
            Choice(replace(choice.hypothesis, cumulative_logprob=0.9 * choice.hypothesis.cumulative_logprob))
            for choice in super().finish(state)
        ]


class CountsItsCalls(Sample):
    calls = 0

    def step(
        self,
        logprobs: torch.Tensor,
        state: State,
        t: int,
        rng: ItemRandom,  # noqa: ARG002
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.calls += 1
        return super().step(logprobs, state, t, ItemRandom(self.calls, "item"))


class CallsItselfNested(Arithmetic):
    nested = True


class TakesTheImpossible(Sample):
    def step(
        self,
        logprobs: torch.Tensor,
        state: State,
        t: int,
        rng: ItemRandom,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return super().step(logprobs.clamp(min=-1.0), state, t, rng)


class HidesNaN(Sample):
    def finish(self, state: State) -> list[Choice]:
        return [
            choice for choice in super().finish(state) if not math.isnan(choice.hypothesis.cumulative_logprob)
        ]


@pytest.mark.parametrize(
    ("law", "broken"),
    list(
        zip(
            LAWS,
            (
                DropsOne,
                CallsItselfDistinct,
                MisnamesEnds,
                WarpsWhatItReports,
                CountsItsCalls,
                CallsItselfNested,
                TakesTheImpossible,
                HidesNaN,
            ),
            strict=True,
        )
    ),
)
def test_each_law_can_be_broken(law: Any, broken: type[Sample]) -> None:
    with pytest.raises(AssertionError):
        law(broken(), {})


def picture(seed: int) -> Image.Image:
    return Image.frombytes("RGB", (60, 40), Random(seed).randbytes(60 * 40 * 3))


# The model's end tokens: a tenth of its vocabulary, so that random weights end at all lengths.
ENDS = [2, *range(10, 300, 10)]
REQUESTS = [
    GenerationRequest("a", None, "why?"),
    GenerationRequest("b", picture(1), "what?"),
    GenerationRequest("c", picture(1), "and this?"),
    GenerationRequest("d", picture(2), "what?"),
]


@pytest.fixture(scope="module")
def model() -> CogVLMForCausalLM:
    return tiny_model(eos_token_id=ENDS)


@pytest.fixture(scope="module")
def engine(model: CogVLMForCausalLM) -> Engine:
    return Engine(model, ByteTokenizer(), max_rows=11)  # two or three requests at a time


def params(name: str, options: Mapping[str, Any], k: int = 4) -> GenerationParams:
    """k candidates, or one of a strategy that gives no more."""
    asked = GenerationParams(**{"max_new_tokens": 9, **options, "strategy": name, "num_candidates": k})
    try:
        strategy_named(name).check(asked)
    except ValueError:
        return params(name, options, k=1)
    return asked


def by_id(outputs: Iterator[RequestOutput]) -> dict[str, RequestOutput]:
    return {output.id: output for output in outputs}


def teacher_forced(model: CogVLMForCausalLM, request: GenerationRequest, tokens: Sequence[int]) -> float:
    """Log-probability of tokens by one plain forward pass of the model."""
    image = 0 if request.image is None else model.config.num_image_tokens
    ids, types = encode_prompt(
        ByteTokenizer(), request.prompt, bos_token_id=1, pad_token_id=0, num_image_tokens=image
    )
    with torch.no_grad():
        logits = model(
            torch.tensor([[*ids, *tokens]]),
            token_type_ids=torch.tensor([[*types, *[0] * len(tokens)]]),
            pixel_values=preprocess_image(request.image, 56)[None] if image else None,  # type: ignore[arg-type]
        ).logits
    logprobs = logits[0, len(ids) - 1 : -1].log_softmax(-1)
    return float(logprobs.gather(1, torch.tensor(tokens)[:, None]).sum())


@pytest.mark.parametrize(("name", "options"), CASES)
def test_candidates_of_the_engine(
    name: str, options: Mapping[str, Any], engine: Engine, model: CogVLMForCausalLM
) -> None:
    """k or fewer, distinct texts where promised, every row at its own end, the model's log-probabilities."""
    asked, strategy = params(name, options), strategy_named(name)
    outputs = by_id(engine.generate(REQUESTS, asked))
    for request in REQUESTS:
        output = outputs[request.id]
        assert output.error is None
        texts = [candidate.text for candidate in output.candidates]
        assert 1 <= len(texts) <= asked.num_candidates
        assert len(texts) == len(set(texts)) if strategy.distinct else len(texts) == asked.num_candidates
        for candidate in output.candidates:
            exact = teacher_forced(model, request, candidate.token_ids)
            assert candidate.cumulative_logprob == pytest.approx(exact, abs=1e-4)
            assert not set(candidate.token_ids[:-1]) & set(ENDS)
            assert (candidate.finish_reason == "stop") == (candidate.token_ids[-1] in ENDS)
            assert candidate.finish_reason == "stop" or candidate.num_tokens == asked.max_new_tokens


@pytest.mark.parametrize(("name", "options"), CASES)
def test_same_candidates_alone_batched_reordered_and_resumed(
    name: str, options: Mapping[str, Any], engine: Engine, model: CogVLMForCausalLM
) -> None:
    asked = params(name, options)
    batched = by_id(engine.generate(REQUESTS, asked))
    assert by_id(engine.generate(REQUESTS[::-1], asked)) == batched
    resumed = Engine(model, ByteTokenizer())
    assert by_id(resumed.generate(REQUESTS[2:], asked)) == {key: batched[key] for key in ("c", "d")}
    for request in REQUESTS:
        assert next(resumed.generate([request], asked)) == batched[request.id]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_one_candidate_and_nesting_in_the_engine(
    name: str, options: Mapping[str, Any], engine: Engine
) -> None:
    (many,) = engine.generate(REQUESTS[1:2], params(name, options))
    (one,) = engine.generate(REQUESTS[1:2], params(name, options, k=1))
    assert one.error is None
    assert len(one.candidates) == 1
    if strategy_named(name).nested:
        assert one.candidates[0].token_ids == many.candidates[0].token_ids
