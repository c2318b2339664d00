"""Tokenizers beside a model: sentencepiece's own ids, the model's special ids, or one line why not."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor

from cogbatch.checkpoint.convert import convert
from cogbatch.checkpoint.tokenizer import install_tokenizer, template_texts
from cogbatch.errors import CheckpointError
from cogbatch.model.configuration_cogvlm import CogVLMConfig
from cogbatch.model.directory import load_tokenizer

SatCopy = Callable[..., Path]


def model_config(**values: int | list[int]) -> CogVLMConfig:
    return CogVLMConfig(**({"vocab_size": 512} | values))


@pytest.mark.parametrize("with_config", [True, False])
def test_ids_are_sentencepieces_own_on_every_template(
    tokenizer_dir: Path, tmp_path: Path, with_config: bool
) -> None:
    if not with_config:
        (tokenizer_dir / "tokenizer_config.json").unlink()
    out = tmp_path / "out"
    out.mkdir()
    note = install_tokenizer(tokenizer_dir, out, model_config())
    assert note is not None  # transformers' own reading drops the leading blank of " [INST] "
    tokenizer = load_tokenizer(out, shown_as=out)
    reference = SentencePieceProcessor(model_file=str(out / "tokenizer.model"))
    for text in (*template_texts(), "", " ", "   a", "\n", " 图"):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert ids == reference.encode(text), text
        assert tokenizer.decode(ids) == reference.decode(ids), text
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 0)


def test_installing_an_installed_tokenizer_changes_nothing(tokenizer_dir: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    install_tokenizer(tokenizer_dir, first, model_config())
    assert install_tokenizer(first, second, model_config()) is None
    assert {f.name: f.read_bytes() for f in first.iterdir()} == {
        f.name: f.read_bytes() for f in second.iterdir()
    }


def test_a_tokenizer_larger_than_the_model_is_refused(tokenizer_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="ids up to 399, but the model knows 300"):
        install_tokenizer(tokenizer_dir, tmp_path, model_config(vocab_size=300))


def test_special_ids_that_disagree_are_refused(tokenizer_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="eos_token_id is 2 in the tokenizer, but 7 in the model"):
        install_tokenizer(tokenizer_dir, tmp_path, model_config(eos_token_id=7))


def test_one_of_several_end_tokens_is_enough(tokenizer_dir: Path, tmp_path: Path) -> None:
    install_tokenizer(tokenizer_dir, tmp_path, model_config(eos_token_id=[2, 7]))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("tokenizer.model", b"not a model", "does not load|not a sentencepiece model"),
        ("tokenizer_config.json", b'{"auto_map": {"AutoTokenizer": ["evil.Tok", null]}}', "does not load"),
    ],
)
def test_tokenizers_that_do_not_load_are_one_line(
    tokenizer_dir: Path, tmp_path: Path, file: str, content: bytes, message: str
) -> None:
    (tokenizer_dir / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        install_tokenizer(tokenizer_dir, tmp_path, model_config())
    assert "\n" not in str(caught.value)


def test_sources_without_a_tokenizer_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"no tokenizer\.model or tokenizer\.json"):
        install_tokenizer(tmp_path / "empty", tmp_path, model_config())
    with pytest.raises(CheckpointError, match="no such directory"):
        install_tokenizer(tmp_path / "nothing", tmp_path, model_config())


def test_converted_directory_carries_its_tokenizer(golden: Path, tokenizer_dir: Path, tmp_path: Path) -> None:
    source = golden / "tiny-a" / "ckpt"
    with_it = convert(source, tmp_path / "with", version="base", tokenizer=tokenizer_dir)
    without = convert(source, tmp_path / "without", version="base")
    assert with_it.has_tokenizer
    assert not without.has_tokenizer
    assert any("no tokenizer" in note for note in without.notes)
    assert with_it.fingerprint != without.fingerprint
    tokenizer = load_tokenizer(tmp_path / "with", shown_as="with")
    assert tokenizer.encode(" [INST] what", add_special_tokens=False)[0] != tokenizer.encode("what")[0]
    assert json.loads((tmp_path / "with" / "processor_config.json").read_text())["num_image_tokens"] == 18
