"""cogbatch sweep: one job in many settings, and which of them to take."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from cogbatch.cli.app import app
from cogbatch.cli.interrupt import resumable
from cogbatch.cli.jobs import RESUME, Address, Limit, Override, with_flags
from cogbatch.cli.options import Debug, Json, processes, rows_percent, show


@app.command(no_args_is_help=True)
def sweep(
    spec: Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="The sweep spec.")],
    overrides: Override = None,
    address: Address = None,
    limit: Limit = None,
    recommend: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FLOORS", help="Name the cheapest point that meets these: 'correct>=0.9,vendi_score>=4'."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and list the points, run nothing.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run one job in many settings over shared workers and compare them; run it again to resume.

    \b
    cogbatch sweep jobs/demo/sweep.yaml --dry-run
    cogbatch sweep sweep.yaml --recommend "correct>=0.9,vendi_score>=4"
    """
    del debug
    from cogbatch.batch.sweep import plan_sweep, run_sweep
    from cogbatch.batch.sweep_spec import load_sweep
    from cogbatch.dataset.object_path import place_of
    from cogbatch.errors import EvaluationError, JobError
    from cogbatch.eval import recommend as floors
    from cogbatch.eval import sweep_files
    from cogbatch.eval.judge import load_function
    from cogbatch.eval.stored_sweep import open_sweep
    from cogbatch.eval.sweep_table import tabulate

    given = load_sweep(spec, overrides=with_flags(overrides, address, limit))
    asked = floors.parse_floors(recommend or [], judged=given.judge is not None)
    if given.judge is not None and given.judge.checker is not None:
        load_function(given.judge.checker)  # what cannot judge is said before anything runs
    if dry_run:
        plan = plan_sweep(given)
        show(plan.lines(), plan.to_json(), as_json=as_json)
        raise typer.Exit(1 if plan.problems else 0)
    with resumable(RESUME) as progress:
        run_sweep(given, progress=progress)
        progress.say(f"comparing {len(given.points)} points")
        progress.close()
        swept = open_sweep(given.path)
        try:
            table = tabulate(swept, workers=processes(), on_progress=rows_percent("compared"))
        except EvaluationError as err:
            raise EvaluationError(
                f"{err}. Finished parts are kept: mend the judge and run the same command again, which does"
                " only what is missing, and the table"
            ) from err
        sweep_files.write_table(table, place_of(given.path))
    lines, result = sweep_files.lines(table), sweep_files.to_json(table)
    if sys.stdout.isatty():
        from cogbatch.cli.scatter import scatter

        lines += scatter(table, width=shutil.get_terminal_size().columns)
    if asked:
        found = floors.recommend(table, asked)
        lines, result = [*lines, *found.lines()], {**result, "recommended": found.to_json()}
    show([*lines, f"table: {given.path}/table.md"], {**result, "path": given.path}, as_json=as_json)
    if table.failures:
        first, reason = next(iter(table.failures.items()))
        count = len(table.failures)
        raise JobError(f"{count} of {len(table.points)} points failed; {first}: {reason}")
