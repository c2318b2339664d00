"""A model directory into memory, with cogbatch's own classes: never runs code out of the directory."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers.utils import logging as transformers_logging

from cogbatch.errors import CheckpointError
from cogbatch.model.directory import DTYPES, read_config
from cogbatch.model.modeling_cogvlm import CogVLMForCausalLM


def pick_device(device: str) -> torch.device:
    """The device; "auto" is CUDA where there is one, else the CPU. Raises ValueError: unknown, or absent."""
    has_cuda = torch.cuda.is_available()
    if device == "auto":
        return torch.device("cuda" if has_cuda else "cpu")
    try:
        picked = torch.device(device)
    except RuntimeError:
        picked = None
    if picked is None or picked.type not in ("cpu", "cuda"):
        raise ValueError(f"device is {device!r}: expected cpu, cuda, cuda:N or auto")
    if picked.type == "cuda" and not has_cuda:
        raise ValueError(f"device is {device!r}, but torch sees no CUDA device here: use cpu or auto")
    return picked


def load_model(model_dir: Path, *, dtype: str, device: torch.device) -> CogVLMForCausalLM:
    """The model in evaluation mode.

    Args:
        model_dir: as written by `cogbatch convert`, or an official directory. dtype: "auto" is the
            directory's own.

    Raises:
        CheckpointError: no such directory, no weights, missing or unknown tensors.
        ValueError: unknown dtype.
    """
    if dtype != "auto" and dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}: expected auto, {', '.join(DTYPES)}")
    config = read_config(model_dir)
    wanted = config.dtype if dtype == "auto" else DTYPES[dtype]
    showed_bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        model, report = CogVLMForCausalLM.from_pretrained(
            model_dir,
            config=config,
            dtype=wanted or torch.float32,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{model_dir} cannot be loaded: {error}") from error
    finally:
        if showed_bar:
            transformers_logging.enable_progress_bar()
    for ill, names in (("missing", report["missing_keys"]), ("unknown", report["unexpected_keys"])):
        if names:
            shown = ", ".join(sorted(names)[:5])
            raise CheckpointError(
                f"{model_dir}: {len(names)} {ill} tensors: {shown}. Convert the checkpoint again."
            )
    return model.to(device).eval()
