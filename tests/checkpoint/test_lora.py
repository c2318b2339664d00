"""SAT's unmerged LoRA: merged as SAT itself does, rounded once, or refused in one line."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sat_builder import TINY, State, build, config_of, wrap
from torch import Tensor

from cogbatch.checkpoint.convert import convert
from cogbatch.checkpoint.lora import LoraWeight, gather_lora, lora_keys
from cogbatch.checkpoint.manifest import read_manifest
from cogbatch.checkpoint.names import tensor_names
from cogbatch.checkpoint.sat import find_sat_files, load_sat_tensors
from cogbatch.errors import CheckpointError

MODULE = "transformer.layers.0.attention.query_key_value"


def tensors_of(folder: Path) -> State:
    return {name: t for file in folder.glob("*.safetensors") for name, t in load_file(file).items()}


def layer(**changes: Tensor | None) -> State:
    """A wrapped layer [6, 4] of two parts and rank 2; None takes a tensor away."""
    tensors: dict[str, Tensor | None] = {
        "original.weight": torch.ones(6, 4),
        "original.bias": torch.ones(6),
        "matrix_A.0": torch.ones(2, 4),
        "matrix_A.1": torch.ones(2, 4),
        "matrix_B.0": torch.ones(2, 2),
        "matrix_B.1": torch.ones(4, 2),
    }
    tensors |= {name.replace("__", "."): tensor for name, tensor in changes.items()}
    return {f"m.{name}": tensor for name, tensor in tensors.items() if tensor is not None}


def test_merging_gives_the_bits_that_sats_own_merge_gives(golden: Path, tmp_path: Path) -> None:
    unmerged = convert(golden / "tiny-a-lora" / "ckpt", tmp_path / "ours", version="base")
    by_sat = convert(golden / "tiny-a-lora" / "merged_by_sat" / "ckpt", tmp_path / "sats", version="base")
    ours, sats = tensors_of(unmerged.path), tensors_of(by_sat.path)
    assert ours.keys() == sats.keys()
    assert all(torch.equal(ours[name], sats[name]) for name in ours)
    assert unmerged.fingerprint == by_sat.fingerprint


def test_what_was_merged_is_told_by_keys_and_written_down(golden: Path, tmp_path: Path) -> None:
    report = convert(golden / "tiny-a-lora" / "ckpt", tmp_path / "out", version="base")
    manifest = read_manifest(report.path)
    assert manifest is not None
    (lora,) = manifest["merged"]
    assert (lora["what"], lora["rank"], len(lora["tensors"])) == (
        "LoRA",
        4,
        10,
    )  # 3 + 2 layers, qkv and dense
    assert f"{MODULE}.weight" in lora["tensors"]
    assert "merged LoRA of rank 4 into 10 tensors" in report.notes
    # Its model_config.json says use_lora too.
    merged = convert(golden / "tiny-a-lora" / "merged_by_sat" / "ckpt", tmp_path / "m", version="base")
    assert merged.merged == ()


def test_without_merging_unmerged_weights_are_refused(golden: Path, tmp_path: Path) -> None:
    folder = golden / "tiny-a-lora" / "ckpt"
    with pytest.raises(CheckpointError, match=r"unmerged LoRA weights \('.*' and \d+ more\).*--merge-lora"):
        convert(folder, tmp_path / "out", version="base", merge_lora=False)
    assert list(tmp_path.iterdir()) == []
    merged = golden / "tiny-a-lora" / "merged_by_sat" / "ckpt"
    convert(merged, tmp_path / "out", version="base", merge_lora=False)


def test_lora_matrices_are_read_when_asked_for(golden: Path) -> None:
    (file,) = find_sat_files(golden / "tiny-a-lora" / "ckpt").weights
    with pytest.raises(CheckpointError, match="unmerged LoRA"):
        load_sat_tensors(file)
    assert f"{MODULE}.matrix_A.2" in load_sat_tensors(file, lora=True)


def test_the_sum_is_rounded_once() -> None:
    # 1 + 2^-9 + 2^-9 = 1 + 2^-8: exact in float32; each addend alone is lost when rounded to bfloat16.
    lora = LoraWeight(
        torch.ones(1, 1, dtype=torch.bfloat16), (torch.full((2, 1), 2.0**-8),), (torch.ones(1, 2),)
    )
    assert lora.merged(0).item() == 1 + 2.0**-8
    assert (lora.merged(0).dtype, lora.rank, lora.rows) == (torch.float32, 2, (1,))


def test_each_part_has_its_own_matrices_and_the_rank_divides() -> None:
    up = (torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0], [3.0, 0.0]]))
    down = (torch.tensor([[2.0], [4.0]]), torch.tensor([[6.0], [8.0]]))
    lora = LoraWeight(torch.tensor([[10.0], [20.0], [30.0]]), down, up)
    assert lora.merged(0).tolist() == [[10 + 2 / 2]]
    assert lora.merged(1).tolist() == [[20 + 16 / 2], [30 + 18 / 2]]


def test_layers_without_matrices_keep_their_names() -> None:
    plain = {"n.weight": torch.zeros(1), "n.original_weight": torch.zeros(1)}
    gathered = gather_lora(layer() | plain, where="file")
    assert gathered.keys() == {"m.weight", "m.bias", *plain}
    assert isinstance(gathered["m.weight"], LoraWeight)
    assert lora_keys(layer() | plain) == list(layer())


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (layer(matrix_B__1=None), "'m' has .* but no matrix_B.1"),
        (layer(matrix_A__0=None), "'m' has .* but no matrix_A.0"),
        (layer(matrix_A__0=None, matrix_B__0=None), "no matrix_A.0, matrix_B.0"),
        (layer(original__weight=None), "no original.weight"),
        ({"m.original.weight": torch.ones(2, 2)}, "'m' has original.weight but no matrix_A.0, matrix_B.0"),
        (layer() | {"m.weight": torch.ones(6, 4)}, "'m.weight' beside m.matrix_A.0; is it merged or not"),
        (layer(matrix_A__1=torch.ones(2, 5)), r"matrix_A.1 has shape \[2, 5\], expected \[2, 4\]"),
        (layer(matrix_A__1=torch.ones(3, 4)), r"matrix_A.1 has shape \[3, 4\], expected \[2, 4\]"),
        (layer(matrix_A__0=torch.ones(4)), r"matrix_A.0 has shape \[4\], expected two dimensions"),
        (layer(matrix_A__0=torch.ones(0, 4)), r"matrix_A.0 has shape \[0, 4\]"),
        (layer(matrix_B__0=torch.ones(2, 3)), r"matrix_B.0 has shape \[2, 3\], expected \[rows, 2\]"),
        (layer(matrix_B__1=torch.ones(3, 2)), r"matrix_B have 2 \+ 3 rows, original.weight 6"),
        (layer(original__weight=torch.ones(6)), r"original.weight has shape \[6\]"),
    ],
)
def test_what_cannot_be_merged_is_one_line(tensors: State, message: str) -> None:
    with pytest.raises(CheckpointError, match=f"^file: .*{message}") as caught:
        gather_lora(tensors, where="file")
    assert "\n" not in str(caught.value)


def regroup(ranks: list[State]) -> None:
    """One part where there are three: the matrices of another kind of layer."""
    name = next(n for n in tensor_names(config_of(TINY)) if n.sat == f"{MODULE}.weight")
    wrap(ranks[0], name._replace(dim=None), lora_rank=2, num_ranks=1)


def nan_in_matrix(ranks: list[State]) -> None:
    name = next(n for n in tensor_names(config_of(TINY)) if n.sat == f"{MODULE}.weight")
    wrap(ranks[0], name, lora_rank=2, num_ranks=1)
    ranks[0][f"{MODULE}.matrix_A.2"][1, 1] = float("nan")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (regroup, r"LoRA of .* has parts of \[48\] rows, expected \[16, 16, 16\]"),
        (nan_in_matrix, r"mp_rank_00_model_states.pt: '.*query_key_value.weight' holds NaN"),
    ],
)
def test_lora_that_does_not_fit_the_model_leaves_nothing(
    tmp_path: Path, edit: Callable[[list[State]], None], message: str
) -> None:
    folder = build(tmp_path / "sat", edit=edit)
    with pytest.raises(CheckpointError, match=message):
        convert(folder, tmp_path / "made" / "out", version="base")
    assert not (tmp_path / "made").exists() or list((tmp_path / "made").iterdir()) == []
