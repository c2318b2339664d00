"""A model directory into memory, with cogbatch's own classes: never runs code out of the directory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from cogbatch.engine.quantization import check_quantization, part_of
from cogbatch.engine.quantized import device_kind, quantize, replace_linears
from cogbatch.errors import CheckpointError
from cogbatch.model.directory import DTYPES, read_config, weight_files
from cogbatch.model.modeling_cogvlm import CogVLMForCausalLM
from cogbatch.types import Quantization, QuantizationType


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


def load_model(
    model_dir: Path,
    *,
    dtype: str,
    device: torch.device,
    quantization: Quantization | QuantizationType | None = None,
) -> CogVLMForCausalLM:
    """The model in evaluation mode, read tensor by tensor: nothing holds more of it than it will in the end.

    Args:
        model_dir: as written by `cogbatch convert`, or an official directory. dtype: "auto" is the
            directory's own. quantization: of weights, while they are read; a type alone is for all parts,
            None keeps all in dtype.

    Raises:
        CheckpointError: no such directory, no weights, missing or unknown tensors.
        ValueError: unknown dtype, or quantization that does not work here.
    """
    if dtype != "auto" and dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}: expected auto, {', '.join(DTYPES)}")
    if isinstance(quantization, str):
        quantization = Quantization(quantization)
    device, config = torch.device(device), read_config(model_dir)
    config.dtype = (config.dtype if dtype == "auto" else DTYPES[dtype]) or torch.float32
    try:
        with torch.device("meta"):
            model = CogVLMForCausalLM(config)
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"{model_dir} cannot be loaded: {error}") from error
    if quantization is not None:
        name = str(config.dtype).removeprefix("torch.")
        check_quantization(quantization, dtype=name, device=device_kind(device))
        replace_linears(model, quantization, dtype=config.dtype)
    missing, unknown = {name for name, _ in model.named_parameters()}, set()
    for file in weight_files(model_dir):
        for name, tensor in _tensors(file):
            if name in missing:
                _check_shape(file, name, tensor, model.get_parameter(name))
                in_full = quantization is None or part_of(name) not in quantization.parts
                _put(model, name, tensor.to(config.dtype), device=device, in_full=in_full)
                missing.remove(name)
            elif not _is_ignored(name):
                unknown.add(name)
    for ill, names in (("missing", missing), ("unknown", unknown)):
        if names:
            shown = ", ".join(sorted(names)[:5])
            raise CheckpointError(
                f"{model_dir}: {len(names)} {ill} tensors: {shown}. Convert the checkpoint again."
            )
    return model.eval()


def _tensors(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a file on the CPU, by name, one at a time."""
    try:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a mapping
                yield name, tensors.get_tensor(name)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} cannot be loaded: {error}") from error


def _check_shape(file: Path, name: str, found: torch.Tensor, expected: torch.Tensor) -> None:
    if found.shape != expected.shape:
        raise CheckpointError(
            f"{file}: {name} has shape {list(found.shape)}, config.json asks for {list(expected.shape)}."
            " Convert the checkpoint again."
        )


def _put(
    model: CogVLMForCausalLM, name: str, value: torch.Tensor, *, device: torch.device, in_full: bool
) -> None:
    """Gives a parameter of a model on the meta device its value."""
    module_name, _, own_name = name.rpartition(".")
    module = model.get_submodule(module_name)
    if in_full:
        setattr(module, own_name, nn.Parameter(value.to(device), requires_grad=False))
    else:
        quantize(module, value, device)


def _is_ignored(name: str) -> bool:
    return any(re.search(known, name) for known in CogVLMForCausalLM._keys_to_ignore_on_load_unexpected)
