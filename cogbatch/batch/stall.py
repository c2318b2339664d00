"""The stall timer of a worker process: no engine step or image for too long ends the process."""

from __future__ import annotations

import faulthandler
import threading
import time
from typing import TextIO

REARM_EVERY_S = 0.5  # faulthandler starts a thread for each timer; once per engine step would cost


class StallTimer:
    """faulthandler's one timer of this process; safe to use from several threads.

    Args:
        timeout_s: seconds without progress before all stacks are dumped to log and the process exits.
    """

    def __init__(self, timeout_s: float, *, log: TextIO) -> None:
        self._timeout_s = timeout_s
        self._log = log
        self._lock = threading.Lock()
        self._armed_at: float | None = None
        self._factor = 1.0

    def arm(self, *, factor: float = 1.0) -> None:
        """Starts the timer anew, for factor times the usual time."""
        with self._lock:
            self._factor = factor
            faulthandler.dump_traceback_later(self._timeout_s * factor, exit=True, file=self._log)
            self._armed_at = time.monotonic()

    def progress(self) -> None:
        """Starts the timer anew if it runs, for as long as it was armed."""
        armed_at = self._armed_at
        if armed_at is None or time.monotonic() - armed_at < min(REARM_EVERY_S, self._timeout_s / 4):
            return
        with self._lock:
            if self._armed_at is not None:
                faulthandler.dump_traceback_later(self._timeout_s * self._factor, exit=True, file=self._log)
                self._armed_at = time.monotonic()

    def disarm(self) -> None:
        """Stops the timer: nothing is being worked on."""
        with self._lock:
            faulthandler.cancel_dump_traceback_later()
            self._armed_at = None
