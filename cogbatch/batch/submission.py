"""Jobs on a cluster from outside it: Ray's Jobs API, which runs `cogbatch run` on the head. Imports no torch.

What travels is the spec, as a file of its own; no environment variable and no other file does. The state of
a job is what the head says; its results are in the run directory, which outlives the head.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

import yaml

from cogbatch import __version__
from cogbatch.batch.spec import JobSpec
from cogbatch.errors import JobError
from cogbatch.redact import without_secrets

ENTRYPOINT = "run job.yaml --address auto"
ENDED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
STOP_WAIT_S = 60.0
POLL_S = 0.5
CHATTY = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
NOT_FOUND = 127  # a shell's exit code for a command that is not there

T = TypeVar("T")


class UnknownJobError(JobError):
    """The head knows no such job, so that asking again is of no use."""


class JobClient(Protocol):
    """What is used of ray.job_submission.JobSubmissionClient."""

    def submit_job(
        self,
        *,
        entrypoint: str,
        runtime_env: dict[str, Any],
        metadata: dict[str, str],
        submission_id: str | None,
    ) -> str:
        """Starts a job; returns its id."""

    def get_job_info(self, job_id: str) -> Any:
        """Status, message, exit code, times and metadata."""

    def get_job_logs(self, job_id: str) -> str:
        """All that the job printed so far."""

    def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        """The same from its beginning, and then what is printed."""

    def list_jobs(self) -> list[Any]:
        """Of the whole cluster."""

    def stop_job(self, job_id: str) -> bool:
        """Asks the job to end; False when it had ended."""


@dataclass(frozen=True)
class SubmittedJob:
    """A job as the head knows it. status: PENDING, RUNNING, or how it ended: SUCCEEDED, FAILED, STOPPED.

    run_path: of the run directory, as the head sees it; empty for a job that cogbatch did not submit.
    """

    job_id: str
    status: str
    name: str
    run_path: str
    message: str
    exit_code: int | None
    started: str | None
    ended: str | None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status in ENDED

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return asdict(self)

    def line(self) -> str:
        """All of it in one line."""
        code = f" (exit code {self.exit_code})" if self.exit_code else ""
        parts = [f"{self.job_id}  {self.status}{code}", self.name, self.run_path]
        times = f"{self.started or 'not started'} to {self.ended or 'now'}"
        return "  ".join(part for part in (*parts, times) if part)


def connect(address: str) -> JobClient:
    """A client of the head at that address.

    A token goes along when RAY_AUTH_MODE=token says so, or when RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH names
    one; a token that merely lies in the home directory is not shown to any head.

    Raises JobError: not an address of a dashboard, nobody answers, or the head wants another token.
    """
    if not re.match(r"https?://", address):  # Ray would take minutes to find out
        raise JobError(
            f"--address {address}: expected the dashboard of the head, for example http://head:8265;"
            " to run on a cluster that this machine belongs to: cogbatch run --address auto"
        )
    if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    from ray.job_submission import JobSubmissionClient  # a second of imports

    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    client: JobClient = asking(lambda: JobSubmissionClient(address), address)
    return client


def submit_job(
    client: JobClient, spec: JobSpec, *, command: str = "cogbatch", job_id: str | None = None
) -> SubmittedJob:
    """Starts the job on the head and returns at once.

    Args:
        command: how the head's shell calls cogbatch.
        job_id: one of your own choice; None lets Ray make one.

    Raises JobError: the head refuses, for example an id that was used before.
    """
    spec = with_absolute_paths(spec)
    metadata = {"cogbatch": __version__, "name": spec.name, "run": without_secrets(spec.output.path)}
    with tempfile.TemporaryDirectory(prefix="cogbatch-submit-") as folder:
        tree = spec.model_dump(mode="json", exclude_defaults=True)
        text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
        Path(folder, "job.yaml").write_text(text, encoding="utf-8")
        made = asking(
            lambda: client.submit_job(
                entrypoint=f"{command} {ENTRYPOINT}",
                runtime_env={"working_dir": folder},
                metadata=metadata,
                submission_id=job_id,
            ),
            f"job {job_id or spec.name}",
        )
    return find_job(client, made)


def find_job(client: JobClient, job_id: str) -> SubmittedJob:
    """One job as it is now. Raises JobError: the head does not know it, or does not answer."""
    return _submitted(asking(lambda: client.get_job_info(job_id), f"job {job_id}"))


def list_jobs(client: JobClient) -> list[SubmittedJob]:
    """The jobs that cogbatch submitted to this cluster, the oldest first. Raises JobError: no answer."""
    found = asking(client.list_jobs, "jobs")
    ours = [info for info in found if info.submission_id and "cogbatch" in (info.metadata or {})]
    return [_submitted(info) for info in sorted(ours, key=lambda info: info.start_time or 0)]


def stop_job(client: JobClient, job_id: str, *, wait_s: float = STOP_WAIT_S) -> SubmittedJob:
    """Ends a job and returns it when it has ended; one that had ended stays as it is. Parts are kept.

    Raises JobError: the head does not know the job, or it has not ended after wait_s.
    """
    asking(lambda: client.stop_job(job_id), f"job {job_id}")
    deadline = time.monotonic() + wait_s
    while not (job := find_job(client, job_id)).has_ended:
        if time.monotonic() > deadline:
            raise JobError(f"job {job_id} was told to stop and has not after {wait_s:.0f} s; stop it again")
        time.sleep(POLL_S)
    return job


def require_success(job: SubmittedJob) -> None:
    """Raises JobError when a job ended in another way than well."""
    if job.status == "SUCCEEDED":
        return
    if job.exit_code == NOT_FOUND:
        raise JobError(
            f"job {job.job_id}: the head does not find cogbatch on its PATH; start Ray there from the"
            " environment that has it, or say where it is: --command /opt/venv/bin/cogbatch"
        )
    if job.status == "FAILED" and job.exit_code is None:  # not our program: the head's, or the node's
        raise JobError(f"job {job.job_id} failed: {' '.join(job.message.split())[:500]}")
    how = f"failed with exit code {job.exit_code}" if job.status == "FAILED" else f"is {job.status}"
    raise JobError(f"job {job.job_id} {how}; finished parts are kept: submit the same spec again to go on")


def with_absolute_paths(spec: JobSpec) -> JobSpec:
    """The spec with every relative path made absolute from the current directory, as `run` reads it here.

    URLs, hub ids and paths from ~ (the home of whoever runs Ray on the head) stay as they are.
    """
    model, generation = spec.model, spec.generation
    changed: dict[str, Any] = spec.model_dump()
    changed["model"]["checkpoint"] = _absolute_or_hub(model.checkpoint)
    changed["model"]["tokenizer"] = _absolute_or_hub(model.tokenizer)
    changed["input"]["path"] = _absolute(spec.input.path)
    changed["input"]["image_root"] = _absolute(spec.input.image_root)
    changed["output"]["path"] = _absolute(spec.output.path)
    changed["generation"]["embedding_model"] = _absolute(generation.embedding_model)
    return JobSpec.model_validate(changed)


def asking(question: Callable[[], T], what: str) -> T:
    """The answer of the head. Raises JobError in one line where Ray has a traceback in a traceback."""
    from ray.exceptions import AuthenticationError

    try:
        return question()
    except AuthenticationError as err:
        raise JobError(
            f"{what}: the head wants its token: export RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or"
            " RAY_AUTH_TOKEN_PATH with the token that the cluster was started with"
        ) from err
    except OSError as err:  # that of requests, for a connection that breaks, is no ConnectionError
        raise JobError(
            f"{what}: the head does not answer; is it running, and is its dashboard open to this machine?"
            " How far a job is, its run directory says too: cogbatch status RUN_DIR"
        ) from err
    except RuntimeError as err:
        kind = UnknownJobError if "does not exist" in str(err) else JobError
        raise kind(f"{what}: {_reason(err)}") from err


def _reason(err: RuntimeError) -> str:
    text = str(err)
    if "does not exist" in text:
        return "the head knows no such job; cogbatch list shows those it knows"
    if "already exists" in text:
        return "the id was used before; choose another --id, or none"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else type(err).__name__


def _submitted(info: Any) -> SubmittedJob:
    metadata = info.metadata or {}
    return SubmittedJob(
        job_id=info.submission_id,
        status=str(getattr(info.status, "value", info.status)),
        name=metadata.get("name", ""),
        run_path=metadata.get("run", ""),
        message=info.message or "",
        exit_code=info.driver_exit_code,
        started=_time(info.start_time),
        ended=_time(info.end_time),
    )


def _time(milliseconds: int | None) -> str | None:
    if not milliseconds:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


def _absolute(path: str | None) -> str | None:
    if path is None or "://" in path or path.startswith("~"):
        return path
    return os.path.normpath(Path.cwd() / path)


def _absolute_or_hub(name: str | None) -> str | None:
    """Absolute when it is a path here; a hub id looks like one that is not."""
    if name is None or (not Path(name).exists() and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name)):
        return name
    return _absolute(name)
