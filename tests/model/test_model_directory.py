"""What a model directory says of itself: a config.json that is none is one line that names the file."""

import json
from pathlib import Path

import pytest

from cogbatch.errors import CheckpointError
from cogbatch.model.directory import read_config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "holds a JSON list, expected an object"),
        (None, "holds a JSON NoneType, expected an object"),
        ({"architectures": 5}, r"describes 5 \(cogvlm\): only CogVLM"),
        ({"architectures": ["LlamaForCausalLM"]}, r"describes LlamaForCausalLM \(cogvlm\): only CogVLM"),
        ({"model_type": ["llama"]}, r"only CogVLM v1 and v2"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0, expected at least 1"),
        ({"num_attention_heads": "32"}, "num_attention_heads is '32', expected at least 1"),
        ({"num_multi_query_heads": 1, "vision_config": "x"}, "is not a CogVLM configuration"),
    ],
)
def test_a_configuration_that_is_none_is_one_line(tmp_path: Path, values: object, message: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=rf"config\.json.*{message}") as caught:
        read_config(tmp_path)
    assert "\n" not in str(caught.value)
