"""Laws of sending a folder round and round, without Ray."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogbatch.batch.carousel import Carousel, chunk_size, num_chunks, spans
from cogbatch.checkpoint.folder import ProvenFile, ProvenFolder, prove_folder
from cogbatch.errors import CheckpointError

CHUNK = 10


@pytest.fixture
def folder(tmp_path: Path) -> ProvenFolder:
    """57 bytes in four files, one of them empty: 6 chunks."""
    for name, size in (("a", 23), ("b", 0), ("c", 4), ("d", 30)):
        (tmp_path / name).write_bytes(bytes((ord(name) + i) % 256 for i in range(size)))
    return prove_folder(tmp_path, "abcd")


@pytest.fixture
def carousel(folder: ProvenFolder) -> Callable[..., Carousel]:
    def make(**options: Any) -> Carousel:
        return Carousel(folder, chunk_bytes=CHUNK, put=bytes, **options)

    return make


class Listener:
    """Takes one turn at a time, as a node does."""

    def __init__(self, name: str, carousel: Carousel, *, total: int = 6) -> None:
        self._name, self._carousel, self._total, self._done = name, carousel, total, 0
        self.got: dict[int, bytes] = {}

    def step(self) -> bool:
        """Whether there was something for it."""
        taken = self._carousel.take(self._name, self._done)
        if taken is None:
            return False
        turn, chunk = taken
        self.got[turn % self._total] = chunk
        self._done = turn + 1
        if self.has_all:
            self._carousel.leave(self._name)
        return True

    @property
    def has_all(self) -> bool:
        return len(self.got) == self._total

    @property
    def bytes(self) -> bytes:
        return b"".join(chunk for _, chunk in sorted(self.got.items()))


def all_bytes(folder: ProvenFolder) -> bytes:
    return b"".join((Path(folder.path) / file.name).read_bytes() for file in folder.files)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(1, 50))
def test_chunks_cover_every_byte_of_every_file_once(sizes: list[int], chunk_bytes: int) -> None:
    files = [ProvenFile(str(i), size, "") for i, size in enumerate(sizes)]
    covered: dict[str, list[int]] = {file.name: [] for file in files}
    for index in range(num_chunks(files, chunk_bytes)):
        parts = list(spans(files, index, chunk_bytes))
        filled = [byte for span in parts for byte in range(span.start, span.stop)]
        assert filled == list(range(chunk_size(files, index, chunk_bytes)))
        for span in parts:
            covered[span.name] += range(span.offset, span.offset + span.stop - span.start)
    assert covered == {file.name: list(range(file.size_bytes)) for file in files}


@pytest.mark.parametrize("seed", range(5))
def test_whoever_joins_whenever_gets_all_and_only_a_window_is_alive(
    carousel: Callable[..., Carousel], folder: ProvenFolder, seed: int
) -> None:
    draw = random.Random(seed)
    ring = carousel()
    waiting = [Listener(str(i), ring) for i in range(8)]
    joined, finished = [waiting.pop()], []
    while waiting or joined:
        if waiting and (not joined or draw.random() < 0.2):
            joined.append(waiting.pop())
        listener = draw.choice(joined)
        listener.step()
        assert ring.alive <= 3
        if listener.has_all:
            joined.remove(listener)
            finished.append(listener)
    assert [listener.bytes for listener in finished] == [all_bytes(folder)] * 8
    assert ring.alive == 0


def test_those_who_start_together_share_every_chunk(carousel: Callable[..., Carousel]) -> None:
    ring = carousel()
    listeners = [Listener(str(i), ring) for i in range(5)]
    while not all(listener.has_all for listener in listeners):
        for listener in listeners:
            listener.step()
    assert ring.puts == 6


def test_a_late_one_takes_what_comes_by_and_only_then_what_it_missed(
    carousel: Callable[..., Carousel], folder: ProvenFolder
) -> None:
    ring = carousel()
    early, late = Listener("early", ring), Listener("late", ring)
    for _ in range(4):
        early.step()
    while not (early.has_all and late.has_all):
        early.step() if not early.has_all else None
        late.step()
    assert late.bytes == early.bytes == all_bytes(folder)
    assert ring.puts <= 6 + 4


def test_one_that_dies_holds_the_others_up_for_no_longer_than_the_patience(
    carousel: Callable[..., Carousel], folder: ProvenFolder
) -> None:
    now = [0.0]
    ring = carousel(patience_s=30.0, clock=lambda: now[0])
    dead, alive = Listener("dead", ring), Listener("alive", ring)
    dead.step()
    while alive.step():
        pass
    assert not alive.has_all
    assert ring.alive == 3
    now[0] = 20.0
    assert not alive.step()
    now[0] = 31.0
    while alive.step() and not alive.has_all:
        pass
    assert alive.bytes == all_bytes(folder)
    while not dead.has_all:  # it was only slow: it joins anew
        dead.step()
    assert dead.bytes == all_bytes(folder)


def test_a_folder_that_shrank_is_named(carousel: Callable[..., Carousel], folder: ProvenFolder) -> None:
    (Path(folder.path) / "c").write_bytes(b"")
    ring = carousel()
    listener = Listener("x", ring)
    listener.step()
    listener.step()
    with pytest.raises(CheckpointError, match=r"c: is shorter than when the job started"):
        listener.step()
