"""Signals at moments that must not be broken off: Ray starts processes, or ends them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 3  # how many come before the block is broken off all the same


@contextmanager
def held_back() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP wait for the end of the block, where the first that came is given again.

    An exception that is raised while a process forks can leave a lock of logging held for ever. Handlers
    that this process had are there again afterwards, whatever the block installs: ray.init puts one of its
    own in place for SIGTERM, which from then on breaks the block off by SystemExit. What is ignored stays so.
    Does nothing outside the main thread, which alone gets signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def hold(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        if len(came) >= PATIENCE:
            raise KeyboardInterrupt

    own = {number: handler for number in SIGNALS if (handler := signal.getsignal(number)) is not None}
    try:
        for number, handler in own.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, hold)
        yield
    except SystemExit as err:
        if err.code == signal.SIGTERM:
            came.append(signal.SIGTERM)
        raise
    finally:
        for number, handler in own.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
