"""Official Hugging Face directories, unchanged: same logits and candidates as our own conversion."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cogbatch import Engine, GenerationParams, GenerationRequest
from cogbatch.checkpoint.directory import prepare_model
from cogbatch.engine.loading import load_model
from tests.checkpoint.official import make_official, was_run, write_json
from tests.tiny import ByteTokenizer

Converted = Callable[[str], Path]
CPU = torch.device("cpu")


def snapshot(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("name", ["tiny-a", "tiny-2"])
def test_official_directories_give_the_logits_of_a_conversion(
    converted: Converted, golden: Path, tmp_path: Path, name: str
) -> None:
    folder = make_official(converted(name), tmp_path / "official")
    before = snapshot(folder)
    official = load_model(folder, dtype="auto", device=CPU)
    ours = load_model(converted(name), dtype="auto", device=CPU)
    inputs = load_file(golden / name / "inputs.safetensors")
    given = {
        "input_ids": inputs["chat.input_ids"],
        "token_type_ids": inputs["chat.image_embed_mask"].long(),
        "pixel_values": inputs["chat.pixel_values"],
    }
    with torch.no_grad():
        assert torch.equal(official(**given).logits, ours(**given).logits)
    assert snapshot(folder) == before
    assert not was_run(folder)


@pytest.mark.parametrize("name", ["tiny-a", "tiny-2"])
def test_prepare_model_and_engine_take_an_official_directory_as_it_is(
    converted: Converted, golden: Path, tmp_path: Path, name: str
) -> None:
    folder = make_official(converted(name), tmp_path / "official", dtype="bfloat16")
    ready = prepare_model(folder)
    assert (ready.path, ready.template_version, ready.has_tokenizer) == (folder, "chat", False)
    model = load_model(ready.path, dtype="auto", device=CPU)
    assert model.dtype == torch.bfloat16
    request = GenerationRequest("a", str(golden / "image.png"), "Hi")
    (output,) = Engine(model.float(), ByteTokenizer()).generate([request], GenerationParams(max_new_tokens=4))
    assert output.error is None
    assert not was_run(folder)


@pytest.mark.parametrize("explicit", [{"num_multi_query_heads": 2}, {"rope_theta": 500000.0}])
def test_an_official_directory_saved_again_may_be_explicit_in_part(
    converted: Converted, tmp_path: Path, explicit: dict[str, object]
) -> None:
    folder = make_official(converted("tiny-2"), tmp_path / "official")
    values = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", values | explicit)
    config = load_model(folder, dtype="auto", device=CPU).config
    assert (config.num_multi_query_heads, config.rope_theta, config.vision_config.downsample) == (
        2,
        500000.0,
        True,
    )


def test_weights_that_the_index_does_not_name_are_not_looked_at(converted: Converted, tmp_path: Path) -> None:
    folder = make_official(converted("tiny-a"), tmp_path / "official")
    (folder / "model-00001-of-00009.safetensors").write_bytes(b"left over from an interrupted download")
    assert load_model(folder, dtype="auto", device=CPU).config.num_hidden_layers == 3
