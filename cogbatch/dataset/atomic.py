"""Files that appear whole or not at all, and local ones that survive a power cut once they have appeared."""

from __future__ import annotations

import contextlib
import io
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from cogbatch.dataset.object_path import ObjectPath, Place

TEMPORARY_SUFFIX = ".tmp"


def write_atomically(path: Place, write: Callable[[IO[bytes]], object]) -> None:
    """Creates or replaces path with what `write` puts into the open file; parents must exist.

    On an object store one PUT. On disk a temporary name in the same folder (another file system could not
    rename), fsync of file and folder; a process killed in between leaves a hidden *.tmp file and the old
    state of path.
    """
    if isinstance(path, ObjectPath):
        buffer = io.BytesIO()
        write(buffer)
        path.write_bytes(buffer.getvalue())
        return
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{TEMPORARY_SUFFIX}")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as err:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(err, OSError) and err.errno is not None and err.filename in (None, str(temporary)):
            raise OSError(err.errno, err.strerror, str(path)) from err  # a full disk names no file
        raise
    _fsync_folder(path.parent)


def write_json(path: Place, value: object) -> None:
    """Writes value as indented JSON, atomically. Raises ValueError or TypeError: not a JSON value."""
    data = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    write_atomically(path, lambda file: file.write(data))


def write_text(path: Place, text: str) -> None:
    """Writes text as UTF-8, atomically."""
    write_atomically(path, lambda file: file.write(text.encode()))


def read_json(path: Place) -> Any:
    """The value of a JSON file. Raises OSError or ValueError."""
    return json.loads(path.read_bytes())


def remove_temporaries(folder: Place) -> None:
    """Deletes what killed writers left in the folder; on an object store they leave nothing."""
    if isinstance(folder, ObjectPath):
        return
    for path in folder.glob(f".*{TEMPORARY_SUFFIX}"):
        path.unlink(missing_ok=True)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
