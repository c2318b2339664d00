"""Who runs a job: one driver at a time. An OS lock on disk, numbered and beating objects elsewhere.

On an object store, the holder is the one who made the object with the highest number, which only one driver
can: it is made by a PUT that fails where there is one. The holder says every few seconds that it lives. One
that fell silent is followed by the next number, and stops as soon as it sees that.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from cogbatch.dataset.object_path import ObjectPath
from cogbatch.errors import RunDirectoryError

BEAT_S = 5.0
SILENT_S = 30.0  # without a beat: whoever held the lock is taken for dead, and takes itself for it

ADVISORY = (
    "warning: this store has no conditional PUT, so that the lock is advisory:"
    " see to it yourself that only one driver runs this job"
)

Guard = Callable[[], None]
"""Raises RunDirectoryError once the lock is lost."""


@contextmanager
def os_lock(file_path: Path) -> Iterator[Guard]:
    """Holds a lock that ends with this process however that ends; lost when somebody deletes its file.

    Raises RunDirectoryError: in use.
    """
    with file_path.open("a+") as file:  # not inherited by children, which would keep the lock
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            file.seek(0)
            raise _in_use(str(file_path.parent), file.read().strip() or "starting") from err
        file.truncate(0)
        file.write(f"pid {os.getpid()} on {socket.gethostname()} since {_now()}\n")
        file.flush()
        yield lambda: _require_same(file, file_path)


def _require_same(file: IO[str], file_path: Path) -> None:
    """Raises RunDirectoryError: the open file is no longer that of this path, which another may lock."""
    try:
        is_same = os.path.samestat(os.fstat(file.fileno()), file_path.stat())
    except FileNotFoundError:
        is_same = False
    except OSError:  # storage that does not answer has not given the lock to anybody
        return
    if not is_same:
        raise _lost(file_path.parent, f"{file_path} was deleted or replaced")


@dataclass(frozen=True)
class Holder:
    """What a lock object says of its maker. machine: host, boot and process namespace; beat: counts up."""

    host: str
    pid: int
    since: str
    machine: str
    token: str
    beat: int = 0
    released: bool = False

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host} since {self.since}"

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @property
    def is_gone(self) -> bool:
        """It gave the lock back, or was a process of this machine that is no more."""
        return self.released or (self.machine == _machine() and not _is_running(self.pid))


@contextmanager
def beating_lock(
    run: ObjectPath,
    *,
    say: Callable[[str], None],
    beat_s: float = BEAT_S,
    silent_s: float = SILENT_S,
) -> Iterator[Guard]:
    """Holds the run on an object store. Waits up to silent_s for a sign of life of an earlier holder.

    Args:
        say: is told of waiting, and of a store without conditional PUT, where the lock is advisory.

    Raises RunDirectoryError: in use (by whom), or the storage cannot be written.
    """
    lock = _BeatingLock(run, say=say, beat_s=beat_s, silent_s=silent_s)
    try:
        lock.acquire()
    except OSError as err:
        raise RunDirectoryError(f"{run} cannot be locked: {err}") from err
    try:
        yield lock.guard
    finally:
        lock.release()


class _BeatingLock:
    def __init__(
        self, run: ObjectPath, *, say: Callable[[str], None], beat_s: float, silent_s: float
    ) -> None:
        self._run, self._folder, self._say = run, run / "lock", say
        self._beat_s, self._silent_s = beat_s, silent_s
        self._me = Holder(socket.gethostname(), os.getpid(), _now(), _machine(), secrets.token_hex(8))
        self._number = 0
        self._lost: str | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lock", daemon=True)

    def acquire(self) -> None:
        number = self._wait_for_last()
        self._number = number + 1
        if not self._object(self._number).create(self._me.to_json()):
            # A PUT that the client repeated, because its answer was lost, meets its own object.
            if (winner := self._read(self._number)) is None or winner.token != self._me.token:
                raise _in_use(str(self._run), str(winner or "starting"))
        elif not self._folder.has_conditional_put or self._object(self._number).create(self._me.to_json()):
            self._say(ADVISORY)  # the second PUT must fail: some stores ignore the condition
        self._remove_older()
        self._thread.start()

    def release(self) -> None:
        self._ended.set()
        self._thread.join()
        if self._lost is None:
            with suppress(OSError):  # the next driver then waits a little
                self._object(self._number).write_bytes(replace(self._me, released=True).to_json())

    def guard(self) -> None:
        if self._lost is not None:
            raise _lost(self._run, self._lost)

    def _wait_for_last(self) -> int:
        """The number of the last holder, once it is known to be gone."""
        seen: tuple[int, int] | None = None
        began = time.monotonic()
        while True:
            number, holder = self._last()
            if holder is None or holder.is_gone:
                return number
            mark = (number, holder.beat)
            if seen is None:
                seen, began = mark, time.monotonic()
                self._say(f"{holder} has this run; waiting up to {self._silent_s:g} s for its sign of life")
            elif mark != seen:
                raise _in_use(str(self._run), str(holder))
            elif time.monotonic() - began > self._silent_s:
                self._say(f"{holder} is silent: its lock is taken over")
                return number
            time.sleep(self._beat_s / 5)

    def _beat(self) -> None:
        heard = time.monotonic()
        while self._lost is None and not self._ended.wait(self._beat_s):
            try:
                number, holder = self._last()
                if number != self._number or holder is None or holder.token != self._me.token:
                    self._lost = f"{holder} took it over" if holder else f"{self._folder} was deleted"
                    return
                self._me = replace(self._me, beat=self._me.beat + 1)
                self._object(self._number).write_bytes(self._me.to_json())
                heard = time.monotonic()
            except RunDirectoryError as err:  # something else is in its place
                self._lost = str(err)
            except (OSError, ValueError) as err:
                if time.monotonic() - heard > self._silent_s:
                    self._lost = f"the store does not answer ({err})"

    def _last(self) -> tuple[int, Holder | None]:
        numbers = [int(name) for name in self._folder.names() if name.isdecimal()]
        return (max(numbers), self._read(max(numbers))) if numbers else (0, None)

    def _read(self, number: int) -> Holder | None:
        try:
            value: dict[str, Any] = json.loads(self._object(number).read_bytes())
            return Holder(**value)
        except FileNotFoundError:  # removed by one with a higher number
            return None
        except (ValueError, TypeError) as err:
            raise RunDirectoryError(
                f"{self._object(number)} is no lock of ours; delete it if no driver runs"
            ) from err

    def _object(self, number: int) -> ObjectPath:
        return self._folder / f"{number:08d}"

    def _remove_older(self) -> None:
        for name in self._folder.names():
            if name.isdecimal() and int(name) < self._number:
                (self._folder / name).unlink()


def _lost(run: Path | ObjectPath, why: str) -> RunDirectoryError:
    return RunDirectoryError(
        f"{run}: this driver has lost its lock: {why}; finished parts are kept, and another driver may go on"
    )


def _in_use(where: str, who: str) -> RunDirectoryError:
    return RunDirectoryError(f"{where} is in use by another driver ({who}); wait for it, or stop it first")


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _machine() -> str:
    """What two processes share that can see each other's pid: containers may share a host's name."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
