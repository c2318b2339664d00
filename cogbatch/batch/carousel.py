"""A folder's bytes sent round and round in chunks, a few at a time, to all who listen. No Ray, no network.

Whoever joins takes what comes by until it has every chunk once. So listeners that start together share each
chunk, a late one waits for nobody, and no more than a window of chunks is alive however many listen: a model
larger than any object store passes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cogbatch.checkpoint.folder import ProvenFile, ProvenFolder
from cogbatch.errors import CheckpointError

WINDOW = 3  # chunks alive: one is written, one is on its way, one is read
PATIENCE_S = 30.0  # with a listener that has a chunk and does not come back
SWEEP_EVERY_S = 1.0


class Span(NamedTuple):
    """Part of a file in a chunk: bytes start to stop of the chunk lie at offset of the file."""

    name: str
    offset: int
    start: int
    stop: int


@dataclass
class _Listener:
    """In turns: the next to give it, and the first that it may still be at."""

    given: int
    done: int
    heard: float


class Carousel:
    """Chunks of one folder, by turn: turn t is chunk t modulo their number.

    Args:
        put: array of uint8 -> what listeners are given. patience_s: a listener silent for so long is passed
            over; when it comes back it joins anew.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        folder: ProvenFolder,
        *,
        chunk_bytes: int,
        put: Callable[[Any], Any],
        window: int = WINDOW,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._chunk_bytes, self._put = folder, chunk_bytes, put
        self._window, self._patience_s, self._clock = window, patience_s, clock
        self._num_chunks = num_chunks(folder.files, chunk_bytes)
        self._alive: dict[int, Any] = {}
        self._listeners: dict[str, _Listener] = {}
        self._next = 0
        self._swept = clock()

    def take(self, listener: str, done: int) -> tuple[int, Any] | None:
        """The listener's next turn and what was put, or None: others are still busy with the last ones.

        A listener that is not known joins.

        Args:
            done: it is finished with all turns before this one.

        Raises:
            CheckpointError: the folder is not what it was.
        """
        now = self._clock()
        if listener not in self._listeners:
            start = min(self._alive, default=self._next)
            self._listeners[listener] = _Listener(start, start, now)
        state = self._listeners[listener]
        state.heard = now
        if done > state.done:
            state.done = min(done, state.given)
            self._release()
        self._sweep(now)
        if state.given == self._next:
            if len(self._alive) >= self._window:
                return None
            self._alive[self._next] = self._put(self._read(self._next % self._num_chunks))
            self._next += 1
        turn = state.given
        state.given += 1
        return turn, self._alive[turn]

    def leave(self, listener: str) -> None:
        """It has all, or gave up."""
        self._listeners.pop(listener, None)
        self._release()

    @property
    def alive(self) -> int:
        """Chunks that are put and not released."""
        return len(self._alive)

    @property
    def puts(self) -> int:
        """Chunks put since the start."""
        return self._next

    def _sweep(self, now: float) -> None:
        """Once in a while: passes over those who fell silent."""
        if now - self._swept < min(SWEEP_EVERY_S, self._patience_s):
            return
        self._swept = now
        for name, state in list(self._listeners.items()):
            if now - state.heard > self._patience_s:
                del self._listeners[name]
        self._release()

    def _release(self) -> None:
        needed = min((state.done for state in self._listeners.values()), default=self._next)
        for turn in [turn for turn in self._alive if turn < needed]:
            del self._alive[turn]

    def _read(self, index: int) -> Any:
        chunk = np.empty(chunk_size(self._folder.files, index, self._chunk_bytes), np.uint8)
        for span in spans(self._folder.files, index, self._chunk_bytes):
            path = Path(self._folder.path) / span.name
            try:
                with path.open("rb", buffering=0) as file:
                    file.seek(span.offset)
                    read = _read_full(file, chunk[span.start : span.stop].data)
            except OSError as err:
                raise CheckpointError(f"{path}: cannot be read any more ({err.strerror or err})") from err
            if not read:
                raise CheckpointError(f"{path}: is shorter than when the job started; restore it")
        return chunk


def num_chunks(files: Sequence[ProvenFile], chunk_bytes: int) -> int:
    """At least 1: a folder of empty files is a folder too."""
    return max(1, -(-sum(file.size_bytes for file in files) // chunk_bytes))


def chunk_size(files: Sequence[ProvenFile], index: int, chunk_bytes: int) -> int:
    """Bytes in a chunk: all but the last are full."""
    return min(chunk_bytes, sum(file.size_bytes for file in files) - index * chunk_bytes)


def spans(files: Sequence[ProvenFile], index: int, chunk_bytes: int) -> Iterator[Span]:
    """The parts of files that a chunk is made of: the files are one stream of bytes, in their order."""
    low, begin = index * chunk_bytes, 0
    high = low + chunk_bytes
    for file in files:
        end = begin + file.size_bytes
        if begin < high and end > low and file.size_bytes:
            start, stop = max(begin, low), min(end, high)
            yield Span(file.name, start - begin, start - low, stop - low)
        begin = end


def _read_full(file: Any, into: memoryview) -> bool:
    """Whether the file had enough to fill it."""
    while len(into):
        count = file.readinto(into)
        if not count:
            return False
        into = into[count:]
    return True
