"""A tokenizer for a model directory: copied, checked against the model, and against sentencepiece itself.

transformers 5 rebuilds Llama tokenizers on its own backend, which drops a leading blank that sentencepiece
(and so SAT) keeps. Where that changes ids, the copy gets a tokenizer.json that does what sentencepiece does.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cogbatch.checkpoint.hub import local_directory
from cogbatch.checkpoint.manifest import TOKENIZER_FILES, tokenizer_files
from cogbatch.errors import CheckpointError
from cogbatch.model.configuration_cogvlm import CogVLMConfig
from cogbatch.model.directory import load_tokenizer
from cogbatch.model.templates import SEPARATORS, render_prompt

_QUERIES = ("What is this?", " two  blanks ", "图片里有什么？", "有几个红色的圆? 🎉", "a\nb\tc", "1234 €")
_HISTORY = (("What is this?", "A cat."), ("图里呢？", "一只🐱"))

# What sentencepiece does to a text before it splits it, with and without its dummy prefix.
_BLANKS: dict[str, Any] = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
_NORMALIZERS: tuple[dict[str, Any], ...] = (
    {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, _BLANKS]},
    {"type": "Sequence", "normalizers": [_BLANKS]},
)
_DECODER: list[dict[str, Any]] = [
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
    {"type": "ByteFallback"},
    {"type": "Fuse"},
]
_STRIP: dict[str, Any] = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
_DECODERS = ([*_DECODER, _STRIP], _DECODER)
_SPECIAL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")

# ids of a text without special tokens
Encode = Callable[[str], list[int]]


def install_tokenizer(source: str | Path, folder: Path, config: CogVLMConfig) -> str | None:
    """Puts a checked copy of the tokenizer into folder.

    Args:
        source: a directory or a hub id.

    Returns:
        A note when the copy had to be changed, else None.

    Raises:
        CheckpointError: no tokenizer there, it does not load without remote code, it does not belong to
            this model, or its ids are not sentencepiece's and cannot be made so.
    """
    origin = local_directory(source, allow_patterns=TOKENIZER_FILES)
    files = tokenizer_files(origin)
    if not any(file.name in ("tokenizer.model", "tokenizer.json") for file in files):
        raise CheckpointError(
            f"{source}: no tokenizer.model or tokenizer.json; expected a tokenizer directory"
        )
    for file in files:
        shutil.copyfile(file, folder / file.name)
    tokenizer = load_tokenizer(folder, shown_as=source)
    _fill_special_tokens(folder, tokenizer, config)
    tokenizer = load_tokenizer(folder, shown_as=source)
    _check_belongs(source, tokenizer, config)
    return _match_reference(source, folder, tokenizer)


def template_texts() -> list[str]:
    """Texts as the four prompt templates make them: leading blanks, Chinese, emoji, line ends."""
    return [
        render_prompt(template, query, history)
        for template in SEPARATORS
        for query in _QUERIES
        for history in ((), _HISTORY)
    ]


def _fill_special_tokens(folder: Path, tokenizer: Any, config: CogVLMConfig) -> None:
    """Names the special tokens that the tokenizer leaves open (vicuna: pad) as the model's ids have them."""
    eos = config.eos_token_id
    wanted = {
        "bos_token": config.bos_token_id,
        "eos_token": eos[0] if isinstance(eos, list) else eos,
        "pad_token": config.pad_token_id,
    }
    open_names = {name: token_id for name, token_id in wanted.items() if getattr(tokenizer, name) is None}
    found = {name: tokenizer.convert_ids_to_tokens(token_id) for name, token_id in open_names.items()}
    if filled := {name: token for name, token in found.items() if token is not None}:
        _update_json(folder / "tokenizer_config.json", filled)


def _check_belongs(source: str | Path, tokenizer: Any, config: CogVLMConfig) -> None:
    largest = max(tokenizer.get_vocab().values())
    if largest >= config.vocab_size:
        raise CheckpointError(
            f"{source}: the tokenizer has ids up to {largest}, but the model knows {config.vocab_size}; "
            "give the tokenizer that the model was trained with"
        )
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        expected, found = getattr(config, name), getattr(tokenizer, name)
        if found not in (expected if isinstance(expected, list) else [expected]):
            raise CheckpointError(
                f"{source}: {name} is {found} in the tokenizer, but {expected} in the model; "
                "give the tokenizer that the model was trained with"
            )


def _match_reference(source: str | Path, folder: Path, tokenizer: Any) -> str | None:
    reference = _reference(folder)
    if reference is None or _first_difference(_encode(tokenizer), reference) is None:
        return None
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    # A plain class, since LlamaTokenizer puts its own blanks over tokenizer.json's; it has no default tokens.
    tokens = {name: getattr(tokenizer, name) for name in _SPECIAL_TOKENS}
    _update_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **tokens})
    for normalizer, decoder in zip(_NORMALIZERS, _DECODERS, strict=True):
        backend |= {"normalizer": normalizer, "pre_tokenizer": None}
        backend["decoder"] = {"type": "Sequence", "decoders": decoder}
        (folder / "tokenizer.json").write_text(json.dumps(backend, ensure_ascii=False), encoding="utf-8")
        tokenizer = load_tokenizer(folder, shown_as=source)
        if _first_difference(_encode(tokenizer), reference) is None:
            return "tokenizer.json written anew: transformers' own reading drops leading blanks"
    _check_reference(source, tokenizer, reference)
    return None


def _reference(folder: Path) -> Encode | None:
    """sentencepiece's own ids; without tokenizer.model there is nothing to compare with."""
    file = folder / "tokenizer.model"
    if not file.is_file():
        return None
    from sentencepiece import SentencePieceProcessor

    try:
        processor = SentencePieceProcessor(model_file=str(file))
    except Exception as err:  # sentencepiece raises RuntimeError or OSError
        raise CheckpointError(f"{file}: not a sentencepiece model ({err}); copy it again") from err
    return lambda text: list(processor.encode(text))


def _encode(tokenizer: Any) -> Encode:
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False))


def _first_difference(encode: Encode, reference: Encode) -> str | None:
    return next((text for text in template_texts() if encode(text) != reference(text)), None)


def _check_reference(source: str | Path, tokenizer: Any, reference: Encode) -> None:
    encode = _encode(tokenizer)
    text = _first_difference(encode, reference)
    if text is not None:
        raise CheckpointError(
            f"{source}: for the text {text!r} the tokenizer gives {encode(text)[:8]}, but its "
            f"tokenizer.model gives {reference(text)[:8]}; give a tokenizer whose files belong together"
        )


def _update_json(file: Path, values: dict[str, Any]) -> None:
    current = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    file.write_text(json.dumps(current | values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
