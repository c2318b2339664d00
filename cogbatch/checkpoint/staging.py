"""A directory that appears whole or not at all: written under another name, synced to disk, renamed.

Whoever writes holds a lock on the directory it writes, which dies with it: that tells what a killed writer
left behind from what a live one is at.
"""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from cogbatch.errors import CheckpointError

_OLD = "-old"


@contextmanager
def staged_directory(
    target: Path,
    *,
    overwrite: bool,
    marker: str,
    size_bytes: int = 0,
    free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
) -> Iterator[Path]:
    """Yields an empty sibling of target to write into; on success it becomes target, on error it is removed.

    What killed writers of target left behind is cleared first.

    Args:
        overwrite: replace an existing target, which must contain `marker`: nothing else is ever deleted.
        size_bytes: what will be written, at least.
        free_bytes: of the disk that a folder is on.

    Raises:
        CheckpointError: target exists and may not be replaced, cannot be written, or the disk is too small.
    """
    target = target.resolve()
    staging: Path | None = None
    try:
        remove_leftovers(target)
        _check_target(target, overwrite=overwrite, marker=marker)
        disk = next(folder for folder in target.parents if folder.is_dir())
        if (free := free_bytes(disk)) < size_bytes:
            raise CheckpointError(
                f"{target}: {size_bytes / 1e9:,.1f} GB will be written, but {disk} has "
                f"{free / 1e9:,.1f} GB free; make room, or choose another disk"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        staging, lock = _new_locked(target)
        with lock:
            yield staging
            for entry in sorted(staging.rglob("*")):
                _fsync(entry)
            _fsync(staging)
            _check_target(target, overwrite=overwrite, marker=marker)
            _replace(staging, target)
        _fsync(target.parent)
    except BaseException as err:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
        if isinstance(err, OSError):
            where = f" at {err.filename}" if err.filename else ""
            raise CheckpointError(
                f"{target}: not written ({err.strerror or err}{where}); check its rights and room, or "
                "choose another output directory"
            ) from err
        raise


def check_apart(source: Path, target: Path) -> None:
    """Raises CheckpointError when one directory is, or contains, the other."""
    a, b = source.resolve(), target.resolve()
    if a == b or a in b.parents or b in a.parents:
        raise CheckpointError(f"{target}: output and source {source} must not contain each other")


def remove_leftovers(target: Path, *, only_writer: bool = False) -> None:
    """Deletes what killed writers of target left, and undoes a replacement that was killed half-way.

    only_writer: the caller knows that there is no other; else nothing is touched where the file system has
        no locks for directories (NFS).
    """
    for leftover in sorted(target.parent.glob(f".{glob.escape(target.name)}.partial-*")):
        with _Lock(leftover) as lock:
            if lock.is_taken or not (lock.is_held or only_writer):
                continue
            if leftover.name.endswith(_OLD) and not target.exists():
                leftover.rename(target)
            else:
                shutil.rmtree(leftover, ignore_errors=True)


class _Lock:
    """An exclusive lock on a directory; it goes with it when renamed, and dies with its process.

    is_taken: another has it. Neither held nor taken: the file system has no such locks.
    """

    def __init__(self, folder: Path, *, wait: bool = False) -> None:
        self.is_held = self.is_taken = False
        self._descriptor: int | None = None
        try:
            self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            self.is_held = True
        except BlockingIOError:
            self.is_taken = True
        except OSError:
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


def _new_locked(target: Path) -> tuple[Path, _Lock]:
    while True:
        staging = target.with_name(f".{target.name}.partial-{uuid.uuid4().hex[:12]}")
        staging.mkdir()
        lock = _Lock(staging, wait=True)
        if staging.is_dir():  # else another writer took it for a leftover before it was locked
            return staging, lock
        lock.__exit__()


def _check_target(target: Path, *, overwrite: bool, marker: str) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise CheckpointError(f"{target}: exists and is not a directory; choose another output directory")
    if not any(target.iterdir()):
        return
    if not overwrite:
        raise CheckpointError(
            f"{target}: exists and is not empty; pass --overwrite, or choose another directory"
        )
    if not (target / marker).is_file():
        raise CheckpointError(
            f"{target}: has no {marker}, so it is not replaced; choose another output directory"
        )


def _replace(staging: Path, target: Path) -> None:
    if not target.exists():
        staging.rename(target)
        return
    # A directory cannot replace a non-empty one: step aside, so that the way back stays open.
    aside = staging.with_name(f"{staging.name}{_OLD}")
    with _Lock(target):
        target.rename(aside)
        try:
            staging.rename(target)
        except OSError:
            aside.rename(target)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
