"""cogbatch convert: from SAT to Hugging Face."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from cogbatch.cli.app import app
from cogbatch.cli.options import Debug, Json, Tokenizer, Version, percent, show
from cogbatch.types import Dtype


@app.command(no_args_is_help=True)
def convert(
    sat_dir: Annotated[Path, typer.Argument(help="SAT checkpoint: the directory with model_config.json.")],
    out_dir: Annotated[Path, typer.Argument(help="Model directory to write; loads with plain transformers.")],
    tokenizer: Tokenizer = None,
    dtype: Annotated[Dtype | None, typer.Option(help="Of the tensors. [default: the source's own]")] = None,
    version: Version = None,
    iteration: Annotated[
        str | None,
        typer.Option(help="A number, release, or a folder such as 800-ema. [default: the latest]"),
    ] = None,
    merge_lora: Annotated[
        bool,
        typer.Option("--merge-lora/--no-merge-lora", help="Merge unmerged LoRA weights, or refuse them."),
    ] = True,
    inv_freq: Annotated[
        Literal["recompute", "keep"], typer.Option(help="Rotary frequencies: computed, or those stored.")
    ] = "recompute",
    max_shard_size: Annotated[str, typer.Option(help="Of one safetensors file.")] = "5GB",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT_DIR.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Convert a SAT checkpoint to a Hugging Face model directory.

    \b
    cogbatch convert cogvlm-chat-v1.1/ models/chat --tokenizer lmsys/vicuna-7b-v1.5
    cogbatch convert jobs/demo/checkpoint models/demo --tokenizer jobs/demo/tokenizer --dtype float32
    """
    del debug
    from cogbatch.checkpoint.convert import convert as convert_checkpoint

    report = convert_checkpoint(
        sat_dir,
        out_dir,
        tokenizer=tokenizer,
        dtype=dtype,
        version=version,
        iteration=iteration,
        merge_lora=merge_lora,
        inv_freq=inv_freq,
        max_shard_size=max_shard_size,
        overwrite=overwrite,
        on_progress=percent("converting"),
    )
    speed = f"in {report.seconds:.1f} s, {report.size_bytes / 1e6 / max(report.seconds, 1e-3):.0f} MB/s"
    size = f"{report.num_parameters:,} parameters, {report.size_bytes / 1e6:.1f} MB ({speed})"
    lines = [f"{report.path}: {report.num_tensors} tensors, {size}, template {report.template_version}"]
    show([*lines, *report.notes], asdict(report), as_json=as_json)
