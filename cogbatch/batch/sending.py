"""Folders of the driver's machine for nodes that share nothing with it, through Ray's object store."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cogbatch.batch.carousel import PATIENCE_S, Carousel, num_chunks, spans
from cogbatch.checkpoint.folder import ProvenFolder
from cogbatch.errors import CheckpointError

CHUNK_BYTES = 64 * 2**20
STORE_SHARE = 8  # a chunk is at most this part of the smallest object store
ANSWER_WITHIN_S = 5.0
_NAMESPACE = "cogbatch"


@contextmanager
def offered(folders: Sequence[ProvenFolder], name: str, *, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """For the time of the block `receive` gets these folders from the machine that this process runs on.

    Args:
        name: of the offer; one that nobody else has.
        patience_s: with a node that has a chunk and does not come back for the next.
    """
    here = ray.get_runtime_context().get_node_id()
    sender = (
        ray.remote(_Sender)
        .options(
            name=name,
            namespace=_NAMESPACE,
            num_cpus=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False),
        )
        .remote(tuple(folders), _chunk_bytes(), patience_s)
    )
    try:
        yield
    finally:
        ray.kill(sender)


def receive(
    name: str, folder: ProvenFolder, into: Path, *, on_progress: Callable[[], object] = lambda: None
) -> None:
    """Writes the files of a folder that is offered under a name into an empty directory.

    Args:
        on_progress: called after every chunk.

    Raises:
        CheckpointError: it is not offered, the driver is gone, or cannot read it any more.
    """
    try:
        sender = ray.get_actor(name, namespace=_NAMESPACE)
    except ValueError as err:
        raise CheckpointError("the driver does not offer it") from err
    try:
        _receive(sender, folder, into, on_progress)
    except ray.exceptions.RayError as err:
        reason = " ".join(str(getattr(err, "cause", None) or err).split())[:300]
        raise CheckpointError(f"the driver's copy cannot be had: {reason}") from err


def _receive(sender: Any, folder: ProvenFolder, into: Path, on_progress: Callable[[], object]) -> None:
    me, key = uuid.uuid4().hex, folder.key
    for file in folder.files:
        (into / file.name).parent.mkdir(parents=True, exist_ok=True)
        (into / file.name).touch()
    chunk_bytes = ray.get(sender.chunk_bytes.remote())
    missing, done = set(range(num_chunks(folder.files, chunk_bytes))), 0
    total = len(missing)
    asked = sender.take.remote(key, me, done)
    while missing:
        given = ray.get(asked)
        if given is None:
            asked = sender.take.remote(key, me, done)
            continue
        turn, [chunk] = given
        index = turn % total
        if missing != {index}:
            asked = sender.take.remote(key, me, turn)  # on its way while this one is written
        if index in missing:  # else this listener was passed over and came back
            data = memoryview(ray.get(chunk))
            for span in spans(folder.files, index, chunk_bytes):
                with (into / span.name).open("r+b", buffering=0) as stream:
                    stream.seek(span.offset)
                    _write_full(stream, data[span.start : span.stop])
            missing.discard(index)
            on_progress()
            del data
        done = turn + 1
        del given, chunk
    sender.leave.remote(key, me)


class _Sender:
    """The actor on the driver's machine: a carousel for each folder."""

    def __init__(self, folders: Sequence[ProvenFolder], chunk_bytes: int, patience_s: float) -> None:
        self._chunk_bytes = chunk_bytes
        self._carousels = {
            folder.key: Carousel(folder, chunk_bytes=chunk_bytes, put=ray.put, patience_s=patience_s)
            for folder in folders
        }
        self._changed = asyncio.Event()

    async def chunk_bytes(self) -> int:
        return self._chunk_bytes

    async def take(self, key: str, listener: str, done: int) -> tuple[int, list[Any]] | None:
        """The listener's next turn and, in a list as Ray wants it, its chunk; None: ask again."""
        if key not in self._carousels:
            raise CheckpointError("the driver has another one")
        carousel = self._carousels[key]
        until = time.monotonic() + ANSWER_WITHIN_S
        while time.monotonic() < until:
            before = carousel.alive, carousel.puts
            given = carousel.take(listener, done)
            if before != (carousel.alive, carousel.puts):
                self._wake()
            if given is not None:
                return given[0], [given[1]]
            changed = self._changed
            try:
                await asyncio.wait_for(changed.wait(), timeout=1.0)
            except TimeoutError:
                continue
        return None

    async def leave(self, key: str, listener: str) -> None:
        self._carousels[key].leave(listener)
        self._wake()

    async def puts(self, key: str) -> int:
        """Chunks put so far, for whoever wants to know how much was shared."""
        return self._carousels[key].puts

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _chunk_bytes() -> int:
    stores = [node["Resources"].get("object_store_memory", 0) for node in ray.nodes() if node["Alive"]]
    smallest = min((int(store) for store in stores if store), default=CHUNK_BYTES * STORE_SHARE)
    return max(2**20, min(CHUNK_BYTES, smallest // STORE_SHARE))


def _write_full(file: Any, data: memoryview) -> None:
    while len(data):
        data = data[file.write(data) :]
