"""One endless generate() of one Engine, fed by several shards at once. Knows no files and no Ray."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple, Protocol, cast

from cogbatch.dataset.rows import Row
from cogbatch.types import GenerationParams, GenerationRequest, RequestOutput

Result = tuple[int, Row, RequestOutput]

_LOOK_AHEAD_ROWS = 64


class EngineLike(Protocol):
    """What the loop needs of an Engine."""

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[RequestOutput]:
        """Pulls requests, with their params, as it has room; yields outputs as they finish, tags echoed."""
        ...


class StoppedError(Exception):
    """Its job was given up; the shard is given back unfinished."""


@dataclass(eq=False)
class _Ticket:
    """One shard in the loop: its rows and its results, ended by their count or by an exception."""

    rows: Iterator[Row]
    params: GenerationParams
    is_stopped: Callable[[], bool]
    results: queue.SimpleQueue[Result | int | Exception] = field(default_factory=queue.SimpleQueue)


class _Tag(NamedTuple):
    ticket: _Ticket
    position: int
    row: Row


class EngineLoop:
    """Keeps the engine busy across shard edges: the next shard's rows follow the last row of this one.

    Shards of several jobs may follow each other: every request has the parameters of its own.

    Args:
        on_crash: called with the exception when generate() itself fails or ends, from the loop's thread;
            the engine is not usable after that.
    """

    def __init__(self, engine: EngineLike, *, on_crash: Callable[[Exception], None]) -> None:
        self._engine, self._on_crash = engine, on_crash
        self._tickets: queue.SimpleQueue[_Ticket] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="engine-loop", daemon=True).start()

    def run(
        self,
        rows: Iterable[Row],
        params: GenerationParams,
        *,
        on_output: Callable[[RequestOutput], None],
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> list[Result]:
        """All rows with their outputs, in the order of rows; blocks until the last has come.

        Rows with an error never reach the engine. Call it from as many threads as there are shards.

        Args:
            is_stopped: asked now and then; what the engine was given before that is dropped when it comes.

        Raises:
            StoppedError: is_stopped says so. Whatever reading the rows raises.
        """
        ticket = _Ticket(iter(rows), params, is_stopped)
        self._tickets.put(ticket)
        results: list[Result] = []
        total: int | None = None
        while total is None or len(results) < total:
            if is_stopped():
                raise StoppedError
            try:
                result = ticket.results.get(timeout=0.5)
            except queue.Empty:
                continue
            if isinstance(result, Exception):
                raise result
            if isinstance(result, int):
                total = result
            else:
                results.append(result)
                on_output(result[2])
        return sorted(results, key=lambda result: result[0])

    def _run(self) -> None:
        try:
            for output in self._engine.generate(self._requests()):
                tag = cast(_Tag, output.tag)
                tag.ticket.results.put((tag.position, tag.row, output))
            raise RuntimeError("the engine ended its loop by itself")
        except Exception as err:
            self._on_crash(err)

    def _requests(self) -> Iterator[GenerationRequest]:
        while True:
            ticket = self._tickets.get()
            count = 0
            try:
                for position, row in _images_together(ticket.rows):
                    count += 1
                    if row.error is None:
                        tag = _Tag(ticket, position, row)
                        yield GenerationRequest(
                            id=row.id, image=row.image, prompt=row.prompt, params=ticket.params, tag=tag
                        )
                    else:
                        output = RequestOutput(id=row.id, error=row.error)
                        ticket.results.put((position, row, output))
                    if ticket.is_stopped():
                        break
            except Exception as err:
                ticket.results.put(err)
            else:
                ticket.results.put(count)


def _images_together(rows: Iterator[Row]) -> Iterator[tuple[int, Row]]:
    """Rows with their positions; those about one image follow each other, as far as a look ahead sees.

    So the engine encodes the image once.
    """
    numbered = enumerate(rows)
    window: list[tuple[int, Row]] = []
    while True:
        window += islice(numbered, _LOOK_AHEAD_ROWS - len(window))
        if not window:
            return
        image = window[0][1].image
        same = [image is not None and entry[1].image == image for entry in window]
        same[0] = True
        yield from (entry for entry, is_same in zip(window, same, strict=True) if is_same)
        window = [entry for entry, is_same in zip(window, same, strict=True) if not is_same]
