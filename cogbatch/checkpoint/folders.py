"""What a prepared model consists of: the folders that an engine loads, with every file proven."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cogbatch.checkpoint.directory import PreparedModel
from cogbatch.checkpoint.folder import ProvenFolder, prove_folder
from cogbatch.checkpoint.manifest import (
    MANIFEST,
    TOKENIZER_FILES,
    WHOLE,
    read_manifest,
    tokenizer_files,
    weight_files,
)
from cogbatch.checkpoint.safetensors_writer import INDEX

_CONFIGS = ("config.json", "generation_config.json")


def model_folders(prepared: PreparedModel) -> tuple[ProvenFolder, ...]:
    """The model directory, then the tokenizer's where that is another.

    Without a manifest the files that are loaded are hashed now, as the fingerprint saw them.

    Raises:
        CheckpointError: a file is missing, or the manifest names one outside of the directory.
    """
    folder, tokenizer = prepared.path.absolute(), prepared.tokenizer_path
    has_own = tokenizer is not None and tokenizer.absolute() == folder
    may_load = [*_CONFIGS, INDEX, WHOLE, *(TOKENIZER_FILES if has_own else ())]
    manifest = read_manifest(folder)
    if manifest is not None:
        names: Iterable[str] = [*manifest["files"], MANIFEST]
    else:
        loaded = (*(folder / name for name in may_load), *weight_files(folder))
        names = [file.name for file in loaded if file.is_file()]
    known = {} if manifest is None else manifest["files"]  # checked when the model was prepared
    model = prove_folder(folder, names, may_load=may_load, known=known, origin=prepared.origin)
    if tokenizer is None or has_own:
        return (model,)
    return model, _tokenizer_folder(tokenizer.absolute())


def _tokenizer_folder(folder: Path) -> ProvenFolder:
    names = [file.name for file in tokenizer_files(folder)]
    return prove_folder(folder, names, may_load=TOKENIZER_FILES)
