"""What a fix does to a directory: one file at a time, each at once; what it replaces is kept as NAME.bak.

But for shards of which only rotary tables are corrected: gigabytes for a table that anyone can compute.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cogbatch.errors import CheckpointError

_PREFIX = ".doctor-"


class Changes:
    """The changes of one run.

    written: names of files that hold something else than before. kept: original -> the name it has now.
    """

    def __init__(self, folder: Path, *, on_progress: Callable[[int, int], None] | None = None) -> None:
        self.folder = folder
        self.on_progress = on_progress
        self.written: set[str] = set()
        self.kept: dict[str, str] = {}

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """An empty folder on the same file system, gone afterwards."""
        with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=self.folder) as name:
            yield Path(name)

    def put(self, staged: Path) -> None:
        """Gives a finished file its place; its name is never without a file in between."""
        target = self.folder / staged.name
        if target.is_symlink() or target.exists():
            if target.is_file() and filecmp.cmp(staged, target, shallow=False):
                return
            if staged.name not in self.written:
                self._link(target, self._keep(staged.name))
        self._replace(staged, target)
        self.written.add(staged.name)

    def write(self, name: str, text: str) -> None:
        """put, of a text."""
        with self.staging() as folder:
            (folder / name).write_text(text, encoding="utf-8")
            self.put(folder / name)

    def replace_copy(self, staged: Path) -> None:
        """Like put, but the old file, of which staged is a corrected copy, is not kept."""
        self._replace(staged, self.folder / staged.name)

    def set_aside(self, name: str) -> None:
        """Renames a file to NAME.bak; nothing when there is none."""
        if os.path.lexists(self.folder / name):
            (self.folder / name).rename(self._keep(name))
            self.written.discard(name)
            _fsync(self.folder)

    def rename(self, name: str, new: str) -> None:
        """Another name for the same file; what had it is kept."""
        self.set_aside(new)
        (self.folder / name).rename(self.folder / new)
        self.kept[name] = new
        self.written.add(new)
        _fsync(self.folder)

    def need_room(self, size_bytes: int) -> None:
        """Raises CheckpointError: fewer bytes are free where the directory lies."""
        free = shutil.disk_usage(self.folder).free
        if free < size_bytes:
            raise CheckpointError(
                f"{self.folder}: {size_bytes / 1e9:.1f} GB are needed to mend the weights, but only "
                f"{free / 1e9:.1f} GB are free; make room and run it again"
            )

    def remove_leftovers(self) -> None:
        """Deletes the staging folders of killed runs."""
        for folder in self.folder.glob(f"{_PREFIX}*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _keep(self, name: str) -> Path:
        number = 1
        while os.path.lexists(kept := self.folder / f"{name}.bak{number if number > 1 else ''}"):
            number += 1
        self.kept[name] = kept.name
        return kept

    def _link(self, file: Path, other: Path) -> None:
        try:
            os.link(file, other, follow_symlinks=False)
        except OSError:  # a file system without hard links
            shutil.copy2(file, other, follow_symlinks=False)

    def _replace(self, staged: Path, target: Path) -> None:
        _fsync(staged)
        staged.replace(target)
        _fsync(self.folder)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
