"""Prompts prepared ahead of the engine: a thread pulls requests, a bounded pool makes prompts of them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


class Intake(Iterator[tuple[Given, Made]]):
    """(request, prepared) in the order of the requests, prepared at most `ahead` before they are taken.

    The source may block for ever waiting for more work: `ready` tells whether taking the next one would
    block. Close it to let go of the threads; a source that is blocked then keeps a daemon thread.

    Args:
        requests: pulled lazily, in a thread of its own.
        make: runs in the pool; must not raise.
    """

    def __init__(
        self, requests: Iterable[Given], make: Callable[[Given], Made], *, ahead: int, threads: int
    ) -> None:
        self._requests = requests
        self._make = make
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="cogbatch-prepare")
        # None marks the end, an exception the failure of the source.
        self._queue: queue.Queue[tuple[Given, Future[Made]] | BaseException | None] = queue.Queue(ahead)
        self._head: tuple[Given, Future[Made]] | BaseException | None = None
        self._closed = threading.Event()
        threading.Thread(target=self._pull, name="cogbatch-requests", daemon=True).start()

    def _pull(self) -> None:
        end: BaseException | None = None
        try:
            for request in self._requests:
                if self._closed.is_set():
                    return
                self._put((request, self._pool.submit(self._make, request)))
        except BaseException as error:
            end = error
        self._put(end)

    def _put(self, entry: tuple[Given, Future[Made]] | BaseException | None) -> None:
        while not self._closed.is_set():
            try:
                self._queue.put(entry, timeout=0.5)
                return
            except queue.Full:
                continue

    @property
    def ready(self) -> bool:
        """Whether the next one, or the end, can be had without waiting."""
        if self._head is None:
            if self._queue.empty():
                return False
            self._head = self._queue.queue[0]
        head = self._head
        return not isinstance(head, tuple) or head[1].done()

    def __next__(self) -> tuple[Given, Made]:
        entry = self._queue.get()
        self._head = None
        if isinstance(entry, tuple):
            return entry[0], entry[1].result()
        self._queue.put(entry)  # the end stays the end
        raise StopIteration if entry is None else entry

    def close(self) -> None:
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
