"""cogbatch status: how far a job is, by its run directory and, while there is one, by its head."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cogbatch.cli.app import app
from cogbatch.cli.options import Debug, Json, show
from cogbatch.cli.submit import HEAD, Address


@app.command(no_args_is_help=True)
def status(
    target: Annotated[
        str, typer.Argument(metavar="DIR|JOB_ID", help="The directory of a run or sweep, or a job's id.")
    ],
    address: Address = HEAD,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show how far a job is: rows, errors, shards, speed, who drives it and when it last wrote.

    A run directory needs neither head nor driver; for a job's id the head is asked where it is.

    \b
    cogbatch status runs/demo
    cogbatch status raysubmit_2c7ZkM --address http://head:8265 --json
    """
    del debug
    from cogbatch.batch.found_runs import sweep_status
    from cogbatch.batch.status import run_status

    if "/" in target or Path(target).is_dir():
        found = sweep_status(target) or run_status(target)
        show(found.lines(), found.to_json(), as_json=as_json)
        return
    from cogbatch.batch import submission
    from cogbatch.errors import RunDirectoryError

    job = submission.find_job(submission.connect(address), target)
    lines, result = [job.line()], job.to_json()
    try:
        run = run_status(job.run_path) if job.run_path else None
    except RunDirectoryError:
        run = None
        lines.append(f"its run directory cannot be read here, or has not begun: {job.run_path}")
    lines += [] if run is None else run.lines()
    show(lines, result | {"run": None if run is None else run.to_json()}, as_json=as_json)
