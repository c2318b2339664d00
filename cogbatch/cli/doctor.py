"""cogbatch doctor: what is wrong with a Hugging Face directory, and mending it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cogbatch.cli.app import app
from cogbatch.cli.options import Debug, Json, percent, show


@app.command(no_args_is_help=True)
def doctor(
    hf_dir: Annotated[Path, typer.Argument(help="Hugging Face model directory, official or converted.")],
    fix: Annotated[
        bool, typer.Option("--fix", help="Mend what can be mended; replaced files stay as *.bak.")
    ] = False,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="Directory or hub id; a fix installs it where there is none. [default: none]"),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Find the known ills of a Hugging Face CogVLM directory, and mend them; runs no code from it.

    Exits 0 when it is well, or well again, and 1 when an ill is left.

    \b
    cogbatch doctor models/cogvlm-chat-hf
    cogbatch doctor models/cogvlm-chat-hf --fix --tokenizer lmsys/vicuna-7b-v1.5
    """
    del debug
    from cogbatch.checkpoint.doctor.examine import examine

    found = examine(hf_dir, fix=fix, tokenizer=tokenizer, on_progress=percent("writing"))
    lines = []
    for ill in found.ills:
        offered = "--fix " if ill.can_mend else ""
        state, advice = ("mended", ill.advice) if ill.mended else ("ill", f"{offered}{ill.advice}")
        lines.append(f"{state}: {ill.ill}: {ill.what}; {ill.why}. {advice[:1].upper()}{advice[1:]}")
    if found.kept:
        lines.append("kept: " + ", ".join(f"{name} as {kept}" for name, kept in sorted(found.kept.items())))
    lines += found.notes
    left = sum(not ill.mended for ill in found.ills)
    lines.append(f"{hf_dir}: " + (f"{left} of {len(found.ills)} ills left" if left else "no known ill"))
    show(lines, {**asdict(found), "is_well": found.is_well}, as_json=as_json)
    if not found.is_well:
        raise typer.Exit(1)
