"""sha256 of files, remembered between runs by (path, size, modification time). No other store."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Self

from cogbatch.cache import cache_root as cache_root
from cogbatch.errors import CheckpointError

# Below this many bytes hashing is faster than remembering.
_WORTH_REMEMBERING_BYTES = 4_000_000
_CHUNK_BYTES = 4 << 20


def file_sha256(path: Path) -> str:
    """Hex sha256 of the file's bytes.

    Each machine remembers its own: nodes may share the cache and not the disk that path is on.
    """
    return remembered(_sha256_here(), (path,), lambda: _hash(path))


def remember_sha256(path: Path, sha256: str) -> None:
    """file_sha256 of path is this from now on: it was hashed under another name."""
    remembered(_sha256_here(), (path,), lambda: sha256)


def intact_sha256(path: Path, *, stop: threading.Event | None = None) -> str:
    """file_sha256 of a file whose own checksums agree, where it is a zip as torch.save writes it.

    A memory-mapped tensor is read without them, so that a bit that fell over would be converted.

    Args:
        stop: once set, the work is given up with a CheckpointError.

    Raises:
        CheckpointError: a record is not what was written.
    """
    return remembered("intact sha256", (path,), lambda: _hash_intact(path, stop or threading.Event()))


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
        with suppress(OSError), _alone(file):
            _write(file, {**_read(file), key: value})  # read again: another may have added to it meanwhile
        return value
    return memory[key]


class SourceHashes:
    """intact_sha256 of files, in a thread of its own while they are converted: a context manager.

    Leaving it gives up what is not done.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._stamps = {file: _stamp(file) for file in files}
        self._stop = threading.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="source-sha256")
        self._hashes = {file: self._thread.submit(intact_sha256, file, stop=self._stop) for file in files}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.shutdown(cancel_futures=True)

    def check(self) -> None:
        """Raises what has gone wrong so far; never waits."""
        for future in self._hashes.values():
            if future.done():
                future.result()

    def result(self) -> dict[Path, str]:
        """All hashes. Raises CheckpointError: a file is damaged, or is not what it was at the start."""
        hashes = {file: future.result() for file, future in self._hashes.items()}
        for file, stamp in self._stamps.items():
            if not file.is_file() or _stamp(file) != stamp:
                raise CheckpointError(
                    f"{file}: changed while it was being converted; convert again when nothing writes to it"
                )
        return hashes


class _Record(NamedTuple):
    """A file in a zip. start, stop: where its bytes lie. expected: their CRC-32 as the zip has it."""

    name: str
    start: int
    stop: int
    expected: int


def _hash_intact(path: Path, stop: threading.Event) -> str:
    records = _records(path)
    found = [0] * len(records)
    whole, position, first = hashlib.sha256(), 0, 0
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    with path.open("rb", buffering=0) as stream:
        while length := stream.readinto(buffer):
            if stop.is_set():
                raise CheckpointError(f"{path}: hashing was interrupted")
            chunk = buffer[:length]
            whole.update(chunk)
            end = position + len(chunk)
            for i in range(first, len(records)):
                record = records[i]
                if record.start >= end:
                    break
                part = chunk[max(0, record.start - position) : record.stop - position]
                found[i] = zlib.crc32(part, found[i])
                if record.stop <= end:
                    first = i + 1
                    if found[i] != record.expected:
                        raise CheckpointError(
                            f"{path}: damaged: record {record.name} is not what was written "
                            f"(CRC-32 {found[i]:08x}, expected {record.expected:08x}); copy it again"
                        )
            position = end
    return whole.hexdigest()


def _records(path: Path) -> list[_Record]:
    """Those that can be checked, in the order of the file; none where it is no zip."""
    with path.open("rb") as stream:
        if stream.read(4) != b"PK\x03\x04":
            return []
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as stream:
            return sorted(_stored_records(archive, stream.fileno()), key=lambda record: record.start)
    except (zipfile.BadZipFile, OSError) as err:
        raise CheckpointError(f"{path}: not a readable zip ({err}); truncated? copy it again") from err


def _stored_records(archive: zipfile.ZipFile, descriptor: int) -> Iterator[_Record]:
    for info in archive.infolist():
        # torch.save writes 0 where it was told to compute no checksums; it never compresses.
        if info.CRC and info.compress_type == zipfile.ZIP_STORED:
            lengths = os.pread(descriptor, 4, info.header_offset + 26)  # of name and extra field
            start = (
                info.header_offset + 30 + sum(int.from_bytes(lengths[i : i + 2], "little") for i in (0, 2))
            )
            yield _Record(info.filename, start, start + info.file_size, info.CRC)


def _sha256_here() -> str:
    return f"sha256 on {platform.node()}"


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


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Others that want to write file wait, threads too."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_name(f"{file.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(file: Path, memory: dict[str, str]) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=".hashes-")
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump(memory, stream, indent=0)
    Path(temporary).replace(file)
