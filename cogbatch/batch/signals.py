"""Signals at moments that must not be broken off: Ray starts processes, or ends them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 3  # how many come before the block is broken off all the same


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], None], *numbers: signal.Signals) -> Iterator[None]:
    """Inside the block that handler has these signals, but for those that are ignored, as nohup does.

    Handlers that this process had are there again afterwards, whatever the block installs. Does nothing
    outside the main thread, which alone gets signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: own for number in numbers if (own := signal.getsignal(number)) is not None}
    try:
        for number, own in before.items():
            if own is not signal.SIG_IGN:
                signal.signal(number, handler)
        yield
    finally:
        for number, own in before.items():
            signal.signal(number, own)


@contextmanager
def held_back() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP wait for the end of the block, where the first that came is given again.

    An exception that is raised while a process forks can leave a lock of logging held for ever. ray.init puts
    a handler of its own in place for SIGTERM, which from then on breaks the block off by SystemExit.
    """
    came: list[int] = []

    def hold(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        if len(came) >= PATIENCE:
            raise KeyboardInterrupt

    try:
        with handled_by(hold, *SIGNALS):
            yield
    except SystemExit as err:
        if err.code == signal.SIGTERM:
            came.append(signal.SIGTERM)
        raise
    finally:
        if came:
            signal.raise_signal(came[0])
