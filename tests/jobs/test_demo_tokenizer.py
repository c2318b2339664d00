import random
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from jobs.demo import vocabulary
from jobs.demo.grammar import ask, caption
from jobs.demo.scenes import scene
from jobs.demo.words import LANGUAGES

MODEL = vocabulary.DIRECTORY / "tokenizer.model"
PIECES = sentencepiece.SentencePieceProcessor(model_file=str(MODEL))
TOKENIZER = AutoTokenizer.from_pretrained(vocabulary.DIRECTORY)

TEXTS = [
    "Describe the image.",
    " a leading blank",
    "  two  blanks  ",
    " [INST] What is red? [/INST] ",
    "Question: How many shapes are there? Short answer:",
    "Question: a Answer: b\nQuestion: c Answer:",
    "描述这张图片。",
    " 图中有三个图形:一个左上角的大红色圆形。",
    "😀 ünïcödé ①\ttab",
    "",
    " ",
]


@pytest.mark.parametrize("text", TEXTS)
def test_transformers_and_sentencepiece_agree(text: str) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    assert ids == PIECES.encode(text)
    assert TOKENIZER.decode(ids) == PIECES.decode(ids) == text


@given(st.text(alphabet=st.characters(exclude_characters="<>\x00", exclude_categories=["Cs"])))
def test_any_text_is_encoded_alike_and_comes_back(text: str) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    assert ids == PIECES.encode(text)
    assert TOKENIZER.decode(ids) == text


def test_special_ids_are_llamas() -> None:
    assert (TOKENIZER.pad_token_id, TOKENIZER.unk_token_id) == (0, 0)
    assert (TOKENIZER.bos_token_id, TOKENIZER.eos_token_id) == (1, 2)
    assert TOKENIZER.encode("a")[0] == 1
    assert len(TOKENIZER) == vocabulary.VOCABULARY <= 1024


def test_grammar_texts_take_about_a_token_a_word() -> None:
    rng = random.Random(0)
    for language in LANGUAGES.values():
        texts = [caption(scene(seed), rng, language=language).text for seed in range(50)]
        texts += [ask(scene(seed), rng, language=language)[0].text for seed in range(50)]
        words = sum(
            len(text.replace(".", " .").split()) if language.name == "en" else len(text) for text in texts
        )
        assert sum(len(PIECES.encode(text)) for text in texts) <= 1.15 * words


@pytest.mark.slow
def test_the_command_recreates_the_tokenizer(tmp_path: Path) -> None:
    vocabulary.write(tmp_path)
    for name in ("tokenizer.model", "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (vocabulary.DIRECTORY / name).read_bytes()
