"""Laws of bytes: computed by hand for 17B, and counted on models that are small enough to run."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch

from cogbatch.decoding.rng import ItemRandom
from cogbatch.decoding.strategy import State
from cogbatch.decoding.warpers import warp
from cogbatch.engine.cache import ItemCache
from cogbatch.engine.memory import (
    activation_bytes,
    device_memory,
    float32_sum_bytes,
    image_tokens,
    kv_budget_bytes,
    token_bytes,
    usable_bytes,
    weight_bytes,
)
from cogbatch.engine.runner import Runner
from cogbatch.model.configuration_cogvlm import CogVLMConfig
from cogbatch.types import GenerationParams, Quantization, QuantizationType
from tests.bench.memory import peak, pixels
from tests.tiny import tiny_config, tiny_model

CPU = torch.device("cpu")
BIG = CogVLMConfig()  # CogVLM 17B


def test_keys_and_values_of_17b_take_half_a_mebibyte_a_token() -> None:
    """2 * 32 layers * 32 heads * 128 * 2 bytes; bos, boi, 35 * 35 patches and eoi are 1,228 tokens."""
    assert token_bytes(BIG, torch.bfloat16) == 2**19
    assert image_tokens(BIG) == 1 + 1 + 35 * 35 + 1
    assert image_tokens(BIG) * token_bytes(BIG, torch.bfloat16) / 2**30 == pytest.approx(0.6, abs=0.001)


def test_grouped_heads_divide_keys_and_values() -> None:
    two = CogVLMConfig(num_multi_query_heads=8)
    assert token_bytes(two, torch.bfloat16) * 4 == token_bytes(BIG, torch.bfloat16)


def test_weights_of_17b_take_35_gigabytes_in_bfloat16() -> None:
    """By the shapes of the official repository, part by part."""
    expert = 4096 * 12288 + 4096 * 4096 + 3 * 4096 * 11008
    language = 32 * (2 * expert + 2 * 4096) + 2 * 32000 * 4096 + 4096
    attention = (1792 + 1) * 3 * 1792 + (1792 + 1) * 1792
    tower_layer = attention + (1792 + 1) * 15360 + (15360 + 1) * 1792 + 4 * 1792
    embedding = 3 * 14 * 14 * 1792 + 1792 + 1792 + 1226 * 1792
    projection = 1792 * 4096 + 2 * 4096 + 3 * 4096 * 11008
    total = language + 63 * tower_layer + embedding + projection + 2 * 4096
    assert weight_bytes(BIG, torch.bfloat16) == 2 * total == 35_279_370_752


@pytest.mark.parametrize("v2", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_computed_bytes_are_those_of_the_tensors(v2: bool, dtype: torch.dtype) -> None:
    model = tiny_model(v2=v2, dtype=dtype)
    assert weight_bytes(model.config, dtype) == sum(weight.nbytes for weight in model.parameters())
    runner = Runner(model)
    image = runner.prefill_image(1, pixels(model.config))
    cache = ItemCache(runner.geometry, image, max_new_tokens=5)
    cache.move_rows([0, 0, 0])
    runner.decode([5, 6, 7], [cache], deterministic=False)
    token = token_bytes(model.config, dtype)
    assert image.states.nbytes == image_tokens(model.config) * token
    assert cache.suffix.nbytes == 3 * 1 * token


TOWER = {"image_size": 280, "num_positions": 401, "hidden_size": 128, "num_heads": 4, "num_hidden_layers": 2}
GEOMETRIES: dict[str, dict[str, Any]] = {
    # What takes most: the tower, its patches, a prompt, a prompt behind an image, the vocabulary.
    "tower": {"vision_config": TOWER | {"intermediate_size": 8192}},
    "patches": {"vision_config": TOWER | {"intermediate_size": 1024}},
    "prompt": {"hidden_size": 256, "intermediate_size": 2048},
    "attention": {"hidden_size": 256, "intermediate_size": 128, "num_multi_query_heads": 1},
    "vocabulary": {"vocab_size": 20_000},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_working_memory_is_bounded_and_not_by_far_too_much(name: str, dtype: torch.dtype) -> None:
    model = tiny_model(dtype=dtype, **{"num_hidden_layers": 3, **GEOMETRIES[name]})
    config, rows = model.config, 16
    runner, image_length = Runner(model), image_tokens(model.config)
    token = token_bytes(config, dtype)
    length = 480
    picture, image_peak = peak(lambda: runner.prefill_image(1, pixels(config)))
    types = [0, *[1] * (image_length - 1), *[0] * (length - image_length)]
    behind = length - image_length
    _, behind_peak = peak(lambda: runner.prefill_text([5] * length, types, behind=picture))
    _, text_peak = peak(lambda: runner.prefill_text([5] * length, [0] * length))
    cache = ItemCache(runner.geometry, picture, max_new_tokens=4)
    cache.move_rows([0] * rows)
    _, step_peak = peak(lambda: choose(runner.decode([5] * rows, [cache], deterministic=True)[0]))
    measured = max(
        image_peak - image_length * token,
        behind_peak - behind * token,
        text_peak - length * token,
        step_peak,
    )
    bound = activation_bytes(config, dtype, rows=rows, prompt_tokens=length)
    bound += float32_sum_bytes(config, dtype, prompt_tokens=length)
    # Whether the kernel that makes patches of 16-bit pixels copies them first depends on the processor.
    slack = 3 if name == "patches" and dtype.itemsize == 2 else 2
    assert measured <= bound <= slack * measured


def choose(logprobs: torch.Tensor) -> torch.Tensor:
    """A draw under the costliest warper."""
    params = GenerationParams(num_candidates=len(logprobs), temperature=0.8, typical_p=0.9)
    state = State(params=params, end_ids=frozenset())
    warped = warp(state.allowed(logprobs), torch.zeros(len(logprobs), 1, dtype=torch.long), params)
    return ItemRandom(0, "a").draw(warped, purpose=0, step=1, streams=range(len(logprobs)))  # type: ignore[arg-type]


def test_a_budget_is_never_negative_and_a_share_is_no_more_than_the_whole() -> None:
    config = tiny_config()
    whole = kv_budget_bytes(config, torch.float32, device=CPU)
    assert 0 < kv_budget_bytes(config, torch.float32, device=CPU, share=0.1) < whole
    assert whole <= device_memory(CPU).total_bytes // 2
    assert kv_budget_bytes(config, torch.float32, device=CPU, share=1e-9) == 0
    assert kv_budget_bytes(config, torch.float32, device=CPU, max_rows=10**9) == 0


def test_half_of_a_machine_and_a_tenth_of_a_card_are_left_alone() -> None:
    assert usable_bytes(10 * 2**30, "cpu") == 5 * 2**30
    assert usable_bytes(10 * 2**30, "cuda") == 9 * 2**30
    assert usable_bytes(2**30, "cuda") == 2**29  # at least half a GiB


def test_quantized_layers_need_room_to_multiply_in() -> None:
    """nf4: the widest weight unpacked; int8: 13 bytes for each output of the widest product."""
    plain = activation_bytes(BIG, torch.bfloat16, rows=64, prompt_tokens=2048)
    found = {
        kind: activation_bytes(
            BIG, torch.bfloat16, rows=64, prompt_tokens=2048, quantization=Quantization(kind)
        )
        for kind in get_args(QuantizationType)
    }
    assert found == {"nf4": plain + 2 * 4096 * 11008, "int8": plain + 13 * 2048 * 11008}
