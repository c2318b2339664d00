"""What a model is before it is loaded: its configuration, dtype and tokenizer. Reads no weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cogbatch.checkpoint.hub import local_directory
from cogbatch.checkpoint.kind import classify
from cogbatch.checkpoint.manifest import TOKENIZER_FILES
from cogbatch.checkpoint.sat import find_sat_files
from cogbatch.checkpoint.sat_config import from_sat, template_version
from cogbatch.checkpoint.source import open_source
from cogbatch.errors import CheckpointError
from cogbatch.model.configuration_cogvlm import CogVLMConfig
from cogbatch.model.directory import load_tokenizer, read_config


@dataclass(frozen=True)
class Geometry:
    """config: with the template to use. dtype: that most weights are stored in. tokenizer: unchecked."""

    config: CogVLMConfig
    dtype: str
    tokenizer: Any


def read_geometry(
    checkpoint: str | Path, *, tokenizer: str | Path | None = None, version: str | None = None
) -> Geometry | None:
    """Of a SAT checkpoint, a model directory or a hub id; None while the hub's weights must be asked.

    Of weights, names, shapes and dtypes are read: files stay memory-mapped.

    Args:
        tokenizer: directory or hub id; None takes the model directory's own. version: SAT's template name;
            None takes what the checkpoint says.

    Raises:
        ValueError: unknown version.
        CheckpointError: whatever is wrong, in one line.
    """
    folder = local_directory(checkpoint, allow_patterns=("config.json", *TOKENIZER_FILES))
    try:
        config, dtype = _of_sat(folder, version) if classify(folder) == "sat" else _of_hf(folder, version)
    except CheckpointError:
        if Path(checkpoint).expanduser().is_dir():
            raise
        return None  # an official config.json leaves to the weights what it is
    words = folder if tokenizer is None else local_directory(tokenizer, allow_patterns=TOKENIZER_FILES)
    return Geometry(config, dtype, load_tokenizer(words, shown_as=tokenizer or checkpoint))


def _of_sat(folder: Path, version: str | None) -> tuple[CogVLMConfig, str]:
    files = find_sat_files(folder)
    template = template_version(version, files.config, where=files.config_file)
    source = open_source(files)
    config = from_sat(files.config, keys=source.keys, where=files.config_file, template=template)
    return config, source.common_dtype()


def _of_hf(folder: Path, version: str | None) -> tuple[CogVLMConfig, str]:
    config = read_config(folder)
    if version is not None:
        config.template_version = template_version(version, {}, where=folder)
    return config, str(config.dtype or "float32").removeprefix("torch.")
