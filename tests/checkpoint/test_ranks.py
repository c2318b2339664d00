"""Laws of model-parallel ranks: merge inverts split, and both agree with what SAT itself wrote."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cogbatch.checkpoint.names import TensorName, tensor_names
from cogbatch.checkpoint.ranks import merge, rank_shape, split
from cogbatch.checkpoint.sat_config import from_sat
from cogbatch.model.configuration_cogvlm import CogVLMConfig

QKV = TensorName("a.query_key_value.weight", "b", (16, 2), 0, (8, 4, 4))


@st.composite
def shared_tensors(draw: st.DrawFn) -> tuple[TensorName, int]:
    """(a tensor of 1 or 2 dimensions that divides over some ranks, their number)."""
    num_ranks = draw(st.sampled_from([1, 2, 3, 4]))
    dim = draw(st.sampled_from([None, 0, 1]))
    sections = tuple(num_ranks * draw(st.integers(1, 3)) for _ in range(draw(st.integers(1, 3))))
    shape = [draw(st.integers(1, 4)), draw(st.integers(1, 4))]
    if dim is not None:
        shape[dim] = sum(sections)
    return TensorName("sat", "hf", tuple(shape), dim, () if dim is None else sections), num_ranks


@given(shared_tensors())
def test_merge_inverts_split(given_tensor: tuple[TensorName, int]) -> None:
    name, num_ranks = given_tensor
    whole = torch.randn(name.shape)
    pieces = split(whole, name, num_ranks)
    assert [tuple(piece.shape) for piece in pieces] == [rank_shape(name, num_ranks)] * num_ranks
    assert torch.equal(merge(pieces, name), whole)


def test_every_rank_holds_its_share_of_q_k_and_v() -> None:
    whole = torch.arange(32).reshape(16, 2)
    first, second = split(whole, QKV, 2)
    assert first[:, 0].tolist() == [0, 2, 4, 6, 16, 18, 24, 26]
    assert second[:, 0].tolist() == [8, 10, 12, 14, 20, 22, 28, 30]


def test_a_section_that_does_not_divide_is_named() -> None:
    with pytest.raises(ValueError, match=r"query_key_value.*8 of dimension 0 cannot be shared by 3 ranks"):
        split(torch.zeros(16, 2), QKV, 3)


@pytest.mark.parametrize(("vocabulary", "dim"), [(999, None), (1000, 0)])
def test_embeddings_are_shared_from_a_thousand_rows_on(vocabulary: int, dim: int | None) -> None:
    names = {name.sat: name for name in tensor_names(CogVLMConfig(vocab_size=vocabulary))}
    assert names["transformer.word_embeddings.weight"].dim == dim
    assert names["mixins.lm.lm_head.weight"].dim == 0


def test_pieces_are_those_that_sat_wrote(golden: Path) -> None:
    folder = golden / "tiny-a-mp2" / "ckpt"
    config = json.loads((folder / "model_config.json").read_text())
    whole = torch.load(golden / "tiny-a" / "ckpt" / "1" / "mp_rank_00_model_states.pt")["module"]
    ranks = [torch.load(folder / "1" / f"mp_rank_0{rank}_model_states.pt")["module"] for rank in range(2)]
    names = tensor_names(from_sat(config, keys=whole, where=folder))
    assert {name.sat for name in names} == set(whole)
    for name in names:
        for written, piece in zip(ranks, split(whole[name.sat], name, 2), strict=True):
            assert torch.equal(written[name.sat], piece), name.sat
        assert torch.equal(merge([written[name.sat] for written in ranks], name), whole[name.sat])
