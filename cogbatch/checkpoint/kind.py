"""Which kind of model directory a path is, from names of files alone. Nothing is read."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cogbatch.errors import CheckpointError


def classify(path: str | Path) -> Literal["sat", "hf"]:
    """Which kind of model directory path is. Raises CheckpointError: it is neither, or does not exist."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no such directory"
        raise CheckpointError(f"{path}: {found}; expected a SAT checkpoint or a Hugging Face model directory")
    if (folder / "model_config.json").is_file() or any(folder.glob("*/mp_rank_*_model_states.pt")):
        return "sat"
    if any(folder.glob("mp_rank_*_model_states.pt")):
        raise CheckpointError(f"{path}: an iteration folder of a SAT checkpoint; give the folder above it")
    if (folder / "config.json").is_file():
        return "hf"
    names = sorted(entry.name for entry in folder.iterdir())
    found = (", ".join(names[:5]) + (", ..." if len(names) > 5 else "")) or "an empty directory"
    raise CheckpointError(
        f"{path}: neither a SAT checkpoint (expected model_config.json) nor a Hugging Face model "
        f"(expected config.json), found {found}; check the path"
    )
