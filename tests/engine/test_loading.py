"""Model directories into memory: converted and official ones, and what is said about bad ones."""

import json
from pathlib import Path

import pytest
import torch

from cogbatch import Engine, GenerationParams, GenerationRequest
from cogbatch.engine.loading import load_model
from cogbatch.errors import CheckpointError
from cogbatch.model.directory import read_config
from cogbatch.model.modeling_cogvlm import CogVLMForCausalLM
from tests.tiny import ByteTokenizer, tiny_model

# Keys that official config.json files do not have: their code's class defaults stand in.
NOT_OFFICIAL = (
    "model_type",
    "num_multi_query_heads",
    "num_vision_expert_layers",
    "vision_expert_qkv_bias",
    "rope_theta",
    "rope_inv_freq",
    "rope_dtype",
    "tie_word_embeddings",
)
CPU = torch.device("cpu")


def saved(model: CogVLMForCausalLM, folder: Path, *, official: bool = False) -> Path:
    model.save_pretrained(folder)
    if official:
        file = folder / "config.json"
        values = json.loads(file.read_text())
        for key in NOT_OFFICIAL:
            values.pop(key, None)
        for key in ("downsample", "model_type"):
            values["vision_config"].pop(key, None)
        file.write_text(json.dumps(values))
    return folder


def answers(engine: Engine) -> list[tuple[int, ...]]:
    params = GenerationParams(num_candidates=3, max_new_tokens=8)
    (output,) = engine.generate([GenerationRequest("a", None, "Hi")], params)
    return [candidate.token_ids for candidate in output.candidates]


@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize("v2", [False, True])
def test_a_loaded_directory_answers_like_the_model_in_it(tmp_path: Path, v2: bool, official: bool) -> None:
    model = tiny_model(v2=v2)
    folder = saved(model, tmp_path / "model", official=official)
    config = read_config(folder)
    for key in ("num_multi_query_heads", "vision_expert_qkv_bias", "rope_theta", "num_vision_expert_layers"):
        assert getattr(config, key) == getattr(model.config, key), key
    assert config.vision_config.downsample == v2
    loaded = Engine(load_model(folder, dtype="auto", device=CPU), ByteTokenizer())
    assert answers(loaded) == answers(Engine(model, ByteTokenizer()))


def test_rotary_buffers_of_official_weights_are_ignored(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = saved(tiny_model(), tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    for layer in range(2):
        weights[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.full((8,), float("nan"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert answers(Engine(load_model(folder, dtype="auto", device=CPU), ByteTokenizer())) == answers(
        Engine(tiny_model(), ByteTokenizer())
    )


def test_dtype_is_the_directorys_own_or_the_one_asked_for(tmp_path: Path) -> None:
    folder = saved(tiny_model(dtype=torch.bfloat16), tmp_path / "model")
    assert load_model(folder, dtype="auto", device=CPU).dtype == torch.bfloat16
    assert load_model(folder, dtype="float32", device=CPU).dtype == torch.float32
    with pytest.raises(ValueError, match="dtype is 'int8': expected auto, float32"):
        load_model(folder, dtype="int8", device=CPU)


def test_missing_tensors_are_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = saved(tiny_model(), tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["model.vision.boi"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 missing tensors: model\.vision\.boi"):
        load_model(folder, dtype="auto", device=CPU)


def test_bad_directories_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        load_model(tmp_path / "absent", dtype="auto", device=CPU)
    folder = saved(tiny_model(), tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"has no tokenizer .*pass one"):
        Engine.from_pretrained(folder)
    (folder / "config.json").write_text(
        json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]})
    )
    with pytest.raises(CheckpointError, match=r"describes LlamaForCausalLM \(llama\): only CogVLM"):
        load_model(folder, dtype="auto", device=CPU)
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
        load_model(folder, dtype="auto", device=CPU)
