"""Every registered strategy, bundled or from an installed package, against the laws that hold for all.

The laws of cogbatch.decoding.conformance on scripted models, and those that need the engine on a tiny one.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from cogbatch import Engine, GenerationParams, GenerationRequest, RequestOutput
from cogbatch.decoding.conformance import LAWS, Markov, Options, depends_on_its_item_alone, drive
from cogbatch.decoding.registry import STRATEGIES, strategy_named, strategy_names
from cogbatch.decoding.rng import ItemRandom
from cogbatch.decoding.sample import Sample
from cogbatch.decoding.strategy import Choice, Hypothesis, State, Strategy
from cogbatch.model.modeling_cogvlm import CogVLMForCausalLM
from cogbatch.types import Candidate
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
