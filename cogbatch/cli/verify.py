"""cogbatch verify: whether a model directory is what it says, and computes what its source does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cogbatch.cli.app import app
from cogbatch.cli.options import Debug, Json, show


@app.command(no_args_is_help=True)
def verify(
    hf_dir: Annotated[Path, typer.Argument(help="Model directory, converted or official.")],
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="SAT_DIR",
            help="Its source: run it with SwissArmyTransformer (extra sat), and compare. [default: none]",
        ),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Largest difference of fp32 logits to the source's.")
    ] = 1e-4,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Check a model directory: one line per check; exit code 1 when one has FAILED.

    \b
    cogbatch verify models/chat
    cogbatch verify models/chat --against cogvlm-chat-v1.1/
    """
    del debug
    from cogbatch.checkpoint.verify.run import verify as verify_directory

    result = verify_directory(
        hf_dir, against=against, tolerance=tolerance, on_check=lambda check: typer.echo(check.line)
    )
    show([result.summary], result.to_json(), as_json=as_json)
    if not result.ok:
        raise typer.Exit(1)
