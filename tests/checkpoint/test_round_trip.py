"""Convert and export undo each other: any geometry, any dtypes, any number of ranks."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from official import make_official, read_tensors
from torch import Tensor

from cogbatch.checkpoint.convert import convert
from cogbatch.checkpoint.export import export_sat
from cogbatch.checkpoint.names import is_rotary, tensor_names
from cogbatch.checkpoint.sat import find_sat_files, load_sat_tensors
from cogbatch.model.configuration_cogvlm import CogVLMConfig
from cogbatch.model.directory import read_config

Converted = Callable[[str], Path]
DEMO = Path(__file__).parents[2] / "jobs" / "demo" / "checkpoint"
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# SAT writes 32,000 or 128,256 entries; what matters is on which side of 1,000 they are.
SMALL, LARGE = (1, 40), (1000, 1040)


@st.composite
def geometries(draw: st.DrawFn) -> tuple[CogVLMConfig, int]:
    """(a configuration that SAT can express, a number of ranks that can share it)."""
    ranks = draw(st.sampled_from([1, 2, 4]))

    def shared(low: int, high: int) -> int:
        return ranks * draw(st.integers(math.ceil(low / ranks), high // ranks))

    v2 = draw(st.booleans())
    kv_heads = shared(ranks, 2 * ranks)
    heads = kv_heads * draw(st.integers(1, 3))
    side, patch = draw(st.integers(2 if v2 else 1, 4)), draw(st.sampled_from([1, 2, 14]))
    vit_heads = shared(ranks, 2 * ranks)
    return (
        CogVLMConfig(
            vocab_size=shared(*draw(st.sampled_from([(ranks, SMALL[1]), LARGE]))),
            hidden_size=heads * draw(st.sampled_from([2, 4, 6])),
            intermediate_size=shared(ranks, 24),
            num_hidden_layers=draw(st.integers(1, 2)),
            num_attention_heads=heads,
            num_multi_query_heads=kv_heads if v2 else heads,
            vision_expert_qkv_bias=v2,
            rope_theta=5e5 if v2 else 1e4,
            rms_norm_eps=draw(st.sampled_from([1e-5, 1e-6])),
            max_position_embeddings=draw(st.integers(1, 9999)),
            template_version=draw(st.sampled_from(["base", "chat", "vqa", "inst"])),
            vision_config={
                "hidden_size": vit_heads * draw(st.integers(1, 3)),
                "image_size": side * patch,
                "in_channels": draw(st.sampled_from([1, 3])),
                "intermediate_size": shared(ranks, 24),
                "layer_norm_eps": draw(st.sampled_from([1e-5, 1e-6])),
                "num_heads": vit_heads,
                "num_hidden_layers": draw(st.integers(1, 2)),
                "num_positions": side**2 + 1,
                "patch_size": patch,
                "downsample": v2,
            },
        ),
        ranks,
    )


def random_state(config: CogVLMConfig, dtypes: tuple[torch.dtype, ...], seed: int = 0) -> dict[str, Tensor]:
    """Hugging Face tensors of the configuration, their dtypes in turn."""
    generator = torch.Generator().manual_seed(seed)
    names = [name for name in tensor_names(config) if name.hf is not None]
    return {
        str(name.hf): torch.randn(name.shape, generator=generator).to(dtypes[i % len(dtypes)])
        for i, name in enumerate(names)
    }


def rank_files(folder: Path) -> list[dict[str, Tensor]]:
    """Of each rank in order, its state dict."""
    iteration = folder / (folder / "latest").read_text()
    files = sorted(iteration.iterdir())
    assert [file.name for file in files] == [f"mp_rank_{i:02d}_model_states.pt" for i in range(len(files))]
    return [torch.load(file, weights_only=True, mmap=True)["module"] for file in files]


def weights(folder: Path) -> dict[str, Tensor]:
    """Of a model directory, without the rotary tables that SAT has once."""
    return {name: tensor for name, tensor in read_tensors(folder).items() if not is_rotary(name)}


def assert_identical(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    """The same names, dtypes, shapes and bits."""
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert tensor.dtype == right[name].dtype, name
        assert torch.equal(tensor, right[name]), name


def assert_round_trip(config: CogVLMConfig, ranks: int, dtypes: tuple[torch.dtype, ...]) -> None:
    """state -> SAT -> state', and SAT -> directory -> SAT'."""
    state = random_state(config, dtypes)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export_sat(state, folder / "sat", config=config, model_parallel_size=ranks)
        convert(folder / "sat", folder / "hf")
        assert_identical(weights(folder / "hf"), state)
        assert plain(read_config(folder / "hf")) == plain(config)

        export_sat(folder / "hf", folder / "again", model_parallel_size=ranks)
        pairs = zip(rank_files(folder / "again"), rank_files(folder / "sat"), strict=True)
        for again, once in pairs:
            assert list(again) == list(once)
            assert_identical(again, once)
        assert_same_json(folder / "again", folder / "sat")


def plain(config: CogVLMConfig) -> dict[str, Any]:
    values = {name: getattr(config, name) for name in CogVLMConfig.__annotations__}
    vision = values.pop("vision_config")
    return values | {name: getattr(vision, name) for name in type(vision).__annotations__}


def assert_same_json(left: Path, right: Path) -> None:
    texts = [(folder / "model_config.json").read_text() for folder in (left, right)]
    assert texts[0] == texts[1]


@settings(max_examples=12, deadline=None)
@given(geometries(), st.lists(st.sampled_from(DTYPES), min_size=1, max_size=3, unique=True))
def test_any_geometry_comes_back_from_any_number_of_ranks(
    geometry: tuple[CogVLMConfig, int], dtypes: list[torch.dtype]
) -> None:
    assert_round_trip(*geometry, tuple(dtypes))


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(geometries(), st.lists(st.sampled_from(DTYPES), min_size=1, max_size=3, unique=True))
def test_many_geometries_come_back_from_any_number_of_ranks(
    geometry: tuple[CogVLMConfig, int], dtypes: list[torch.dtype]
) -> None:
    assert_round_trip(*geometry, tuple(dtypes))


def test_layers_beyond_the_32_experts_of_v1_come_back() -> None:
    vision = {"hidden_size": 2, "image_size": 2, "intermediate_size": 2, "num_heads": 2, "patch_size": 1}
    config = CogVLMConfig(
        vocab_size=1002,
        hidden_size=4,
        intermediate_size=2,
        num_hidden_layers=34,
        num_vision_expert_layers=32,
        num_attention_heads=2,
        vision_config={**vision, "num_hidden_layers": 1, "num_positions": 5},
    )
    assert_round_trip(config, 2, (torch.bfloat16,))


@pytest.mark.parametrize("inv_freq", ["recompute", "keep"])
@pytest.mark.parametrize(
    ("name", "ranks"),
    [("tiny-a", 4), ("tiny-a-mp2", 2), ("tiny-a-ds", 1), ("tiny-2", 2)],
)
def test_what_sat_wrote_comes_back(
    golden: Path, tmp_path: Path, name: str, ranks: int, inv_freq: Any
) -> None:
    """tiny-a-ds is in bf16, rotary table included: computed afresh it is rounded as SAT rounded it."""
    source = golden / name / "ckpt"
    stored = [load_sat_tensors(file) for file in find_sat_files(source).weights]
    convert(source, tmp_path / "hf", version="base", inv_freq=inv_freq)
    for size in {len(stored), ranks}:
        export_sat(tmp_path / "hf", tmp_path / f"sat{size}", model_parallel_size=size)
    convert(tmp_path / f"sat{ranks}", tmp_path / "back", inv_freq=inv_freq)
    assert_identical(read_tensors(tmp_path / "back"), read_tensors(tmp_path / "hf"))
    for written, rank in zip(rank_files(tmp_path / f"sat{len(stored)}"), stored, strict=True):
        assert_identical(written, rank)


@pytest.mark.parametrize("name", ["tiny-a", "tiny-2"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_official_directories_come_back_from_ranks(
    converted: Converted, tmp_path: Path, name: str, dtype: str
) -> None:
    official = make_official(converted(name), tmp_path / "official", dtype=dtype)
    export_sat(official, tmp_path / "sat", model_parallel_size=2)
    convert(tmp_path / "sat", tmp_path / "back")
    assert_identical(weights(tmp_path / "back"), weights(official))
    for rank in rank_files(tmp_path / "sat"):
        assert {tensor.dtype for tensor in rank.values()} == {getattr(torch, dtype)}


def test_the_demo_checkpoint_comes_back(tmp_path: Path) -> None:
    convert(DEMO, tmp_path / "hf")
    export_sat(tmp_path / "hf", tmp_path / "sat")
    (written,), (stored,) = rank_files(tmp_path / "sat"), rank_files(DEMO)
    assert list(written) == list(stored)
    assert_identical(written, stored)
    assert_same_json(tmp_path / "sat", DEMO)
