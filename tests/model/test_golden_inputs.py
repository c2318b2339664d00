"""Ids, positions, types and pixels of every template are those that the official SAT code made."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from cogbatch.model.decoder import image_positions
from cogbatch.model.processing_cogvlm import encode_prompt, preprocess_image
from cogbatch.model.templates import TEMPLATE_NAMES, render_prompt
from tests.tiny import ByteTokenizer

GOLDEN = Path(__file__).parents[1] / "golden"
# item -> (SAT's name of the template, history, question), as the prompts of meta.json were made
ITEMS = {
    "chat": ("chat", (), "What is this?"),
    "chat2": ("chat", (("What is this?", "A cat."),), "And now?"),
    "vqa": ("vqa", (), "How many?"),
    "base": ("base", (), "A photo"),
}


@pytest.fixture(params=["tiny-a", "tiny-2"])
def fixture(request: pytest.FixtureRequest) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    folder = GOLDEN / request.param
    return load_file(folder / "inputs.safetensors"), json.loads((folder / "meta.json").read_text())["prompts"]


Fixture = tuple[dict[str, torch.Tensor], dict[str, str]]


@pytest.mark.parametrize("item", list(ITEMS))
def test_questions_become_the_ids_of_sat(fixture: Fixture, item: str) -> None:
    inputs, prompts = fixture
    version, history, query = ITEMS[item]
    text = render_prompt(TEMPLATE_NAMES[version], query, history)
    assert text == prompts[item].removeprefix("<EOI>")
    types = inputs[f"{item}.image_embed_mask"]
    ids, made_types = encode_prompt(
        ByteTokenizer(), text, bos_token_id=1, pad_token_id=0, num_image_tokens=int(types.sum())
    )
    assert [ids] == inputs[f"{item}.input_ids"].tolist()
    assert [made_types] == types.tolist()


@pytest.mark.parametrize("item", list(ITEMS))
def test_ids_of_sat_read_back_as_the_prompt(fixture: Fixture, item: str) -> None:
    inputs, prompts = fixture
    text_ids = inputs[f"{item}.input_ids"][inputs[f"{item}.image_embed_mask"] == 0].tolist()[1:]
    assert "<EOI>" + ByteTokenizer().decode(text_ids) == prompts[item]


@pytest.mark.parametrize("item", [*ITEMS, "text"])
def test_positions_are_those_of_sat(fixture: Fixture, item: str) -> None:
    inputs, _ = fixture
    positions = image_positions(inputs[f"{item}.image_embed_mask"])
    assert positions.equal(inputs[f"{item}.position_ids"])


def test_pixels_are_those_of_sat(fixture: Fixture) -> None:
    inputs, _ = fixture
    pixels = preprocess_image(Image.open(GOLDEN / "image.png"), 56)
    torch.testing.assert_close(pixels[None], inputs["chat.pixel_values"], atol=1e-6, rtol=0)


def test_sat_chat_old_is_the_official_chat() -> None:
    assert (
        render_prompt(TEMPLATE_NAMES["chat_old"], "q", (("a", "b"),))
        == "Question: a Answer: b\nQuestion: q Answer:"
    )
