"""Equal copies of a model folder in this machine's cache: fetched once, proven, and only then named."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from cogbatch.checkpoint.folder import ProvenFolder, damaged_files, differing_files
from cogbatch.checkpoint.hashing import remember_sha256
from cogbatch.checkpoint.once import locked
from cogbatch.checkpoint.staging import remove_leftovers, staged_directory
from cogbatch.checkpoint.verify.threads import sha256, some
from cogbatch.errors import CheckpointError


class Source(NamedTuple):
    """Where a folder can be had. fetch: writes its files, whole, into an empty directory."""

    name: str
    fetch: Callable[[Path], None]


def equal_copy(
    expected: ProvenFolder,
    sources: Sequence[Source],
    *,
    cache: Path,
    on_wait: Callable[[], object] | None = None,
) -> Path:
    """A directory in cache whose files are all as expected; of several processes one fetches, others wait.

    A copy that is there is proven again, and where it is damaged replaced. Two fetches are tried at most.

    Args:
        sources: the best first.
        on_wait: called again and again while another process is at it.

    Raises:
        CheckpointError: no source gave what was expected, the disk is too small, or the cache not writable.
    """
    target = cache / f"weights-{expected.key}"
    try:
        with locked(cache / f"{target.name}.lock", on_wait=on_wait):
            damage = differing_files(expected, target) if target.is_dir() else []
            if target.is_dir() and not damage:
                return target
            remove_leftovers(target, only_writer=True)
            shutil.rmtree(target, ignore_errors=True)  # those who have it open keep it
            _fetch(expected, sources, target, reasons=[f"{target}: {some(damage)} damaged"] if damage else [])
            return target
    except OSError as err:
        raise CheckpointError(
            f"{cache}: not writable ({err.strerror or err}); set COGBATCH_CACHE to a directory with"
            f" {expected.size_bytes / 1e9:,.1f} GB of room"
        ) from err


def _fetch(
    expected: ProvenFolder, sources: Sequence[Source], target: Path, *, reasons: Sequence[str]
) -> None:
    failures = list(reasons)
    for source in (sources[0], sources[-1]) if sources else ():
        try:
            with staged_directory(
                target, overwrite=False, marker="config.json", size_bytes=expected.size_bytes
            ) as folder:
                source.fetch(folder)
                if damage := damaged_files(expected.files, folder, sha256=sha256):
                    raise CheckpointError(f"{some(damage)} arrived damaged")
        except CheckpointError as err:
            failures.append(f"from {source.name}: {err}")
        else:
            for file in expected.files:  # the next process on this machine need not hash again
                remember_sha256(target / file.name, file.sha256)
            return
    failures += [] if sources else ["nobody to copy it from"]
    raise CheckpointError("; ".join(dict.fromkeys(failures)))
