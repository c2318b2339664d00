"""Back to SAT: the same bytes of meaning in both directions."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cogbatch.checkpoint.convert import convert
from cogbatch.checkpoint.export import export_sat, to_sat_state
from cogbatch.errors import CheckpointError
from cogbatch.model.configuration_cogvlm import CogVLMConfig
from cogbatch.model.modeling_cogvlm import CogVLMForCausalLM

Converted = Callable[[str], Path]
RANK = "mp_rank_00_model_states.pt"


def tiny_model() -> CogVLMForCausalLM:
    torch.manual_seed(0)
    config = CogVLMConfig(
        vocab_size=80,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        template_version="base",
        vision_config={
            "hidden_size": 24,
            "image_size": 28,
            "intermediate_size": 40,
            "num_heads": 2,
            "num_hidden_layers": 1,
            "num_positions": 5,
        },
    )
    return CogVLMForCausalLM(config)


@pytest.mark.parametrize("name", ["tiny-a", "tiny-2"])
def test_export_of_a_conversion_is_the_source(
    converted: Converted, golden: Path, tmp_path: Path, name: str
) -> None:
    export_sat(converted(name), tmp_path / "sat")
    source = torch.load(golden / name / "ckpt" / "1" / RANK)["module"]
    written = torch.load(tmp_path / "sat" / "1" / RANK, weights_only=True)
    assert list(written) == ["module"]
    assert list(written["module"]) == list(source)
    assert all(torch.equal(written["module"][key], source[key]) for key in source)
    assert (tmp_path / "sat" / "latest").read_bytes() == b"1"
    values = json.loads((tmp_path / "sat" / "model_config.json").read_text())
    assert values.pop("text_processor_version") == "chat_old"
    assert values == json.loads((golden / name / "ckpt" / "model_config.json").read_text())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_conversion_of_an_export_is_the_model(tmp_path: Path, dtype: torch.dtype) -> None:
    model = tiny_model().to(dtype)
    export_sat(model.state_dict(), tmp_path / "sat", config=model.config, iteration=7)
    report = convert(tmp_path / "sat", tmp_path / "hf")
    assert report.template_version == "base"
    written = load_file(tmp_path / "hf" / "model-00001-of-00001.safetensors")
    state = model.state_dict()
    assert written.keys() - state.keys() == {
        f"model.layers.{i}.self_attn.rotary_emb.inv_freq" for i in (0, 1)
    }
    assert all(torch.equal(written[name], state[name]) for name in state)
    module = torch.load(tmp_path / "sat" / "7" / RANK, weights_only=True)["module"]
    assert {tensor.dtype for tensor in module.values()} == {dtype}


def test_incomplete_and_foreign_states_are_named() -> None:
    model = tiny_model()
    state = model.state_dict()
    with pytest.raises(CheckpointError, match=r"no name for: lora\.weight"):
        to_sat_state({**state, "lora.weight": torch.zeros(1)}, model.config)
    with pytest.raises(CheckpointError, match=r"lm_head.weight' has shape \[3\]"):
        to_sat_state({**state, "lm_head.weight": torch.zeros(3)}, model.config)
    del state["model.norm.weight"]
    with pytest.raises(CheckpointError, match=r"lacks model\.norm\.weight"):
        to_sat_state(state, model.config)


def test_values_that_sat_hard_codes_must_be_its_own(tmp_path: Path) -> None:
    model = tiny_model()
    model.config.rope_theta = 777.0
    with pytest.raises(CheckpointError, match=r"rope_theta is 777\.0"):
        export_sat(model.state_dict(), tmp_path / "sat", config=model.config)
    assert not (tmp_path / "sat").exists()


def test_wrong_arguments_are_value_errors(converted: Converted, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="iteration is 0"):
        export_sat(converted("tiny-a"), tmp_path / "sat", iteration=0)
    with pytest.raises(ValueError, match="config must be given with a state dict"):
        export_sat({}, tmp_path / "sat")


def test_existing_directories_are_kept(converted: Converted, tmp_path: Path) -> None:
    export_sat(converted("tiny-a"), tmp_path / "sat")
    with pytest.raises(CheckpointError, match="not empty"):
        export_sat(converted("tiny-a"), tmp_path / "sat")
    export_sat(converted("tiny-a"), tmp_path / "sat", overwrite=True)
