"""cogbatch submit, logs, stop and list: jobs on a cluster, from outside it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cogbatch.cli.app import app
from cogbatch.cli.jobs import Override, Spec
from cogbatch.cli.options import Debug, Json, show
from cogbatch.redact import without_secrets

if TYPE_CHECKING:
    from cogbatch.batch.submission import JobClient, SubmittedJob

HEAD = "http://127.0.0.1:8265"
Address = Annotated[str, typer.Option(metavar="URL", help="Dashboard of the cluster's head.")]
JobId = Annotated[str, typer.Argument(metavar="JOB_ID", help="As submit and list show it.")]


@app.command(no_args_is_help=True)
def submit(
    job: Spec,
    overrides: Override = None,
    address: Address = HEAD,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Follow the job to its end, or return at once.")
    ] = True,
    command: Annotated[str, typer.Option(help="How the head's shell calls cogbatch.")] = "cogbatch",
    job_id: Annotated[
        str | None, typer.Option("--id", help="Id of the job, not used before. [default: made by Ray]")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run a job on a cluster, from outside it; paths are the cluster's, relative ones become absolute.

    \b
    cogbatch submit job.yaml --address http://head:8265
    cogbatch submit job.yaml --address http://head:8265 --no-wait --set generation.seed=1 --json
    """
    del debug
    from cogbatch.batch import submission
    from cogbatch.batch.spec import load_spec

    spec = load_spec(job, overrides=overrides or [])
    client = submission.connect(address)
    made = submission.submit_job(client, spec, command=command, job_id=job_id)
    typer.echo(f"job {made.job_id} on {without_secrets(address)}, run directory {made.run_path}", err=True)
    if wait:
        try:
            made = _follow(client, made.job_id, to_stderr=True)
        except KeyboardInterrupt:
            typer.echo(
                f"The job goes on. cogbatch logs {made.job_id} --follow, or stop {made.job_id}.", err=True
            )
            raise typer.Exit(130) from None
        submission.require_success(made)
    show([made.line()], made.to_json(), as_json=as_json)


@app.command(no_args_is_help=True)
def logs(
    job_id: JobId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job ends; exit 1 if it ends badly.")
    ] = False,
    address: Address = HEAD,
    debug: Debug = False,
) -> None:
    """Show what a job printed; after the head is gone, status still reads the run directory.

    \b
    cogbatch logs raysubmit_2c7ZkM --address http://head:8265
    cogbatch logs raysubmit_2c7ZkM -f
    """
    del debug
    from cogbatch.batch import submission

    client = submission.connect(address)
    if follow:
        try:
            submission.require_success(_follow(client, job_id))
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        return
    sys.stdout.write(submission.asking(lambda: client.get_job_logs(job_id), f"job {job_id}"))


@app.command(no_args_is_help=True)
def stop(job_id: JobId, address: Address = HEAD, as_json: Json = False, debug: Debug = False) -> None:
    """End a job; finished parts are kept, and the same spec submitted again does what is missing.

    \b
    cogbatch stop raysubmit_2c7ZkM
    cogbatch stop raysubmit_2c7ZkM --address http://head:8265 --json
    """
    del debug
    from cogbatch.batch import submission

    job = submission.stop_job(submission.connect(address), job_id)
    show([job.line()], job.to_json(), as_json=as_json)


@app.command("list")
def list_jobs(
    folder: Annotated[
        str | None, typer.Argument(help="Run directories in this folder, instead of jobs on a head.")
    ] = None,
    address: Address = HEAD,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List the jobs that a head knows, or the run directories in a folder, one line each.

    \b
    cogbatch list --address http://head:8265
    cogbatch list runs/ --json
    """
    del debug
    if folder is not None:
        from cogbatch.batch.found_runs import find_runs

        runs = find_runs(folder)
        lines = [run.line() for run in runs] or [f"no runs in {without_secrets(folder, whole=True)}"]
        show(lines, {"runs": [run.to_json() for run in runs]}, as_json=as_json)
        return
    from cogbatch.batch import submission

    jobs = submission.list_jobs(submission.connect(address))
    lines = [job.line() for job in jobs] or [f"no jobs on {without_secrets(address)}"]
    show(lines, {"jobs": [job.to_json() for job in jobs]}, as_json=as_json)


def _follow(client: JobClient, job_id: str, *, to_stderr: bool = False) -> SubmittedJob:
    from cogbatch.batch.follow import follow_logs

    stream = sys.stderr if to_stderr else sys.stdout

    def write(text: str) -> None:
        stream.write(text)
        stream.flush()

    return follow_logs(client, job_id, write)
