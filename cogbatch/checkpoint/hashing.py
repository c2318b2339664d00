"""sha256 of files, remembered between runs by (path, size, modification time). No other store."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

# Below this many bytes hashing is faster than remembering.
_WORTH_REMEMBERING_BYTES = 4_000_000


def cache_root() -> Path:
    """Where converted models and remembered hashes lie: $COGBATCH_CACHE, else ~/.cache/cogbatch."""
    configured = os.environ.get("COGBATCH_CACHE")
    return Path(configured).expanduser() if configured else Path.home() / ".cache" / "cogbatch"


def file_sha256(path: Path) -> str:
    """Hex sha256 of the file's bytes."""
    return remembered("sha256", (path,), lambda: _hash(path))


def remembered(what: str, files: Sequence[Path], compute: Callable[[], str]) -> str:
    """compute(), or what it gave the last time these files had these sizes and modification times.

    what: names the computation. A lost or unwritable memory only costs time.
    """
    if sum(file.stat().st_size for file in files) < _WORTH_REMEMBERING_BYTES:
        return compute()
    stamps = "\n".join(map(_stamp, files))
    key = f"{what} {hashlib.sha256(stamps.encode()).hexdigest()}"
    file = cache_root() / "hashes.json"
    memory = _read(file)
    if key not in memory:
        value = compute()
        # Read again: another process may have added to it meanwhile. A lost race loses one entry.
        memory = {**_read(file), key: value}
        with suppress(OSError):
            _write(file, memory)
    return memory[key]


def _stamp(path: Path) -> str:
    stat = path.stat()
    return f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}"


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read(file: Path) -> dict[str, str]:
    try:
        memory = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return memory if isinstance(memory, dict) else {}


def _write(file: Path, memory: dict[str, str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=".hashes-")
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump(memory, stream, indent=0)
    Path(temporary).replace(file)
