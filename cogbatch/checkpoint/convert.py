"""SAT directory in, Hugging Face model directory out. Weights are streamed; no model is ever built."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from cogbatch.checkpoint.hashing import SourceHashes
from cogbatch.checkpoint.kind import classify
from cogbatch.checkpoint.layout import write_code, write_config, write_manifest, write_processor
from cogbatch.checkpoint.names import ROTARY, TensorName, is_rotary, rotary_names, tensor_names
from cogbatch.checkpoint.safetensors_writer import TensorSpec, write_safetensors
from cogbatch.checkpoint.sat import find_sat_files
from cogbatch.checkpoint.sat_config import from_sat, template_version
from cogbatch.checkpoint.source import SatSource, check_source, open_source
from cogbatch.checkpoint.staging import check_apart, staged_directory
from cogbatch.checkpoint.tokenizer import install_tokenizer
from cogbatch.errors import CheckpointError
from cogbatch.model.configuration_cogvlm import CogVLMConfig
from cogbatch.model.directory import DTYPES


@dataclass(frozen=True)
class ConversionReport:
    """What was written. template_version: config.json's name. notes: one line each, for the user.

    merged: what was put together, as in the manifest.
    """

    path: Path
    template_version: str
    dtype: str
    num_tensors: int
    num_parameters: int
    size_bytes: int
    fingerprint: str
    has_tokenizer: bool
    merged: tuple[dict[str, Any], ...]
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
    merge_lora: bool = True,
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
        iteration: a number, "release" or a folder's name such as "800-ema"; None takes the checkpoint's
            `latest`.
        merge_lora: merge unmerged LoRA weights; False refuses them.
        inv_freq: recompute: exact rotary frequencies from the base; keep: the stored, maybe rounded ones,
            used in the precision of the converted weights, as SAT does.
        max_shard_size: bytes, or text such as "5GB".
        overwrite: replace an existing model directory.
        on_progress: called with (bytes written, bytes in total) again and again.

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
    check_apart(source, target)
    files = find_sat_files(source, iteration=iteration)
    template = template_version(version, files.config, where=files.config_file)
    with SourceHashes(files.all) as hashes:
        tensors = open_source(files, merge_lora=merge_lora)
        config = from_sat(files.config, keys=tensors.keys, template=template, where=files.config_file)
        names = tensor_names(config)
        check_source(tensors, names)
        main_dtype = dtype or tensors.common_dtype()
        if inv_freq == "keep":
            config = _with_stored_rotary(config, tensors, names, dtype=main_dtype)
        plan = _plan(tensors, names, config, dtype=dtype)
        notes = _notes(tensors, template=template, has_tokenizer=tokenizer is not None)

        def progress(done: int, total: int) -> None:
            hashes.check()
            if on_progress is not None:
                on_progress(done, total)

        with staged_directory(
            target,
            overwrite=overwrite,
            marker="config.json",
            size_bytes=sum(spec.size_bytes for spec in plan),
        ) as folder:
            if tokenizer is not None and (note := install_tokenizer(tokenizer, folder, config)) is not None:
                notes.append(note)
            weights = write_safetensors(
                folder,
                plan,
                make=_maker(tensors, names, config, plan),
                max_shard_bytes=max_shard_bytes,
                on_progress=progress,
            )
            write_config(folder, config, dtype=main_dtype)
            write_processor(folder, config)
            write_code(folder)
            dropped = tuple(name.sat for name in names if name.hf is None and name.sat in tensors.keys)
            fingerprint = write_manifest(
                folder,
                config,
                weights=weights,
                sources=hashes.result(),
                source_root=files.path,
                options={
                    "iteration": files.iteration,
                    "version": version,
                    "dtype": dtype,
                    "merge_lora": merge_lora,
                    "inv_freq": inv_freq,
                    "max_shard_size_bytes": max_shard_bytes,
                },
                merged=tensors.merged,
                dropped=dropped,
                notes=notes,
            )
    return ConversionReport(
        path=target,
        template_version=template,
        dtype=main_dtype,
        num_tensors=len(plan),
        num_parameters=sum(math.prod(name.shape) for name in names if name.hf is not None),
        size_bytes=weights.size_bytes,
        fingerprint=fingerprint,
        has_tokenizer=tokenizer is not None,
        merged=tuple(tensors.merged),
        dropped=dropped,
        notes=tuple(notes),
        seconds=time.monotonic() - started,
    )


def parse_size(size: int | str) -> int:
    """Bytes in "5GB", "200MB", "64KB" (powers of 1000) or a plain number. Raises ValueError otherwise."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)B?\s*", str(size), flags=re.IGNORECASE)
    size_bytes = int(float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " ")) if match else 0
    if size_bytes <= 0:
        raise ValueError(f"max_shard_size is {size!r}, expected bytes above 0, such as 5GB or 200MB")
    return size_bytes


def _notes(source: SatSource, *, template: str, has_tokenizer: bool) -> list[str]:
    notes = [f"merged {item['count']} {item['what']}" for item in source.merged if "count" in item]
    notes += [
        f"merged LoRA of rank {item['rank']} into {len(item['tensors'])} tensors"
        for item in source.merged
        if "rank" in item
    ]
    if template == "inst":
        notes.append("template chat ([INST]) is SAT's own: official Hugging Face code does not know it")
    if not has_tokenizer:
        notes.append("no tokenizer: logits work, generating from text needs one (--tokenizer DIR_OR_HUB_ID)")
    return notes


def _plan(
    source: SatSource, names: Sequence[TensorName], config: CogVLMConfig, *, dtype: str | None
) -> list[TensorSpec]:
    """What to write, in the order of HF names."""
    rotary = rotary_table(config)
    specs = [TensorSpec(name, rotary.dtype, tuple(rotary.shape)) for name in rotary_names(config)]
    for name in names:
        if name.hf is not None:
            stored = source.dtype(name.sat)
            specs.append(TensorSpec(name.hf, DTYPES[dtype] if dtype else stored, name.shape))
    return sorted(specs, key=lambda spec: _natural(spec.name))


def _maker(
    source: SatSource, names: Sequence[TensorName], config: CogVLMConfig, plan: Sequence[TensorSpec]
) -> Callable[[str], Tensor | Iterator[Tensor]]:
    """HF name -> the tensor's pieces, made when they are asked for."""
    by_hf = {name.hf: name for name in names}
    dtypes = {spec.name: spec.dtype for spec in plan}
    rotary = rotary_table(config)
    return lambda hf: rotary if is_rotary(hf) else source.pieces(by_hf[hf], dtype=dtypes[hf])


def rotary_table(config: CogVLMConfig) -> Tensor:
    """[D/2] float32, which the official HF class needs to find in the file."""
    if config.rope_inv_freq is not None:
        return torch.tensor(config.rope_inv_freq, dtype=torch.float32)
    steps = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    return 1.0 / config.rope_theta**steps


def _with_stored_rotary(
    config: CogVLMConfig, source: SatSource, names: Sequence[TensorName], *, dtype: str
) -> CogVLMConfig:
    if ROTARY not in source.keys:
        raise CheckpointError(
            f"{source.files.weights[0]}: no {ROTARY!r} to keep; convert with --inv-freq recompute"
        )
    name = next(name for name in names if name.sat == ROTARY)
    config.rope_inv_freq = torch.cat(list(source.pieces(name, dtype=torch.float32))).tolist()
    config.rope_dtype = dtype
    return config


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts layers.2 before layers.10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]
