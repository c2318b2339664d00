"""cogbatch export-sat: from Hugging Face back to SAT."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cogbatch.cli.app import app
from cogbatch.cli.options import Debug, Json, percent, show


@app.command(no_args_is_help=True)
def export_sat(
    hf_dir: Annotated[Path, typer.Argument(help="Model directory: a converted or an official one.")],
    out_dir: Annotated[Path, typer.Argument(help="SAT checkpoint to write: the directory SAT loads from.")],
    model_parallel_size: Annotated[
        int, typer.Option(min=1, help="Ranks to share the model; one file each.")
    ] = 1,
    iteration: Annotated[int, typer.Option(min=1, help="Folder of the weights, named in `latest`.")] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT_DIR.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Export a Hugging Face model directory as a SAT checkpoint, the way back from convert.

    \b
    cogbatch export-sat models/chat checkpoints/chat
    cogbatch export-sat models/chat checkpoints/chat-mp2 --model-parallel-size 2
    """
    del debug
    from cogbatch.checkpoint.export import export_sat as export

    path = export(
        hf_dir,
        out_dir,
        model_parallel_size=model_parallel_size,
        iteration=iteration,
        overwrite=overwrite,
        on_progress=percent("exporting"),
    )
    files = {file.name: file.stat().st_size for file in sorted((path / str(iteration)).iterdir())}
    size_bytes = sum(files.values())
    ranks = "1 rank" if len(files) == 1 else f"{len(files)} model-parallel ranks"
    result = {
        "path": path,
        "iteration": iteration,
        "model_parallel_size": len(files),
        "files": list(files),
        "size_bytes": size_bytes,
    }
    show([f"{path}: iteration {iteration}, {ranks}, {size_bytes / 1e6:.1f} MB"], result, as_json=as_json)
