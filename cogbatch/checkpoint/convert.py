"""SAT directory in, Hugging Face model directory out. Weights are streamed; no model is ever built."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from cogbatch.checkpoint.kind import classify
from cogbatch.checkpoint.layout import write_code, write_config, write_manifest, write_processor
from cogbatch.checkpoint.names import ROTARY, TensorName, is_rotary, rotary_names, tensor_names
from cogbatch.checkpoint.safetensors_writer import TensorSpec, write_safetensors
from cogbatch.checkpoint.sat import find_sat_files, load_sat_tensors
from cogbatch.checkpoint.sat_config import from_sat, template_version
from cogbatch.checkpoint.staging import staged_directory
from cogbatch.checkpoint.tokenizer import install_tokenizer
from cogbatch.errors import CheckpointError
from cogbatch.model.configuration_cogvlm import CogVLMConfig
from cogbatch.model.directory import DTYPES


@dataclass(frozen=True)
class ConversionReport:
    """What was written. template_version: config.json's name. notes: one line each, for the user."""

    path: Path
    template_version: str
    dtype: str
    num_tensors: int
    num_parameters: int
    size_bytes: int
    fingerprint: str
    has_tokenizer: bool
    dropped: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: float


def convert(
    sat_dir: str | Path,
    out_dir: str | Path,
    *,
    tokenizer: str | Path | None = None,
    dtype: str | None = None,
    version: str | None = None,
    iteration: int | str | None = None,
    inv_freq: Literal["recompute", "keep"] = "recompute",
    max_shard_size: int | str = "5GB",
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> ConversionReport:
    """Writes the model directory of a SAT checkpoint. out_dir appears whole or not at all.

    Args:
        tokenizer: directory or hub id; without one the result has none, and only token ids go in and out.
        dtype: float32, float16 or bfloat16; None keeps every tensor as it is stored.
        version: base, vqa, chat_old or chat (SAT's names); None takes text_processor_version.
        iteration: None takes the checkpoint's `latest`.
        inv_freq: recompute: exact rotary frequencies from the base; keep: the stored, maybe rounded ones,
            used in the precision of the converted weights, as SAT does.
        max_shard_size: bytes, or text such as "5GB".
        overwrite: replace an existing model directory.
        on_progress: called with (bytes written, bytes in total) after each tensor.

    Raises:
        ValueError: an argument outside its range.
        CheckpointError: the checkpoint, the tokenizer or the output directory is not what it should be.
    """
    started = time.monotonic()
    if inv_freq not in ("recompute", "keep"):
        raise ValueError(f"inv_freq is {inv_freq!r}, expected 'recompute' or 'keep'")
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(
            f"dtype is {dtype!r}, expected one of {', '.join(DTYPES)}, or None for the source's own"
        )
    max_shard_bytes = parse_size(max_shard_size)
    source, target = Path(sat_dir).expanduser(), Path(out_dir).expanduser()
    if classify(source) == "hf":
        raise CheckpointError(f"{source}: already a Hugging Face model directory; use it as it is")
    _check_apart(source, target)
    files = find_sat_files(source, iteration=iteration)
    template = template_version(version, files.config, where=files.config_file)
    tensors = load_sat_tensors(files.weights[0])
    config = from_sat(files.config, keys=tensors, template=template, where=files.config_file)
    names = tensor_names(config)
    check_tensors(tensors, names, where=str(files.weights[0]))
    main_dtype = dtype or _common_dtype(tensors)
    if inv_freq == "keep":
        config = _with_stored_rotary(config, tensors, dtype=main_dtype, where=files.weights[0])
    plan, make = _plan(tensors, names, config, dtype=dtype, where=files.weights[0])
    notes: list[str] = []
    if template == "inst":
        notes.append("template chat ([INST]) is SAT's own: official Hugging Face code does not know it")
    with staged_directory(target, overwrite=overwrite, marker="config.json") as folder:
        if tokenizer is None:
            notes.append(
                "no tokenizer: logits work, generating from text needs one (--tokenizer DIR_OR_HUB_ID)"
            )
        elif (note := install_tokenizer(tokenizer, folder, config)) is not None:
            notes.append(note)
        weights = write_safetensors(
            folder, plan, make=make, max_shard_bytes=max_shard_bytes, on_progress=on_progress
        )
        write_config(folder, config, dtype=main_dtype)
        write_processor(folder, config)
        write_code(folder)
        dropped = tuple(name.sat for name in names if name.hf is None and name.sat in tensors)
        fingerprint = write_manifest(
            folder,
            config,
            weights=weights,
            sources=files.all,
            source_root=files.path,
            options={
                "iteration": files.iteration,
                "version": version,
                "dtype": dtype,
                "inv_freq": inv_freq,
                "max_shard_size_bytes": max_shard_bytes,
            },
            dropped=dropped,
            notes=notes,
        )
    return ConversionReport(
        path=target,
        template_version=template,
        dtype=main_dtype,
        num_tensors=len(plan),
        num_parameters=sum(tensors[name.sat].numel() for name in names if name.hf is not None),
        size_bytes=weights.size_bytes,
        fingerprint=fingerprint,
        has_tokenizer=tokenizer is not None,
        dropped=dropped,
        notes=tuple(notes),
        seconds=time.monotonic() - started,
    )


def check_tensors(tensors: Mapping[str, Tensor], names: tuple[TensorName, ...], *, where: str) -> None:
    """Raises CheckpointError when keys have no HF name, are missing, or have another shape than expected."""
    known = {name.sat for name in names}
    extra = [key for key in tensors if key not in known]
    if extra:
        raise CheckpointError(
            f"{where}: {_count(extra)} no Hugging Face name: {_some(extra)}; "
            "only CogVLM v1 and v2 are supported, and model_config.json must be this file's own"
        )
    missing = [name.sat for name in names if name.hf is not None and name.sat not in tensors]
    if missing:
        raise CheckpointError(
            f"{where}: {_count(missing)} been left out of the file: {_some(missing)}; "
            "is it complete, and is model_config.json its own?"
        )
    for name in names:
        if name.sat in tensors and tuple(tensors[name.sat].shape) != name.shape:
            raise CheckpointError(
                f"{where}: {name.sat!r} has shape {list(tensors[name.sat].shape)}, but "
                f"model_config.json means {list(name.shape)}; do the two files belong together?"
            )


def parse_size(size: int | str) -> int:
    """Bytes in "5GB", "200MB", "64KB" (powers of 1000) or a plain number. Raises ValueError otherwise."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)B?\s*", str(size), flags=re.IGNORECASE)
    size_bytes = int(float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " ")) if match else 0
    if size_bytes <= 0:
        raise ValueError(f"max_shard_size is {size!r}, expected bytes above 0, such as 5GB or 200MB")
    return size_bytes


def _plan(
    tensors: Mapping[str, Tensor],
    names: tuple[TensorName, ...],
    config: CogVLMConfig,
    *,
    dtype: str | None,
    where: Path,
) -> tuple[list[TensorSpec], Callable[[str], Tensor]]:
    """What to write, in the order of HF names, and how to make each tensor when its turn comes."""
    by_hf = {name.hf: name.sat for name in names if name.hf is not None}
    rotary = rotary_table(config)
    specs = [TensorSpec(name, torch.float32, tuple(rotary.shape)) for name in rotary_names(config)]
    for hf, sat in by_hf.items():
        stored = tensors[sat]
        specs.append(TensorSpec(hf, DTYPES[dtype] if dtype else stored.dtype, tuple(stored.shape)))

    def make(hf: str) -> Tensor:
        if is_rotary(hf):
            return rotary
        stored = tensors[by_hf[hf]]
        if not _is_finite(stored):
            raise CheckpointError(f"{where}: {by_hf[hf]!r} holds NaN or infinity; use an earlier iteration")
        tensor = stored.to(DTYPES[dtype]) if dtype else stored
        if not _is_finite(tensor):
            raise CheckpointError(
                f"{where}: {by_hf[hf]!r} does not fit into {dtype}; use bfloat16 or float32"
            )
        return tensor

    return sorted(specs, key=lambda spec: _natural(spec.name)), make


def _is_finite(tensor: Tensor) -> bool:
    """Twelve times as fast as torch.isfinite, and without its temporary tensors; extremes carry NaN."""
    low, high = torch.aminmax(tensor)
    return bool(torch.isfinite(low) and torch.isfinite(high))


def rotary_table(config: CogVLMConfig) -> Tensor:
    """[D/2] float32, which the official HF class needs to find in the file."""
    if config.rope_inv_freq is not None:
        return torch.tensor(config.rope_inv_freq, dtype=torch.float32)
    steps = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    return 1.0 / config.rope_theta**steps


def _with_stored_rotary(
    config: CogVLMConfig, tensors: Mapping[str, Tensor], *, dtype: str, where: Path
) -> CogVLMConfig:
    if ROTARY not in tensors:
        raise CheckpointError(f"{where}: no {ROTARY!r} to keep; convert with --inv-freq recompute")
    config.rope_inv_freq = tensors[ROTARY].float().tolist()
    config.rope_dtype = dtype
    return config


def _common_dtype(tensors: Mapping[str, Tensor]) -> str:
    """The dtype of most bytes."""
    sizes: Counter[torch.dtype] = Counter()
    for tensor in tensors.values():
        sizes[tensor.dtype] += tensor.nbytes
    return str(sizes.most_common(1)[0][0]).removeprefix("torch.")


def _check_apart(source: Path, target: Path) -> None:
    a, b = source.resolve(), target.resolve()
    if a == b or a in b.parents or b in a.parents:
        raise CheckpointError(f"{target}: output and checkpoint {source} must not contain each other")


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts layers.2 before layers.10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]


def _count(keys: list[str]) -> str:
    return "1 tensor has" if len(keys) == 1 else f"{len(keys)} tensors have"


def _some(keys: list[str]) -> str:
    shown = ", ".join(repr(key) for key in keys[:5])
    return f"{shown}, and {len(keys) - 5} more" if len(keys) > 5 else shown
