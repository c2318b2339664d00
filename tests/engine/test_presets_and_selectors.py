"""Every preset and selector through the engine, on a tiny model: k or fewer, distinct where promised."""

from __future__ import annotations

import random

import pytest
from PIL import Image

from cogbatch import Engine, GenerationParams, GenerationRequest
from cogbatch.decoding.presets import PRESETS, preset
from cogbatch.decoding.registry import SELECTORS, strategy_named
from cogbatch.text import normalise
from cogbatch.types import Candidate
from tests.tiny import ByteTokenizer, tiny_model

IMAGE = Image.frombytes("RGB", (56, 56), random.Random(0).randbytes(56 * 56 * 3))


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(tiny_model(), ByteTokenizer())


def candidates(engine: Engine, params: GenerationParams) -> tuple[Candidate, ...]:
    (output,) = engine.generate([GenerationRequest("a", IMAGE, "why?")], params)
    assert output.error is None
    return output.candidates


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_gives_its_candidates(engine: Engine, name: str) -> None:
    params = preset(name, max_new_tokens=6)
    found = candidates(engine, params)
    assert 1 <= len(found) <= params.num_candidates
    if params.selector is not None or strategy_named(params.strategy).distinct:
        assert len({normalise(candidate.text) for candidate in found}) == len(found)
    else:
        assert len(found) == params.num_candidates


@pytest.mark.parametrize("name", sorted(SELECTORS))
def test_a_selector_scores_what_it_chooses_the_same_way_every_time(engine: Engine, name: str) -> None:
    params = GenerationParams(num_candidates=3, pool_size=9, selector=name, max_new_tokens=5)
    found = candidates(engine, params)
    assert len(found) == 3
    assert all(candidate.score is not None for candidate in found)
    assert candidates(engine, params) == found


def test_preference_pairs_come_best_first(engine: Engine) -> None:
    found = candidates(engine, preset("preference-pairs", max_new_tokens=6))
    qualities = [candidate.cumulative_logprob / candidate.num_tokens for candidate in found]
    assert qualities == sorted(qualities, reverse=True)
    assert len(set(qualities)) == len(qualities) == 4
