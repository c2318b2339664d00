"""Laws of following logs: every character once, however the stream breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_submission import info

from cogbatch.batch.follow import follow_logs
from cogbatch.errors import JobError


class Broken:
    """A head whose job prints `text` in pieces; the streams break as told, and the last one tells all.

    breaks: for each stream how many characters it delivers, and then how it breaks.
    """

    def __init__(self, text: str, breaks: Sequence[tuple[int, str]], *, status: str = "SUCCEEDED") -> None:
        self._text, self._breaks, self._status = text, list(breaks), status
        self.streams = 0

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        assert job_id == "j"
        self.streams += 1
        left, how = self._breaks.pop(0) if self._breaks else (len(self._text), "ends")
        for start in range(0, left, 3):
            yield self._text[start : min(start + 3, left)]
        if how == "raises":
            raise RuntimeError("WebSocket connection closed unexpectedly with close code 1006")
        if how == "hangs":
            await asyncio.sleep(600)

    def get_job_info(self, job_id: str) -> Any:
        return info(
            job_id, status="RUNNING" if self._breaks else self._status, metadata={"run": "/shared/runs/a"}
        )

    def get_job_logs(self, job_id: str) -> str:
        assert job_id == "j"
        return self._text


def followed(head: Any, **options: Any) -> tuple[str, Any]:
    """What was written, and the job."""
    written: list[str] = []
    job = follow_logs(head, "j", written.append, **{"quiet_s": 0.02, "pause_s": 0.0, **options})
    return "".join(written), job


@given(
    st.text(max_size=20),
    st.lists(st.tuples(st.integers(0, 20), st.sampled_from(["ends", "raises"])), max_size=4),
)
def test_every_character_is_written_once(text: str, breaks: list[tuple[int, str]]) -> None:
    head = Broken(text, [(min(length, len(text)), how) for length, how in breaks])
    assert followed(head)[0] == text


def test_a_stream_that_falls_silent_is_attached_to_again() -> None:
    head = Broken("one\ntwo\nthree\n", [(5, "hangs"), (9, "hangs")])
    text, job = followed(head)
    assert (text, job.status, head.streams) == ("one\ntwo\nthree\n", "SUCCEEDED", 2)


def test_what_no_stream_delivered_is_written_at_the_end() -> None:
    head = Broken("one\ntwo\n", [(2, "raises")], status="FAILED")
    text, job = followed(head)
    assert (text, job.status, head.streams) == ("one\ntwo\n", "FAILED", 1)


class Deaf(Broken):
    """A head that answers once, and again after so many failures."""

    def __init__(self, failures: int) -> None:
        super().__init__("text", [(4, "ends")] * 5)
        self._failures, self._questions = failures, 0

    def get_job_info(self, job_id: str) -> Any:
        self._questions += 1
        if 1 < self._questions <= 1 + self._failures:
            raise ConnectionError("Failed to connect to Ray at address")
        return super().get_job_info(job_id)


def test_a_head_that_comes_back_is_waited_for() -> None:
    assert followed(Deaf(2), gone_s=10)[0] == "text"


def test_a_head_that_does_not_come_back_is_an_error_that_names_the_run_directory() -> None:
    ticks = iter(range(0, 10_000, 10))
    with pytest.raises(JobError, match=r"not answered for 120 s.*cogbatch status /shared/runs/a"):
        followed(Deaf(10**6), gone_s=120, clock=lambda: float(next(ticks)))


def test_a_job_that_is_not_there_is_an_error_at_once() -> None:
    class Empty(Broken):
        def get_job_info(self, job_id: str) -> Any:
            raise RuntimeError(f"Request failed with status code 404: Job {job_id} does not exist.")

    with pytest.raises(JobError, match="no such job"):
        followed(Empty("", []))


def test_a_reader_that_went_away_ends_the_following() -> None:
    """As in `cogbatch logs -f j | head`: only the stream may break."""

    def write(text: str) -> None:
        raise BrokenPipeError(text)

    with pytest.raises(BrokenPipeError):
        follow_logs(Broken("text", []), "j", write)
