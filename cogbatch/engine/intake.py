"""Prompts prepared ahead of the engine: threads pull requests and make prompts of them, in any order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass(frozen=True)
class _End:
    """Nothing comes after it. error: what the source raised."""

    error: BaseException | None


class Intake(Iterator[tuple[Given, Made]], Generic[Given, Made]):
    """(request, prepared) as they become ready: one slow image does not hold up the others.

    The source may block for ever waiting for more work; `ready` tells whether taking the next one would.
    Close it to let go of the threads; one that waits in the source ends when the source goes on.

    Args:
        requests: pulled lazily, by one thread at a time.
        make: runs in several threads at once; must not raise.
        ahead: how many may be ready and not yet taken.
    """

    def __init__(
        self, requests: Iterable[Given], make: Callable[[Given], Made], *, ahead: int, threads: int
    ) -> None:
        self._source = iter(requests)
        self._make = make
        self._pulling = threading.Lock()
        self._working = threads
        self._end: _End | None = None
        self._ready: queue.Queue[tuple[Given, Made] | _End] = queue.Queue(ahead)
        self._closed = threading.Event()
        for index in range(threads):
            threading.Thread(target=self._work, name=f"cogbatch-prepare-{index}", daemon=True).start()

    @property
    def ready(self) -> bool:
        """Whether the next one, or the end, can be had without waiting."""
        return not self._ready.empty()

    def __next__(self) -> tuple[Given, Made]:
        entry = self._ready.get()
        if not isinstance(entry, _End):
            return entry
        self._put(entry)  # the end stays the end
        raise entry.error or StopIteration

    def close(self) -> None:
        """Lets go of the threads."""
        self._closed.set()

    def _work(self) -> None:
        while (request := self._pull()) is not None:
            self._put((request[0], self._make(request[0])))
        with self._pulling:
            self._working -= 1
            last = self._working == 0
        if last:
            self._put(self._end or _End(None))

    def _pull(self) -> tuple[Given] | None:
        """The next request, or None when there is none to come."""
        with self._pulling:
            if self._end is not None or self._closed.is_set():
                return None
            try:
                return (next(self._source),)
            except StopIteration:
                self._end = _End(None)
            except BaseException as error:  # given to whoever iterates
                self._end = _End(error)
            return None

    def _put(self, entry: tuple[Given, Made] | _End) -> None:
        while not self._closed.is_set():
            try:
                self._ready.put(entry, timeout=0.5)
                return
            except queue.Full:
                continue
