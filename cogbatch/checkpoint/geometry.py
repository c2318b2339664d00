"""What a model is, before it is converted or loaded: its configuration and dtype. Reads no weights."""

from __future__ import annotations

from pathlib import Path

from cogbatch.checkpoint.kind import classify
from cogbatch.checkpoint.sat import find_sat_files
from cogbatch.checkpoint.sat_config import from_sat, template_version
from cogbatch.checkpoint.source import open_source
from cogbatch.model.configuration_cogvlm import CogVLMConfig
from cogbatch.model.directory import read_config


def geometry(folder: Path, *, version: str | None = None) -> tuple[CogVLMConfig, str]:
    """(configuration, dtype of most weights) of a SAT checkpoint or a model directory.

    Of weights, names, shapes and dtypes are read: files stay memory-mapped.

    Args:
        version: SAT's template name; None takes what the checkpoint says.

    Raises:
        ValueError: unknown version.
        CheckpointError: whatever is wrong, in one line.
    """
    if classify(folder) == "hf":
        config = read_config(folder)
        if version is not None:
            config.template_version = template_version(version, {}, where=folder)
        return config, str(config.dtype or "float32").removeprefix("torch.")
    files = find_sat_files(folder)
    template = template_version(version, files.config, where=files.config_file)
    source = open_source(files)
    config = from_sat(files.config, keys=source.keys, where=files.config_file, template=template)
    return config, source.common_dtype()
