"""What a model directory says of itself: a config.json that is none is one line that names the file."""

import json
from pathlib import Path

import pytest

from cogbatch.errors import CheckpointError
from cogbatch.model.configuration_cogvlm import CogVLMConfig
from cogbatch.model.directory import read_config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "holds a JSON list, expected an object"),
        (None, "holds a JSON NoneType, expected an object"),
        ({"architectures": 5}, r"describes 5 \(cogvlm\): only CogVLM"),
        ({"architectures": ["LlamaForCausalLM"]}, r"describes LlamaForCausalLM \(cogvlm\): only CogVLM"),
        ({"model_type": ["llama"]}, r"only CogVLM v1 and v2"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0, expected a whole number from 1"),
        ({"num_attention_heads": "32"}, "num_attention_heads is '32', expected a whole number from 1"),
        ({"num_multi_query_heads": 1, "vision_config": "x"}, "is not a CogVLM configuration"),
    ],
)
def test_a_configuration_that_is_none_is_one_line(tmp_path: Path, values: object, message: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=rf"config\.json.*{message}") as caught:
        read_config(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("rms_norm_eps", "x", "a number above 0"),
        ("rms_norm_eps", float("nan"), "a number above 0"),
        ("rope_theta", 0, "a number above 0"),
        ("eos_token_id", "x", "a whole number from 0"),
        ("eos_token_id", -1, "a whole number from 0"),
        ("eos_token_id", [2, -1], "a whole number from 0"),
        ("eos_token_id", [], "a whole number from 0"),
        ("pad_token_id", None, "a whole number from 0"),
        ("hidden_size", None, "a whole number from 1"),
        ("hidden_size", "64", "a whole number from 1"),
        ("hidden_size", [64], "a whole number from 1"),
        ("hidden_size", True, "a whole number from 1"),
        ("hidden_size", 64.0, "a whole number from 1"),
        ("hidden_size", 4097, "a multiple of num_attention_heads, 32"),
        ("num_multi_query_heads", [2], "a whole number from 0"),
        ("num_multi_query_heads", 5, "a divisor of num_attention_heads, 32"),
        ("num_hidden_layers", 1_000_000_000, "a whole number from 1 to 10000"),
        ("num_vision_expert_layers", 1_000_000_000, "a whole number from 0 to 10000"),
        ("tie_word_embeddings", "no", "true or false"),
        ("template_version", ["chat"], "a string"),
        ("rope_inv_freq", [1.0, "x"], "null or a list of numbers"),
        ("vision_config.num_hidden_layers", 1_000_000_000, "a whole number from 1 to 10000"),
        ("vision_config.patch_size", 0, "a whole number from 1"),
        ("vision_config.layer_norm_eps", None, "a number above 0"),
        ("vision_config.num_heads", 15, "a multiple of num_heads, 15"),
        ("vision_config.downsample", 1, "true or false"),
    ],
)
def test_a_field_of_the_wrong_type_or_range_is_named(
    tmp_path: Path, name: str, value: object, expected: str
) -> None:
    complete = json.loads(CogVLMConfig().to_json_string(use_diff=False))
    section, _, key = name.rpartition(".")
    (complete[section] if section else complete)[key] = value
    (tmp_path / "config.json").write_text(json.dumps(complete))
    shown = name if "multiple of num_heads" not in expected else "vision_config.hidden_size"
    with pytest.raises(CheckpointError) as caught:
        read_config(tmp_path)
    assert f"config.json: {shown} is " in str(caught.value)
    assert f", expected {expected}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_wrong_fields_are_one_line(tmp_path: Path) -> None:
    values = {"hidden_size": None, "rms_norm_eps": "x", "vision_config": {"patch_size": -1}}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(
        CheckpointError, match=r"hidden_size is None.*rms_norm_eps is 'x'.*n_config\.patch_size"
    ):
        read_config(tmp_path)


def test_official_values_are_read_as_they_are(tmp_path: Path) -> None:
    values = json.loads(CogVLMConfig().to_json_string(use_diff=False)) | {
        "eos_token_id": [128_001, 128_009],
        "rope_theta": 500_000,
        "num_multi_query_heads": 8,
    }
    (tmp_path / "config.json").write_text(json.dumps(values))
    config = read_config(tmp_path)
    assert (config.eos_token_id, config.rope_theta) == ([128_001, 128_009], 500_000)
    assert config.num_multi_query_heads == 8
