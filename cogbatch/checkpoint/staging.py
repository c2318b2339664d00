"""A directory that appears whole or not at all: written under another name, synced to disk, renamed."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cogbatch.errors import CheckpointError


@contextmanager
def staged_directory(target: Path, *, overwrite: bool, marker: str) -> Iterator[Path]:
    """Yields an empty sibling of target to write into; on success it becomes target, on error it is removed.

    Args:
        overwrite: replace an existing target, which must contain `marker`: nothing else is ever deleted.

    Raises:
        CheckpointError: target exists and may not be replaced.
    """
    target = target.resolve()
    _check_target(target, overwrite=overwrite, marker=marker)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f".{target.name}.partial-{uuid.uuid4().hex[:12]}")
    staging.mkdir()
    try:
        yield staging
        for entry in sorted(staging.rglob("*")):
            _fsync(entry)
        _fsync(staging)
        _replace(staging, target)
        _fsync(target.parent)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def remove_leftovers(target: Path) -> None:
    """Deletes what killed writers of target left behind. Only under a lock that keeps live writers out."""
    for leftover in target.parent.glob(f".{target.name}.partial-*"):
        shutil.rmtree(leftover, ignore_errors=True)


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
    aside = staging.with_name(f"{staging.name}-old")
    target.rename(aside)
    try:
        staging.rename(target)
    except OSError:
        aside.rename(target)
        raise
    shutil.rmtree(aside)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
