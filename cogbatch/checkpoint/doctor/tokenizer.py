"""A tokenizer that is not there: nobody can invent one, but a given one is checked and installed."""

from __future__ import annotations

from cogbatch.checkpoint.doctor.changes import Changes
from cogbatch.checkpoint.doctor.finding import Finding
from cogbatch.checkpoint.doctor.state import State
from cogbatch.checkpoint.manifest import TOKENIZER_FILES
from cogbatch.checkpoint.tokenizer import install_tokenizer
from cogbatch.model.configuration_cogvlm import CogVLMConfig

_V1 = "lmsys/vicuna-7b-v1.5"
_V2 = "THUDM/cogvlm2-llama3-chat-19B"


def find_missing_tokenizer(state: State, *, given: str | None) -> Finding | None:
    """given: a directory or hub id to take it from."""
    if any((state.folder / name).is_file() for name in ("tokenizer.model", "tokenizer.json")):
        return None
    config = state.config
    source = _V2 if config is not None and config.vision_config.downsample else _V1
    why = "only token ids go in and out: no prompt can be read and no answer written"
    if given is None or config is None:
        advice = f"it cannot be invented: pass --fix --tokenizer DIR_OR_HUB_ID; CogVLM's is that of {source}"
        return Finding("tokenizer", "there is no tokenizer", why, advice, TOKENIZER_FILES)
    return Finding(
        "tokenizer",
        "there is no tokenizer",
        why,
        f"installs a checked copy of {given}",
        TOKENIZER_FILES,
        lambda changes: _install(given, config, changes),
    )


def _install(source: str, config: CogVLMConfig, changes: Changes) -> None:
    with changes.staging() as folder:
        install_tokenizer(source, folder, config)
        for file in sorted(folder.iterdir()):
            changes.put(file)
