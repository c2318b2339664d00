"""SAT directory in, Hugging Face model directory out. Weights are streamed; no model is ever built."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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
    sat_path, target = Path(sat_dir).expanduser(), Path(out_dir).expanduser()
    if classify(sat_path) == "hf":
        raise CheckpointError(f"{sat_path}: already a Hugging Face model directory; use it as it is")
    check_apart(sat_path, target)
    files = find_sat_files(sat_path, iteration=iteration)
    template = template_version(version, files.config, where=files.config_file)
    with SourceHashes(files.all) as hashes:
        source = open_source(files, merge_lora=merge_lora)
        plan = _plan(source, template=template, dtype=dtype, inv_freq=inv_freq)
        notes = [*_merge_notes(source.merged)]
        if template == "inst":
            notes.append("template chat ([INST]) is SAT's own: official Hugging Face code does not know it")

        def progress(done: int, total: int) -> None:
            hashes.check()
            if on_progress is not None:
                on_progress(done, total)

        with staged_directory(
            target, overwrite=overwrite, marker="config.json", size_bytes=plan.size_bytes
        ) as folder:
            notes += _tokenizer_notes(tokenizer, folder, plan.config)
            weights = write_safetensors(
                folder, plan.specs, make=plan.make, max_shard_bytes=max_shard_bytes, on_progress=progress
            )
            write_config(folder, plan.config, dtype=plan.dtype)
            write_processor(folder, plan.config)
            write_code(folder)
            sources = hashes.result()
            _check_ranks_differ(files.weights, sources)
            fingerprint = write_manifest(
                folder,
                plan.config,
                weights=weights,
                sources=sources,
                source_root=files.path,
                options={
                    "iteration": files.iteration,
                    "version": version,
                    "dtype": dtype,
                    "merge_lora": merge_lora,
                    "inv_freq": inv_freq,
                    "max_shard_size_bytes": max_shard_bytes,
                },
                merged=source.merged,
                dropped=plan.dropped,
                notes=notes,
            )
    return ConversionReport(
        path=target,
        template_version=template,
        dtype=plan.dtype,
        num_tensors=len(plan.specs),
        num_parameters=sum(math.prod(name.shape) for name in plan.names.values()),
        size_bytes=weights.size_bytes,
        fingerprint=fingerprint,
        has_tokenizer=tokenizer is not None,
        merged=tuple(source.merged),
        dropped=plan.dropped,
        notes=tuple(notes),
        seconds=time.monotonic() - started,
    )


def _check_ranks_differ(ranks: Sequence[Path], hashes: Mapping[Path, str]) -> None:
    first: dict[str, Path] = {}
    for file in ranks:
        other = first.setdefault(hashes[file], file)
        if other != file:
            raise CheckpointError(f"{file}: the same bytes as {other.name}; copy the right rank's file")


def parse_size(size: int | str) -> int:
    """Bytes in "5GB", "200MB", "64KB" (powers of 1000) or a plain number. Raises ValueError otherwise."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)B?\s*", str(size), flags=re.IGNORECASE)
    size_bytes = int(float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " ")) if match else 0
    if size_bytes <= 0:
        raise ValueError(f"max_shard_size is {size!r}, expected bytes above 0, such as 5GB or 200MB")
    return size_bytes


@dataclass(frozen=True)
class _Plan:
    """What will be written. dtype: of most of it. specs: in the order of HF names; names: by HF name."""

    source: SatSource
    config: CogVLMConfig
    dtype: str
    specs: tuple[TensorSpec, ...]
    names: Mapping[str, TensorName]
    dropped: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        return sum(spec.size_bytes for spec in self.specs)

    @cached_property
    def _dtypes(self) -> dict[str, torch.dtype]:
        return {spec.name: spec.dtype for spec in self.specs}

    def make(self, hf: str) -> Tensor | Iterator[Tensor]:
        """The tensor's pieces, each made when it is asked for."""
        if is_rotary(hf):
            return rotary_table(self.config)
        return self.source.pieces(self.names[hf], dtype=self._dtypes[hf])


def _plan(source: SatSource, *, template: str, dtype: str | None, inv_freq: str) -> _Plan:
    files = source.files
    config = from_sat(files.config, keys=source.keys, template=template, where=files.config_file)
    names = tensor_names(config)
    check_source(source, names)
    main_dtype = dtype or source.common_dtype()
    if inv_freq == "keep":
        config.rope_inv_freq = _stored_rotary(source, names)
        config.rope_dtype = main_dtype
    by_hf = {name.hf: name for name in names if name.hf is not None}
    shape = tuple(rotary_table(config).shape)
    specs = [TensorSpec(hf, torch.float32, shape) for hf in rotary_names(config)]
    for hf, name in by_hf.items():
        specs.append(TensorSpec(hf, DTYPES[dtype] if dtype else source.dtype(name.sat), name.shape))
    specs.sort(key=lambda spec: _natural(spec.name))
    dropped = tuple(name.sat for name in names if name.hf is None and name.sat in source.keys)
    return _Plan(source, config, main_dtype, tuple(specs), by_hf, dropped)


def _stored_rotary(source: SatSource, names: Sequence[TensorName]) -> list[float]:
    if ROTARY not in source.keys:
        raise CheckpointError(
            f"{source.files.weights[0]}: no {ROTARY!r} to keep; convert with --inv-freq recompute"
        )
    name = next(name for name in names if name.sat == ROTARY)
    stored: list[float] = torch.cat(list(source.pieces(name, dtype=torch.float32))).tolist()
    return stored


def _merge_notes(merged: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for item in merged:
        if "count" in item:
            yield f"merged {item['count']} {item['what']}"
        else:
            yield f"merged {item['what']} of rank {item['rank']} into {len(item['tensors'])} tensors"


def _tokenizer_notes(tokenizer: str | Path | None, folder: Path, config: CogVLMConfig) -> list[str]:
    """Installs it, if there is one."""
    if tokenizer is None:
        return ["no tokenizer: logits work, generating from text needs one (--tokenizer DIR_OR_HUB_ID)"]
    note = install_tokenizer(tokenizer, folder, config)
    return [] if note is None else [note]


def rotary_table(config: CogVLMConfig) -> Tensor:
    """[D/2] float32, which the official HF class needs to find in the file."""
    if config.rope_inv_freq is not None:
        return torch.tensor(config.rope_inv_freq, dtype=torch.float32)
    steps = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    return 1.0 / config.rope_theta**steps


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts layers.2 before layers.10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]
