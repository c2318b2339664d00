"""The name table: complete, one to one, in SAT's order."""

from pathlib import Path

import pytest
import torch

from cogbatch.checkpoint.names import is_rotary, rotary_names, tensor_names
from cogbatch.checkpoint.sat import find_sat_files, load_sat_tensors
from cogbatch.checkpoint.sat_config import from_sat
from cogbatch.model.configuration_cogvlm import CogVLMConfig
from cogbatch.model.modeling_cogvlm import CogVLMForCausalLM

EVERY_GOLDEN = ("tiny-a", "tiny-2", "tiny-a-ds")


def golden_config(golden: Path, name: str) -> tuple[CogVLMConfig, dict[str, torch.Tensor]]:
    files = find_sat_files(golden / name / "ckpt")
    tensors = load_sat_tensors(files.weights[0])
    return from_sat(files.config, keys=tensors, where=files.config_file), tensors


@pytest.mark.parametrize("name", EVERY_GOLDEN)
def test_table_lists_exactly_what_sat_wrote_in_its_order_and_shape(golden: Path, name: str) -> None:
    config, tensors = golden_config(golden, name)
    written = [(key, tuple(tensor.shape)) for key, tensor in tensors.items()]
    assert [(tensor.sat, tensor.shape) for tensor in tensor_names(config)] == written


@pytest.mark.parametrize("name", ["tiny-a", "tiny-2"])
def test_table_lists_exactly_what_the_model_class_holds(golden: Path, name: str) -> None:
    config, _ = golden_config(golden, name)
    with torch.device("meta"):
        model = CogVLMForCausalLM(config)
    held = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    assert {tensor.hf: tensor.shape for tensor in tensor_names(config) if tensor.hf is not None} == held


@pytest.mark.parametrize(("name", "sat", "hf"), [("tiny-a", 76, 75), ("tiny-2", 81, 80)])
def test_counts_are_those_of_the_official_code(golden: Path, name: str, sat: int, hf: int) -> None:
    names = tensor_names(golden_config(golden, name)[0])
    assert (len(names), sum(tensor.hf is not None for tensor in names)) == (sat, hf)


def test_names_are_one_to_one_with_more_than_ten_layers() -> None:
    names = tensor_names(CogVLMConfig(num_hidden_layers=34, num_vision_expert_layers=32))
    assert len({tensor.sat for tensor in names}) == len({tensor.hf for tensor in names}) == len(names)
    mapped = {tensor.sat: tensor.hf for tensor in names}
    up_proj = "model.layers.7.mlp.vision_mlp.up_proj.weight"
    assert mapped["mixins.mlp.vision_dense_h_to_4h_list.7.weight"] == up_proj
    assert "mixins.rotary.vision_dense_list.31.weight" in mapped
    assert "mixins.rotary.vision_dense_list.32.weight" not in mapped
    assert "mixins.mlp.gate_proj.33.weight" in mapped


def test_parameters_of_the_17b_model_are_the_published_number() -> None:
    # THUDM/CogVLM issue 117 prints 17,657,466,368 with LoRA; without it 17,637,948,928 at 224 px.
    config = CogVLMConfig(vision_config={"image_size": 224, "num_positions": 257})
    sizes = (torch.Size(tensor.shape).numel() for tensor in tensor_names(config) if tensor.hf is not None)
    assert sum(sizes) == 17_637_948_928


def test_rotary_names_are_one_per_layer_and_known_as_such() -> None:
    names = rotary_names(CogVLMConfig(num_hidden_layers=3))
    assert names[2] == "model.layers.2.self_attn.rotary_emb.inv_freq"
    assert all(map(is_rotary, names))
    assert not any(is_rotary(tensor.hf or "") for tensor in tensor_names(CogVLMConfig(num_hidden_layers=3)))
