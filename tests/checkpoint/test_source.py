"""The plain tensors of any SAT checkpoint: ranks put together, LoRA merged, a few rows at a time."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sat_builder import (
    TINY,
    TINY_2,
    State,
    build,
    config_of,
    in_ranks,
    merged_by_hand,
    whole_state,
    wrap,
    write_sat,
)

from cogbatch.checkpoint.names import TensorName, tensor_names
from cogbatch.checkpoint.ranks import merge
from cogbatch.checkpoint.sat import find_sat_files
from cogbatch.checkpoint.source import SatSource, check_source, is_finite, open_source
from cogbatch.errors import CheckpointError

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
NAMES = tensor_names(config_of(TINY))


def opened(folder: Path, *, names: tuple[TensorName, ...] = NAMES, **options: Any) -> SatSource:
    source = open_source(find_sat_files(folder), **options)
    check_source(source, names)
    return source


def whole(source: SatSource, name: TensorName, *, dtype: torch.dtype) -> torch.Tensor:
    return torch.cat([piece.flatten() for piece in source.pieces(name, dtype=dtype)]).view(name.shape)


@settings(deadline=None, max_examples=15)
@given(
    values=st.sampled_from([TINY, TINY_2]),
    num_ranks=st.sampled_from([1, 2, 4]),
    stored=st.sampled_from(FLOATS),
    target=st.sampled_from(FLOATS),
    lora_rank=st.integers(1, 11),
    wrapped_layers=st.sets(st.integers(0, 1)),
    block_bytes=st.integers(1, 4000),
)
def test_whatever_the_layout_the_whole_tensors_come_out(
    values: dict[str, Any],
    num_ranks: int,
    stored: torch.dtype,
    target: torch.dtype,
    lora_rank: int,
    wrapped_layers: set[int],
    block_bytes: int,
) -> None:
    names = tensor_names(config_of(values))
    plain = whole_state(names, dtype=stored)
    ranks = in_ranks(plain, names, num_ranks)
    wrapped = [
        name
        for name in names
        if any(f"layers.{layer}.attention" in name.sat for layer in wrapped_layers)
        and name.sat.endswith("weight")
    ]
    for number, rank in enumerate(ranks):
        for name in wrapped:
            wrap(rank, name, lora_rank=lora_rank, num_ranks=num_ranks, seed=number)
    expected = {name.sat: plain[name.sat].to(target) for name in names}
    for name in wrapped:
        expected[name.sat] = merge([merged_by_hand(rank, name, dtype=target) for rank in ranks], name)
    with TemporaryDirectory() as folder:
        source = opened(write_sat(Path(folder) / "sat", values, ranks), names=names)
        source = replace(source, block_bytes=block_bytes)
        for name in names:
            assert torch.equal(whole(source, name, dtype=target), expected[name.sat]), name.sat
        found = [item.get("count") or (item["rank"], len(item["tensors"])) for item in source.merged]
    assert found == [num_ranks] * (num_ranks > 1) + [(lora_rank, len(wrapped))] * bool(wrapped)


def test_pieces_are_a_few_rows_each(tmp_path: Path) -> None:
    source = replace(opened(build(tmp_path / "sat", num_ranks=2)), block_bytes=16 * 4 * 5)
    name = next(name for name in NAMES if name.sat == "transformer.word_embeddings.weight")
    sizes = [len(piece) for piece in source.pieces(name, dtype=torch.float32)]
    assert sizes == 2 * ([5] * 100 + [2])  # 1004 rows over 2 ranks, 5 at a time


@pytest.mark.parametrize("key", ["mixins.mlp.gate_proj.1.weight", "mixins.rotary.vision_dense_list.0.weight"])
def test_a_value_that_is_no_number_is_named_with_its_rank(tmp_path: Path, key: str) -> None:
    def spoil(ranks: list[State]) -> None:
        ranks[1][key].view(-1)[-1] = float("nan")

    source = opened(build(tmp_path / "sat", num_ranks=2, edit=spoil))
    name = next(name for name in NAMES if name.sat == key)
    with pytest.raises(CheckpointError, match=rf"mp_rank_01_model_states\.pt: '{key}' holds NaN"):
        list(source.pieces(name, dtype=torch.float32))


def add_noise(ranks: list[State]) -> None:
    ranks[1]["transformer.final_layernorm.weight"][3] += 1e-3


def drop_key(ranks: list[State]) -> None:
    del ranks[1]["mixins.eva.boi"]


def other_dtype(ranks: list[State]) -> None:
    ranks[1]["mixins.eva.boi"] = ranks[1]["mixins.eva.boi"].bfloat16()


def wrap_one_rank(ranks: list[State]) -> None:
    name = next(name for name in NAMES if name.sat == "transformer.layers.0.attention.dense.weight")
    wrap(ranks[1], name, lora_rank=2, num_ranks=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (add_noise, "'transformer.final_layernorm.weight' is not rank 0's, though every rank has the whole"),
        (drop_key, r"'mixins.eva.boi' \(plain, torch.float32\) is not the same in rank 0"),
        (other_dtype, "'mixins.eva.boi' .* is not the same in rank 0"),
        (wrap_one_rank, "'transformer.layers.0.attention.dense.weight' .* is not the same in rank 0"),
    ],
)
def test_ranks_of_different_runs_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    folder = build(tmp_path / "sat", num_ranks=2, edit=change)
    with pytest.raises(CheckpointError, match=rf"mp_rank_01_model_states\.pt: {message}.*different runs\?"):
        opened(folder)


def test_ranks_saved_at_different_steps_are_refused(tmp_path: Path) -> None:
    ranks = in_ranks(whole_state(NAMES, dtype=torch.float32), NAMES, 2)
    first = write_sat(tmp_path / "a", TINY, ranks, iteration="800", global_steps=800)
    later = write_sat(tmp_path / "b", TINY, ranks, iteration="800", global_steps=1600)
    opened(first)
    file = "800/mp_rank_01_model_states.pt"
    (first / file).write_bytes((later / file).read_bytes())
    with pytest.raises(CheckpointError, match=r"mp_rank_01.*: global_steps is 1600, but 800 in rank 0"):
        opened(first)


def test_a_nan_in_every_rank_is_the_same_in_every_rank(tmp_path: Path) -> None:
    def spoil(ranks: list[State]) -> None:
        for rank in ranks:
            rank["mixins.eva.eoi"].fill_(float("nan"))

    opened(build(tmp_path / "sat", num_ranks=2, edit=spoil))


def test_shapes_are_those_of_a_rank(tmp_path: Path) -> None:
    def cut(ranks: list[State]) -> None:
        ranks[1]["mixins.lm.lm_head.weight"] = ranks[1]["mixins.lm.lm_head.weight"][:-1].clone()

    folder = build(tmp_path / "sat", num_ranks=2, edit=cut)
    with pytest.raises(
        CheckpointError, match=r"mp_rank_01.*lm_head.weight' has shape \[501, 16\].*\[502, 16\] for each of 2"
    ):
        opened(folder)


def test_sizes_that_ranks_cannot_share_are_named(tmp_path: Path) -> None:
    ranks = in_ranks(whole_state(NAMES, dtype=torch.float32), NAMES, 1)
    folder = write_sat(tmp_path / "sat", TINY, ranks * 3)
    with pytest.raises(CheckpointError, match="1004 of dimension 0 cannot be shared by 3 ranks"):
        opened(folder)


@given(
    values=st.lists(st.floats(width=16), min_size=1, max_size=9),
    dtype=st.sampled_from(FLOATS),
    scale=st.sampled_from([1.0, 3e38]),
)
def test_finite_means_what_torch_means(values: list[float], dtype: torch.dtype, scale: float) -> None:
    tensor = (torch.tensor(values) * scale).to(dtype)
    assert is_finite(tensor) == bool(torch.isfinite(tensor).all())
