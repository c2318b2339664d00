"""cogbatch report: run directories as one page."""

from __future__ import annotations

from typing import Annotated

import typer

from cogbatch.cli.app import app
from cogbatch.cli.options import (
    Checker,
    Debug,
    Json,
    Metric,
    References,
    Threshold,
    judge_options,
    processes,
    rows_percent,
    show,
)


@app.command(no_args_is_help=True)
def report(
    run_dirs: Annotated[
        list[str],
        typer.Argument(metavar="RUN", help="Run directories, or a sweep's, which stands for its points."),
    ],
    max_items: Annotated[
        int, typer.Option(min=0, max=1000, help="Items shown with image and candidates.")
    ] = 60,
    checker: Checker = None,
    references: References = None,
    metric: Metric = None,
    threshold: Threshold = None,
    quality: Annotated[
        str | None,
        typer.Option(help="Metric up, of several runs. [default: correct, score or logprob_per_token]"),
    ] = None,
    diversity: Annotated[
        str | None, typer.Option(help="Metric across, of several runs. [default: vendi_score]")
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="The page. [default: report.html in the first directory]")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write one HTML page about runs: figures, charts, errors, a gallery; several runs side by side.

    \b
    cogbatch report runs/demo --checker jobs.demo.check:check
    cogbatch report runs/demo runs/demo-diverse --out comparison.html
    """
    del debug
    from cogbatch.eval.report import write_report

    path = write_report(
        *run_dirs,
        max_items=max_items,
        judge=judge_options(checker, references, metric, threshold),
        quality=quality,
        diversity=diversity,
        out=out,
        workers=processes(),
        on_progress=rows_percent("read"),
    )
    show([str(path)], {"report": str(path)}, as_json=as_json)
