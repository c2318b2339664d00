"""What a job on a cluster prints, as it prints it, through broken streams. Knows no Ray."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from cogbatch.batch.submission import JobClient, SubmittedJob, UnknownJobError, find_job
from cogbatch.errors import JobError

QUIET_S = 20.0  # a stream that says nothing for so long may have stopped following: attach again
PAUSE_S = 1.0  # between two attempts
GONE_S = 120.0  # without an answer, then the head is gone


def follow_logs(
    client: JobClient,
    job_id: str,
    write: Callable[[str], object],
    *,
    quiet_s: float = QUIET_S,
    pause_s: float = PAUSE_S,
    gone_s: float = GONE_S,
    clock: Callable[[], float] = time.monotonic,
) -> SubmittedJob:
    """Writes all that the job printed and prints until it has ended, each character once; returns the job.

    A stream that breaks, ends early or falls silent is attached to again: it starts at the beginning, and
    what was written is skipped.

    Raises JobError: the head does not know the job, or has not answered for gone_s.
    """
    written, run_path = 0, "RUN_DIR"
    answered = clock()
    while True:
        written = asyncio.run(_tail(client, job_id, write, written, quiet_s))
        try:
            job = find_job(client, job_id)
            run_path = job.run_path or run_path
            if job.has_ended:
                text = client.get_job_logs(job_id)  # what a broken stream did not deliver
                write(text[written:])
                return job
            answered = clock()
        except UnknownJobError:
            raise
        except (JobError, RuntimeError, ConnectionError) as err:
            if clock() - answered > gone_s:
                raise JobError(
                    f"job {job_id}: the head has not answered for {gone_s:.0f} s; its jobs end with it."
                    f" What a job finished is in its run directory: cogbatch status {run_path}"
                ) from err
        time.sleep(pause_s)


async def _tail(
    client: JobClient, job_id: str, write: Callable[[str], object], written: int, quiet_s: float
) -> int:
    """Writes what comes after the first `written` characters, until the stream ends; returns how many."""
    stream = client.tail_job_logs(job_id)
    seen = 0
    try:
        while True:
            try:
                chunk = await asyncio.wait_for(anext(stream), quiet_s)
            except Exception:  # its end, or whatever broke it: the head is asked next
                return written
            seen += len(chunk)
            if seen > written:
                write(chunk[written - seen :])
                written = seen
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            with contextlib.suppress(Exception):
                await close()
