"""cogbatch report: a run directory as one page."""

from __future__ import annotations

from typing import Annotated

import typer

from cogbatch.cli.app import app
from cogbatch.cli.options import Debug, Json, show


@app.command(no_args_is_help=True)
def report(
    run_dir: Annotated[str, typer.Argument(help="Run directory: the output.path of a job.")],
    max_items: Annotated[int, typer.Option(min=0, help="Items shown with image and candidates.")] = 60,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write report.html into a run directory: one page with counts, metrics and a sample of items.

    \b
    cogbatch report runs/demo
    cogbatch report runs/demo --max-items 200
    """
    del debug
    from cogbatch.eval.report import write_report

    path = str(write_report(run_dir, max_items=max_items))
    show([path], {"report": path}, as_json=as_json)
