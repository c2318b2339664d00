"""An object store in memory that counts the bytes it is asked for. No tests."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractBufferedFile

PROTOCOL = "counting"


class CountingFileSystem(MemoryFileSystem):
    """Reads as fsspec's stores do: by ranges, through fsspec's own cache where a caller leaves it on."""

    protocol = PROTOCOL
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    bytes_read: ClassVar[Counter[str]] = Counter()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.removeprefix(f"{PROTOCOL}://"))

    def _open(self, path: str, mode: str = "rb", *args: Any, **kwargs: Any) -> Any:
        if mode != "rb":
            return super()._open(path, mode, *args, **kwargs)
        return _CountedFile(self, path, mode, **kwargs)


class _CountedFile(AbstractBufferedFile):
    def _fetch_range(self, start: int, end: int) -> bytes:
        data: bytes = self.fs.store[self.path].getvalue()[start:end]
        self.fs.bytes_read[self.path] += len(data)
        return data


fsspec.register_implementation(PROTOCOL, CountingFileSystem, clobber=True)
