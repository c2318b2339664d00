"""Progress of a job for a person: a live line on a terminal, plain lines elsewhere. Never on stdout."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cogbatch.redact import sayable

PLAIN_EVERY_S = 5.0


@dataclass(frozen=True)
class Status:
    """How far a job is, or several together: jobs, of which jobs_done have all rows.

    rows_before: done by earlier runs. seconds: since this run's first pass began; working_s: since a worker
    had its model, of which speeds are.
    """

    rows: int
    rows_total: int
    rows_before: int = 0
    errors: int = 0
    tokens: int = 0
    workers: int = 0
    loading: int = 0
    seconds: float = 0.0
    working_s: float = 0.0
    jobs: int = 1
    jobs_done: int = 0

    @property
    def items_per_s(self) -> float:
        """Items of this run per second."""
        return (self.rows - self.rows_before) / self.working_s if self.working_s else 0.0

    @property
    def tokens_per_s(self) -> float:
        """Tokens generated in this run per second."""
        return self.tokens / self.working_s if self.working_s else 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds left at this speed; None while nothing is known."""
        return (self.rows_total - self.rows) / self.items_per_s if self.items_per_s else None

    def line(self) -> str:
        """All of it in one line."""
        eta = "-" if self.eta_s is None else clock(self.eta_s)
        loading = f" ({self.loading} loading)" if self.loading else ""
        jobs = f"{self.jobs_done}/{self.jobs} points  " if self.jobs > 1 else ""
        return (
            f"{jobs}{self.rows}/{self.rows_total} items  {self.items_per_s:.1f} items/s  "
            f"{self.tokens_per_s:.0f} tokens/s  {self.errors} errors  "
            f"{self.workers} worker{'s' * (self.workers != 1)}{loading}  ETA {eta}"
        )


class Progress(Protocol):
    """Where a job says how it goes."""

    def say(self, line: str) -> None:
        """One line that stays."""

    def update(self, status: Status) -> None:
        """The latest status; called about once a second."""

    def close(self) -> None:
        """Leaves the terminal as it was."""


class Silent:
    """Says nothing: for callers in Python."""

    def say(self, line: str) -> None:
        """Nothing."""

    def update(self, status: Status) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class PlainProgress:
    """Lines, at most one status every few seconds."""

    def __init__(self, stream: TextIO, *, every_s: float = PLAIN_EVERY_S) -> None:
        self._stream, self._every_s = stream, every_s
        self._last_s, self._last_rows = float("-inf"), -1

    def say(self, line: str) -> None:
        """One line."""
        print(sayable(line), file=self._stream, flush=True)

    def update(self, status: Status) -> None:
        """One line, if the last one is old enough or the job is complete."""
        is_new_end = status.rows == status.rows_total > self._last_rows
        if time.monotonic() - self._last_s >= self._every_s or is_new_end:
            self._last_s, self._last_rows = time.monotonic(), status.rows
            self.say(status.line())

    def close(self) -> None:
        """Nothing to restore."""


class RichProgress:
    """A bar with its numbers below it, redrawn in place."""

    def __init__(self, stream: TextIO, *, console: Console | None = None) -> None:
        self._live = Live(
            console=console or Console(file=stream), refresh_per_second=4, redirect_stderr=False
        )
        self._live.start()

    def say(self, line: str) -> None:
        """One line above the bar."""
        self._live.console.print(sayable(line), markup=False, highlight=False)

    def update(self, status: Status) -> None:
        """Redraws the bar."""
        rows = Table.grid(expand=True)  # a bar alone does not end its line
        rows.add_row(ProgressBar(total=status.rows_total, completed=status.rows))
        rows.add_row(Text(status.line()))
        self._live.update(rows)

    def close(self) -> None:
        """Stops redrawing; the last state stays."""
        self._live.stop()


def open_progress(stream: TextIO | None = None) -> Progress:
    """Progress on a copy of stderr (or stream), which stays the user's while Ray's is redirected."""
    stream = sys.stderr if stream is None else stream
    try:
        own = os.fdopen(os.dup(stream.fileno()), "w", buffering=1, encoding="utf-8", errors="replace")
    except OSError:  # a stream without a file, as in tests
        return PlainProgress(stream)
    return RichProgress(own) if own.isatty() else PlainProgress(own)


def of_bytes(done: int, total: int, per_s: float) -> str:
    """For example "13.2 of 33.0 GB, 512 MB/s"."""
    return f"{done / 1e9:.1f} of {total / 1e9:.1f} GB, {per_s / 1e6:.0f} MB/s"


def of_rows(done: int, total: int, per_s: float) -> str:
    """For example "13,000 of 33,000 rows, 512 rows/s"."""
    return f"{done:,} of {total:,} rows, {per_s:.0f} rows/s"


def percent(
    verb: str,
    say: Callable[[str], None],
    *,
    every_s: float = PLAIN_EVERY_S,
    of: Callable[[int, int, float], str] = of_bytes,
) -> Callable[[int, int], None]:
    """An on_progress(done, in total) that says "<verb>: 40 % (13.2 of 33.0 GB, 512 MB/s)".

    Every few seconds: nothing for what is quick. The speed is that since the last line.

    Args:
        of: says how much of how much, and how fast per second.
    """
    last_s, last_done = time.monotonic(), 0

    def report(done: int, total: int) -> None:
        nonlocal last_s, last_done
        passed_s = time.monotonic() - last_s
        if passed_s >= every_s:
            per_s = (done - last_done) / max(passed_s, 1e-9)
            last_s, last_done = last_s + passed_s, done
            say(f"{verb}: {100 * done // max(total, 1)} % ({of(done, total, per_s)})")

    return report


def clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
