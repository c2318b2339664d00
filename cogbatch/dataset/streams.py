"""Open streams of input files: a process keeps the one that it read last, so that neighbours read on.

Neighbouring shards share a row group, a gzip stream or a block of an object store. Streams go forwards: with
shards in order no byte is read twice, whatever the shards' size.
"""

from __future__ import annotations

import atexit
import gzip
import io
import threading
import zlib
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import IO, Any, Protocol, TypeVar

from cogbatch.dataset.files import InputFile, Listing
from cogbatch.dataset.object_path import StoredFile, storage_errors
from cogbatch.errors import DatasetError

REMOTE_BUFFER_BYTES = 4 * 2**20  # of one request to an object store, while reading on
GZIP_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile)
# Every shard of a gzip file is found by decompressing what comes before it.
MAX_GZIPPED_ROWS = 100_000


class Stream(Protocol):
    """Something open that can be kept."""

    def close(self) -> object:
        """Gives back what is open."""


S = TypeVar("S", bound=Stream)


def open_input(listing: Listing, file: InputFile) -> IO[bytes]:
    """A file of the input, open for reading forwards; gzip is decompressed on the way."""
    opened = open_ranges(listing, file)
    if listing.protocol != "file":
        opened = io.BufferedReader(opened, REMOTE_BUFFER_BYTES)  # type: ignore[type-var]
    return _Gunzipped(opened) if file.is_gzipped else opened  # type: ignore[return-value]


def open_ranges(listing: Listing, file: InputFile) -> IO[bytes]:
    """A file of the input, open for reading ranges: of an object store exactly those bytes."""
    path = f"{listing.folder.rstrip('/')}/{file.path}"
    # fsspec reads ahead by megabytes on its own, again after every seek.
    options = {} if listing.protocol == "file" else {"cache_type": "none"}
    with storage_errors(path):
        opened: IO[bytes] = listing.fs.open(path, "rb", **options)
    return opened if listing.protocol == "file" else StoredFile(opened, path)  # type: ignore[return-value]


def check_gzipped_rows(file: InputFile, num_rows: int) -> None:
    """Raises DatasetError: the file is compressed and has too many rows for that."""
    if file.is_gzipped and num_rows > MAX_GZIPPED_ROWS:
        raise DatasetError(
            f"{file.name} has more than {MAX_GZIPPED_ROWS} rows, too many to read in ranges while it is"
            f" compressed; first: gunzip {file.name}"
        )


def damage(file: InputFile, at_byte: int, err: BaseException) -> ValueError:
    """The error of the row where a file can be read no further."""
    unit = "decompressed byte" if file.is_gzipped else "byte"
    return ValueError(
        f"{file.name} is damaged or cut off at {unit} {at_byte} ({err}); what follows is lost, copy it again"
    )


@contextmanager
def kept(key: Hashable, open_stream: Callable[[], S]) -> Iterator[S]:
    """The stream of this key if it was the last one, else a new one; kept again unless it raises.

    Two at once get one each. Only one is kept: two row groups may not fit into memory.
    """
    stream = _exchange(None)
    if stream is None or stream[0] != key:
        _close(stream)
        stream = (key, open_stream())
    try:
        yield stream[1]
    except BaseException:
        stream[1].close()
        raise
    _close(_exchange(stream))


_lock = threading.Lock()
_last: list[tuple[Hashable, Any] | None] = [None]


def _exchange(stream: tuple[Hashable, Any] | None) -> tuple[Hashable, Any] | None:
    """Puts this one in, and gives what was there."""
    with _lock:
        taken, _last[0] = _last[0], stream
    return taken


def _close(stream: tuple[Hashable, Any] | None) -> None:
    if stream is not None:
        stream[1].close()


@atexit.register
def close_last() -> None:
    """Keeps nothing open; also at exit, because generators that outlive their modules complain."""
    _close(_exchange(None))


class _Gunzipped(gzip.GzipFile):
    """A GzipFile that closes the file below it."""

    def __init__(self, opened: IO[bytes]) -> None:
        super().__init__(fileobj=opened, mode="rb")
        self._opened = opened

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._opened.close()
