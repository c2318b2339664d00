"""Templates and pixels."""

import numpy as np
import pytest
import torch
from PIL import Image

from cogbatch.model.processing_cogvlm import (
    CogVLMImageProcessor,
    CogVLMProcessor,
    preprocess_image,
)
from cogbatch.model.templates import SEPARATORS, render_prompt
from tests.tiny import ByteTokenizer, tiny_model

HISTORY = (("What is this?", "A cat."),)


@pytest.mark.parametrize(
    ("template", "alone", "with_history"),
    [
        ("base", "And now?", "And now?"),
        (
            "vqa",
            "Question: And now? Short answer:",
            "Question: What is this? Short answer: A cat.\nQuestion: And now? Short answer:",
        ),
        (
            "chat",
            "Question: And now? Answer:",
            "Question: What is this? Answer: A cat.\nQuestion: And now? Answer:",
        ),
        (
            "inst",
            " [INST] And now? [/INST] ",
            " [INST] What is this? [/INST] A cat. [INST] And now? [/INST] ",
        ),
    ],
)
def test_templates_are_those_of_sat(template: str, alone: str, with_history: str) -> None:
    assert render_prompt(template, "And now?") == alone
    assert render_prompt(template, "And now?", HISTORY) == with_history
    assert alone.rstrip().endswith(SEPARATORS[template] or "And now?")


def test_unknown_template_is_named() -> None:
    with pytest.raises(ValueError, match="'chat_old': expected one of base, vqa, chat, inst"):
        render_prompt("chat_old", "x")


def test_pixels_are_normalised_by_clips_constants() -> None:
    white = preprocess_image(Image.new("RGB", (20, 10), "white"), 14)
    assert white.shape == (3, 14, 14)
    expected = (1 - np.array([0.48145466, 0.4578275, 0.40821073])) / np.array(
        [0.26862954, 0.26130258, 0.27577711]
    )
    torch.testing.assert_close(white[:, 0, 0], torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("v2", [False, True])
def test_conversation_inputs_mark_bos_image_and_text(v2: bool) -> None:
    model = tiny_model(v2=v2)
    inputs = model.build_conversation_input_ids(
        ByteTokenizer(), query="Hi", images=[Image.new("RGB", (9, 9))]
    )
    image = 4 + 2 if v2 else 16 + 2
    assert inputs["token_type_ids"].tolist() == [0] + [1] * image + [0, 0]
    assert inputs["input_ids"].tolist() == [1] + [0] * image + [3 + ord("H"), 3 + ord("i")]
    assert inputs["images"][0].shape == (3, 56, 56)
    text_only = model.build_conversation_input_ids(ByteTokenizer(), query="Hi", template_version="vqa")
    assert text_only["images"] == []
    assert text_only["token_type_ids"].sum() == 0


def test_more_than_one_image_is_an_error() -> None:
    picture = Image.new("RGB", (9, 9))
    with pytest.raises(ValueError, match="at most one image a prompt, got 2"):
        tiny_model().build_conversation_input_ids(ByteTokenizer(), query="Hi", images=[picture, picture])


def processor(template: str = "chat") -> CogVLMProcessor:
    made = CogVLMProcessor.__new__(CogVLMProcessor)  # ProcessorMixin takes transformers' tokenizers only
    made.image_processor, made.tokenizer = CogVLMImageProcessor(image_size=56), ByteTokenizer()
    made.num_image_tokens, made.template_version = 18, template
    return made


def test_a_batch_is_padded_in_front_and_keeps_what_each_row_is() -> None:
    picture = Image.new("RGB", (9, 9))
    batch = processor()(images=[picture, None], text=["Hi", "And a longer one?"])
    alone = [processor()(images=picture, text="Hi"), processor()(text="And a longer one?")]
    assert batch["pixel_values"].shape == (1, 3, 56, 56)
    assert "pixel_values" not in alone[1]
    for row, single in enumerate(alone):
        real = batch["attention_mask"][row] == 1
        assert batch["input_ids"][row][real].equal(single["input_ids"][0])
        assert batch["token_type_ids"][row][real].equal(single["token_type_ids"][0])
        assert batch["attention_mask"][row].diff().min() >= 0  # zeros in front only
    assert batch["attention_mask"].min() == 0


@pytest.mark.parametrize("template", list(SEPARATORS))
def test_every_template_takes_history(template: str) -> None:
    ids = processor(template)(text="And now?", history=[HISTORY])["input_ids"][0].tolist()
    assert ByteTokenizer().decode(ids[1:]) == render_prompt(template, "And now?", HISTORY)
    overridden = processor("base")(text="And now?", history=[HISTORY], template_version=template)
    assert overridden["input_ids"][0].tolist() == ids
