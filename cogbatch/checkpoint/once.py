"""Work that several processes want done and one does: a lock on a file, and directories of the cache."""

from __future__ import annotations

import fcntl
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cogbatch.checkpoint.staging import remove_leftovers

_POLL_S = 0.1


@contextmanager
def locked(file: Path, *, on_wait: Callable[[], object] | None = None) -> Iterator[None]:
    """Holds an exclusive lock; released by the system when the process dies, so a killed one blocks nobody.

    Args:
        on_wait: called again and again while another process holds it.

    Raises OSError: the file cannot be made.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as stream:
        if on_wait is None:
            fcntl.flock(stream, fcntl.LOCK_EX)
        else:
            while not _taken(stream.fileno()):
                on_wait()
                time.sleep(_POLL_S)
        yield


def made_once(cache: Path, kind: str, identity: object, make: Callable[[Path], None]) -> Path:
    """cache/<kind>-<key of identity>; of two processes that want it, one makes it and the other waits."""
    target = cache / f"{kind}-{key_of(identity)}"
    with locked(cache / f"{target.name}.lock"):
        if not target.is_dir():
            remove_leftovers(target, only_writer=True)
            make(target)
    return target


def key_of(identity: object) -> str:
    """32 hex digits that name a JSON value."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
