"""The files an engine loads from one directory, as they should be, and whether a copy of it has the same.

Knows nothing of what is in the files, and imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from cogbatch.checkpoint.hashing import file_sha256
from cogbatch.checkpoint.once import key_of
from cogbatch.checkpoint.verify.threads import in_threads
from cogbatch.errors import CheckpointError


@dataclass(frozen=True)
class ProvenFile:
    """One file: its path relative to the folder, with "/"."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class ProvenFolder:
    """A directory as its first reader proved it; a plain value that travels to those who must find the same.

    Args:
        path: where it lies there.
        absent: names that would be loaded as well if they were there, and are not.
        origin: URL of an equal directory, which may hold secrets; None without one.
    """

    path: str
    files: tuple[ProvenFile, ...]
    absent: tuple[str, ...] = ()
    origin: str | None = field(default=None, repr=False)

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def key(self) -> str:
        """32 hex digits: the same for equal files, wherever they lie."""
        return key_of(sorted([file.name, file.sha256] for file in self.files))


def prove_folder(
    folder: Path,
    names: Iterable[str],
    *,
    may_load: Iterable[str] = (),
    known: Mapping[str, str] | None = None,
    origin: str | None = None,
) -> ProvenFolder:
    """The folder's files as they are now.

    Args:
        may_load: names that whoever loads looks for.
        known: hashes that were checked already, by name.

    Raises:
        CheckpointError: a name leads out of the folder.
    """
    known, names = known or {}, sorted(set(names))
    for name in names:
        _require_inside(folder, name)
    hashes = in_threads(lambda name: known.get(name) or file_sha256(folder / name), names)
    files = tuple(
        ProvenFile(name, (folder / name).stat().st_size, sha256)
        for name, sha256 in zip(names, hashes, strict=True)
    )
    return ProvenFolder(str(folder), files, tuple(sorted(set(may_load) - set(names))), origin)


def differing_files(
    expected: ProvenFolder, at: Path, *, sha256: Callable[[Path], str] = file_sha256
) -> list[str]:
    """Names that are missing in the folder `at`, differ there, or would be loaded on top."""
    return [name for name in expected.absent if (at / name).exists()] + damaged_files(
        expected.files, at, sha256=sha256
    )


def damaged_files(
    files: Iterable[ProvenFile], at: Path, *, sha256: Callable[[Path], str] = file_sha256
) -> list[str]:
    """Names of those that are missing or differ in the folder `at`."""

    def is_damaged(file: ProvenFile) -> bool:
        path = at / file.name
        try:
            return path.stat().st_size != file.size_bytes or sha256(path) != file.sha256
        except OSError:  # not there, or not readable
            return True

    files = tuple(files)
    return [file.name for file, bad in zip(files, in_threads(is_damaged, files), strict=True) if bad]


def _require_inside(folder: Path, name: str) -> None:
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts:
        raise CheckpointError(f"{folder}: the manifest names {name!r}, which is no file of this directory")
