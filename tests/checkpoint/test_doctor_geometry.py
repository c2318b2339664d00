"""What tensors' shapes say of the configuration: all of it, except for heads that no published model has."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogbatch.checkpoint.doctor.geometry import complete, disagreements
from cogbatch.checkpoint.names import rotary_names, tensor_names
from cogbatch.model.configuration_cogvlm import CogVLMConfig, CogVLMVisionConfig
from tests.tiny import tiny_config

V2 = {
    "vocab_size": 128_256,
    "intermediate_size": 14_336,
    "num_multi_query_heads": 8,
    "vision_expert_qkv_bias": True,
    "rope_theta": 500_000.0,
    "max_position_embeddings": 8192,
    "bos_token_id": 128_000,
    "eos_token_id": [128_001, 128_009],
    "pad_token_id": 128_002,
    "vision_config": {"image_size": 1344, "num_positions": 9217, "downsample": True},
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "cogvlm-chat-hf": {},
    "cogvlm-base-224-hf": {"vision_config": {"image_size": 224, "num_positions": 257}},
    "cogvlm2-llama3-chat-19B": V2,
}


def shapes_of(config: CogVLMConfig, *, rotary: bool) -> dict[str, tuple[int, ...]]:
    shapes = {name.hf: name.shape for name in tensor_names(config) if name.hf is not None}
    return shapes | (dict.fromkeys(rotary_names(config), (config.head_dim // 2,)) if rotary else {})


def values_of(config: CogVLMConfig) -> dict[str, Any]:
    values = {name: getattr(config, name) for name in CogVLMConfig.__annotations__}
    vision = {name: getattr(config.vision_config, name) for name in CogVLMVisionConfig.__annotations__}
    return values | {"vision_config": vision}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("rotary", [False, True])
def test_tensors_of_published_models_need_no_config_at_all(name: str, rotary: bool) -> None:
    config = CogVLMConfig(**PUBLISHED[name])
    found = complete({}, shapes_of(config, rotary=rotary)).config
    assert found is not None
    assert values_of(found) == values_of(config)


@given(
    heads=st.sampled_from([2, 4, 6]),
    groups=st.sampled_from([1, 2]),
    half=st.integers(1, 8),
    layers=st.integers(1, 12),
    sizes=st.tuples(st.integers(3, 2000), st.integers(1, 300), st.integers(1, 60)),
    vision=st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(2, 6), st.integers(1, 16)),
    v2=st.booleans(),
)
def test_any_geometry_follows_from_tensors_and_vision_heads(
    heads: int,
    groups: int,
    half: int,
    layers: int,
    sizes: tuple[int, int, int],
    vision: tuple[int, int, int, int],
    v2: bool,
) -> None:
    vocabulary, inner, vision_inner = sizes
    vision_heads, vision_head_dim, side, patch = vision
    side = 2 * side if v2 else side
    config = tiny_config(
        v2=v2,
        vocab_size=vocabulary,
        hidden_size=2 * half * heads,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_multi_query_heads=heads // groups,
        vision_config={
            "image_size": side * patch,
            "num_positions": side**2 + 1,
            "patch_size": patch,
            "hidden_size": vision_heads * vision_head_dim,
            "intermediate_size": vision_inner,
            "num_heads": vision_heads,
            "num_hidden_layers": layers,
            "downsample": v2,
        },
    )
    stated = {"vision_config": {"num_heads": vision_heads}}
    found = complete(stated, shapes_of(config, rotary=True)).config
    assert found is not None
    assert disagreements(values_of(config), found) == {}


def test_heads_are_undecided_without_tables_and_stated_ones() -> None:
    shapes = shapes_of(tiny_config(), rotary=False)
    assert complete({}, shapes).undecided == ("num_attention_heads", "vision_config.num_heads")
    assert complete({}, shapes).config is None
    stated = {"num_attention_heads": 4, "vision_config": {"num_heads": 2}}
    assert complete(stated, shapes).undecided == ()


def test_tensors_beat_what_is_stated_and_layers_that_are_stated_stay() -> None:
    config = tiny_config()
    stated = values_of(config) | {"vocab_size": 7, "num_attention_heads": 8, "num_hidden_layers": 5}
    found = complete(stated, shapes_of(config, rotary=True)).config
    assert found is not None
    assert (found.vocab_size, found.num_attention_heads, found.num_hidden_layers) == (300, 4, 5)
    assert disagreements(stated, found).keys() == {"vocab_size", "num_attention_heads"}


def test_neither_rotary_tables_nor_absurd_indices_make_layers() -> None:
    config = tiny_config()
    shapes = shapes_of(config, rotary=True)
    shapes["model.layers.7.self_attn.rotary_emb.inv_freq"] = (config.head_dim // 2,)
    shapes["model.layers.1000000000.adapter"] = (1,)
    found = complete(values_of(config), shapes).config
    assert found is not None
    assert found.num_hidden_layers == config.num_hidden_layers


@pytest.mark.parametrize("value", [None, "64", 0, -1, True, 2.5, [64]])
def test_values_of_the_wrong_type_are_as_good_as_absent(value: object) -> None:
    config = tiny_config()
    stated = values_of(config) | {"hidden_size": value, "num_hidden_layers": value, "vision_config": value}
    found = complete(stated, shapes_of(config, rotary=True))
    assert found.undecided == ("vision_config.num_heads",)
