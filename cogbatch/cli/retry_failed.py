"""cogbatch retry-failed: the error rows of a run once more."""

from __future__ import annotations

from typing import Annotated

import typer

from cogbatch.cli.app import app
from cogbatch.cli.interrupt import resumable
from cogbatch.cli.jobs import Address, Override
from cogbatch.cli.options import Debug, Json, show


@app.command("retry-failed", no_args_is_help=True)
def retry_failed(
    run_dir: Annotated[str, typer.Argument(help="Run directory: the output.path of a job.")],
    overrides: Override = None,
    address: Address = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run only the error rows of a run again; their parts are replaced whole, other rows stay as they are.

    \b
    cogbatch retry-failed runs/demo
    cogbatch retry-failed runs/demo --set errors.stall_timeout_s=1200 --json
    """
    del debug
    from cogbatch.batch import retry

    given = [*(overrides or []), *([f"cluster.address={address}"] if address else [])]
    with resumable("Each part is the old or the new one; run it again to go on.") as progress:
        result = retry.retry_failed(run_dir, overrides=given, progress=progress)
    show(result.lines(), result.to_json(), as_json=as_json)
