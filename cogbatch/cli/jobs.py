"""cogbatch run and plan: a job spec, carried out or only checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cogbatch.cli.app import app
from cogbatch.cli.interrupt import resumable
from cogbatch.cli.options import Debug, Json, show

if TYPE_CHECKING:
    from cogbatch.batch.spec import JobSpec

RESUME = "Finished parts are kept; run the same command again to resume."
Spec = Annotated[Path, typer.Argument(metavar="JOB.yaml", help="The job spec.")]
Override = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Overrides one key of the spec; the value is YAML."),
]
Address = Annotated[
    Literal["local", "auto"] | None,
    typer.Option(help="Start Ray here, or join the cluster of this machine. [default: the spec's]"),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first N rows. [default: the spec's]")]


@app.command(no_args_is_help=True)
def run(
    job: Spec,
    overrides: Override = None,
    address: Address = None,
    limit: Limit = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and count everything, run nothing: the command plan.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run a job, or what is missing of it; run it again to resume.

    \b
    cogbatch run jobs/demo/job.yaml
    cogbatch run job.yaml --set generation.num_candidates=4 --set output.path=runs/four --limit 100
    """
    if dry_run:
        return plan(job, overrides, address, limit, as_json=as_json, debug=debug)
    from cogbatch.batch.job import run_job

    spec = _load(job, overrides, address, limit)
    with resumable(RESUME) as progress:
        summary = run_job(spec, progress=progress)
    show(summary.lines(), summary.to_json(), as_json=as_json)
    return None


@app.command(no_args_is_help=True)
def plan(
    job: Spec,
    overrides: Override = None,
    address: Address = None,
    limit: Limit = None,
    items_per_s: Annotated[
        float | None,
        typer.Option(min=1e-9, help="Measured speed of one worker, for hours. [default: an earlier run's]"),
    ] = None,
    price_per_hour: Annotated[
        float | None, typer.Option(min=0, help="Of one worker, in any currency. [default: no cost]")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Check a job, count its rows and shards, and say what fits where, without weights and without Ray.

    Exits 1 where it would not run, or not end well.

    \b
    cogbatch plan jobs/demo/job.yaml
    cogbatch plan job.yaml --set model.quantization=int8 --items-per-s 0.8 --price-per-hour 2.50 --json
    """
    del debug
    from cogbatch.batch.plan import plan_job

    spec = _load(job, overrides, address, limit)
    result = plan_job(spec, items_per_s=items_per_s, price_per_hour=price_per_hour)
    show(result.lines(), result.to_json(), as_json=as_json)
    if result.problems:
        raise typer.Exit(1)


def _load(job: Path, overrides: list[str] | None, address: str | None, limit: int | None) -> JobSpec:
    from cogbatch.batch.spec import load_spec

    return load_spec(job, overrides=with_flags(overrides, address, limit))


def with_flags(overrides: list[str] | None, address: str | None, limit: int | None) -> list[str]:
    """Overrides, those that have a flag of their own last."""
    flags = [("cluster.address", address), ("input.limit", limit)]
    return [*(overrides or []), *(f"{key}={value}" for key, value in flags if value is not None)]
