"""Shared by the checkpoint tests: golden SAT directories, their conversions, and a Llama-style tokenizer."""

import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch

from cogbatch.checkpoint.convert import convert

GOLDEN = Path(__file__).parents[1] / "golden"
VOCABULARY = [
    "what",
    "is",
    "this",
    "image",
    "how",
    "many",
    "question",
    "short",
    "answer",
    "red",
    "blue",
    "green",
    "circle",
    "square",
    "left",
    "of",
    "the",
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("COGBATCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the golden fixtures; read only."""
    return GOLDEN


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """golden name -> model directory in fp32 with the template chat_old; read only."""
    done: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in done:
            out = tmp_path_factory.mktemp("converted") / name
            keep = "keep" if name == "tiny-a-ds" else "recompute"
            convert(GOLDEN / name / "ckpt", out, dtype="float32", version="chat_old", inv_freq=keep)
            done[name] = out
        return done[name]

    return get


@pytest.fixture
def sat_copy(tmp_path: Path) -> Callable[..., Path]:
    """A writable copy of a golden SAT directory, its configuration or state dict changed on the way."""

    def make(
        name: str = "tiny-a",
        *,
        config: dict[str, Any] | None = None,
        edit: Callable[[dict[str, Any]], None] | None = None,
    ) -> Path:
        folder = tmp_path / f"sat-{name}"
        shutil.copytree(GOLDEN / name / "ckpt", folder)
        if config is not None:
            file = folder / "model_config.json"
            values = json.loads(file.read_text()) | config
            file.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))
        if edit is not None:
            file = folder / (folder / "latest").read_text() / "mp_rank_00_model_states.pt"
            payload = torch.load(file, weights_only=True)
            edit(payload["module"])
            torch.save(payload, file)
        return folder

    return make


@pytest.fixture(scope="session")
def sentencepiece_model() -> bytes:
    """Llama's settings: byte fallback, a dummy prefix, blanks kept, no normalisation."""
    chance = random.Random(0)
    lines = [" ".join(chance.choices(VOCABULARY, k=12)) + "." for _ in range(300)]
    lines += ["Question: what is this Answer: a red circle", "[INST] what is this [/INST] a red circle"] * 20
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=400,
        model_type="bpe",
        byte_fallback=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        minloglevel=2,
    )
    return model.getvalue()


@pytest.fixture
def tokenizer_dir(tmp_path: Path, sentencepiece_model: bytes) -> Path:
    """As lmsys/vicuna-7b-v1.5 has it: tokenizer.model and a LlamaTokenizer configuration without pad."""
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(sentencepiece_model)
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": None,
        "add_bos_token": True,
        "add_eos_token": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder
