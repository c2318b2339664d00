"""The lock of a run on an object store, in memory: who holds it, and what ends that."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from cogbatch.dataset.object_path import ObjectPath
from cogbatch.dataset.run_lock import ADVISORY, Guard, Holder, _machine, beating_lock, os_lock
from cogbatch.errors import RunDirectoryError

BEAT_S = 0.02
NEVER_S = 600.0


@pytest.fixture
def run() -> ObjectPath:
    return ObjectPath(f"memory://{uuid.uuid4().hex}/run")


def hold(stack: ExitStack, run: ObjectPath, *, silent_s: float = NEVER_S, beat_s: float = BEAT_S) -> Guard:
    return stack.enter_context(beating_lock(run, say=lambda _: None, beat_s=beat_s, silent_s=silent_s))


def leave(run: ObjectPath, *, number: int = 1, **values: object) -> Holder:
    """What a driver on another machine left behind."""
    holder = replace(Holder("there", 7, "1999", "another machine", "its token"), **values)  # type: ignore[arg-type]
    (run / "lock" / f"{number:08d}").write_bytes(holder.to_json())
    return holder


def numbers(run: ObjectPath) -> list[int]:
    return [int(name) for name in (run / "lock").names()]


def wait_until_lost(guard: Guard) -> str:
    for _ in range(3000):
        try:
            guard()
        except RunDirectoryError as err:
            return str(err)
        time.sleep(0.01)
    raise AssertionError("the lock was never lost")


def test_a_second_driver_is_refused_as_long_as_the_first_beats(run: ObjectPath) -> None:
    with ExitStack() as first:
        guard = hold(first, run)
        with (
            pytest.raises(RunDirectoryError, match=r"in use by another driver \(pid \d+ on "),
            ExitStack() as second,
        ):
            hold(second, run)
        guard()
    with ExitStack() as third:  # given back: no waiting
        hold(third, run)()
        assert numbers(run) == [2]


def test_of_many_drivers_at_once_one_gets_the_lock(run: ObjectPath) -> None:
    refused = threading.Semaphore(0)

    def attempt(_: int) -> bool:
        try:
            with beating_lock(run, say=lambda _: None, beat_s=BEAT_S, silent_s=NEVER_S):
                return all(refused.acquire(timeout=60) for _ in range(7))
        except RunDirectoryError:
            refused.release()
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(8))) == 1


def test_a_driver_of_this_machine_that_was_killed_is_followed_at_once(run: ObjectPath) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    leave(run, number=4, machine=_machine(), pid=dead.pid)
    with ExitStack() as stack:
        hold(stack, run)
        assert numbers(run) == [5]


def test_a_driver_elsewhere_is_waited_for_and_then_followed(run: ObjectPath) -> None:
    said: list[str] = []
    leave(run)
    began = time.monotonic()
    with beating_lock(run, say=said.append, beat_s=BEAT_S, silent_s=0.3):
        assert time.monotonic() - began >= 0.3
        assert numbers(run) == [2]
    assert said == [
        "pid 7 on there since 1999 has this run; waiting up to 0.3 s for its sign of life",
        "pid 7 on there since 1999 is silent: its lock is taken over",
    ]


def test_a_beat_of_a_driver_elsewhere_refuses_the_one_that_waits(run: ObjectPath) -> None:
    leave(run)
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        waiting = pool.submit(hold, stack, run)
        beat = 0
        while not waiting.done():
            beat += 1
            leave(run, beat=beat)
            time.sleep(0.05)
        with pytest.raises(RunDirectoryError, match="pid 7 on there since 1999"):
            waiting.result()
    assert numbers(run) == [1]


def test_a_holder_that_was_followed_sees_it_and_gives_nothing_back(run: ObjectPath) -> None:
    with ExitStack() as stack:
        guard = hold(stack, run)
        winner = leave(run, number=2)
        lost = wait_until_lost(guard)
        assert "this driver has lost its lock: pid 7 on there since 1999 took it over" in lost
        (run / "lock" / "00000001").unlink()  # as the one that follows does
    assert numbers(run) == [2]
    assert Holder(**json.loads((run / "lock" / "00000002").read_bytes())) == winner


@pytest.mark.parametrize("data", [None, b"hello", b"{}", b"[]"])
def test_a_holder_sees_that_its_lock_is_deleted_or_something_else(
    run: ObjectPath, data: bytes | None
) -> None:
    with ExitStack() as stack:
        guard = hold(stack, run)
        held = run / "lock" / "00000001"
        for _ in range(20):  # a beat may write it once more
            held.unlink() if data is None else held.write_bytes(data)
            time.sleep(BEAT_S / 4)
        reason = "was deleted" if data is None else "is no lock of ours"
        assert re.search(f"this driver has lost its lock: .*{reason}", wait_until_lost(guard))


@pytest.mark.parametrize("replaced", [False, True])
def test_on_disk_a_holder_sees_that_its_lock_is_deleted_or_replaced(tmp_path: Path, replaced: bool) -> None:
    file = tmp_path / "lock"
    with os_lock(file) as guard:
        guard()
        file.unlink()
        if replaced:
            with os_lock(file) as second:  # nothing keeps it from starting, so the first must go
                second()
        with pytest.raises(RunDirectoryError, match=r"lost its lock: .*/lock was deleted or replaced"):
            guard()


class Forgetful(MemoryFileSystem):  # type: ignore[misc]
    """A store that takes the condition and ignores it."""

    def pipe_file(self, path: str, value: bytes, **_: object) -> None:
        super().pipe_file(path, value)


class Plain(MemoryFileSystem):  # type: ignore[misc]
    """A store that has no such thing."""

    protocol = "plain"


@pytest.mark.parametrize("kind", [Forgetful, Plain])
def test_without_conditional_put_the_lock_is_advisory_and_says_so(kind: type) -> None:
    name = f"{kind.__name__.lower()}{uuid.uuid4().hex[:4]}"
    kind.protocol = ("memory", name) if kind is Forgetful else name
    fsspec.register_implementation(name, kind)
    run, said = ObjectPath(f"{name}://run"), list[str]()
    with beating_lock(run, say=said.append, beat_s=BEAT_S, silent_s=NEVER_S) as guard:
        assert said == [ADVISORY]
        with pytest.raises(RunDirectoryError, match="in use"), ExitStack() as stack:
            hold(stack, run)
        # Two that started in the same moment: the last one to write stays, the other one sees it.
        (run / "lock" / "00000001").write_bytes(Holder("there", 7, "1999", "another", "its token").to_json())
        assert "took it over" in wait_until_lost(guard)


def test_an_object_that_is_no_lock_of_ours_is_named(run: ObjectPath) -> None:
    (run / "lock" / "00000001").write_bytes(b"hello")
    with (
        pytest.raises(RunDirectoryError, match=r"run/lock/00000001 is no lock of ours"),
        ExitStack() as stack,
    ):
        hold(stack, run)
