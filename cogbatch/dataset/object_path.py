"""A place on an object store, with the few methods of pathlib.Path that a run directory needs. By fsspec.

One object is one PUT: it appears whole or not at all. There are no folders to make, and nothing is believed
that was listed earlier, since other machines write too.
"""

from __future__ import annotations

import contextlib
import errno
import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import fsspec

from cogbatch.errors import CogbatchError

# Where PUT can be made to fail if the object exists, as fsspec's mode "create".
CONDITIONAL = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "memory"})


@dataclass(frozen=True)
class ObjectPath:
    """A URL such as s3://bucket/run, and what can be done with it. Storage that fails is an OSError.

    Args:
        url: with its scheme and without a "/" at its end.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> ObjectPath:
        return ObjectPath(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        """The last component."""
        return self.url.rsplit("/", 1)[-1]

    def exists(self) -> bool:
        """Whether there is an object of exactly this name."""
        with self._opened(fresh=True) as (fs, path):
            return bool(fs.isfile(path))

    def open(self, mode: str = "rb") -> IO[bytes]:
        """The object, open for reading: as it was when its folder was last listed."""
        with self._opened() as (fs, path):
            return StoredFile(fs.open(path, mode), self.url)  # type: ignore[return-value]

    def read_bytes(self) -> bytes:
        """All of the object. Raises FileNotFoundError."""
        with self._opened() as (fs, path):
            data: bytes = fs.cat_file(path)
            return data

    def read_text(self) -> str:
        """The same as text."""
        return self.read_bytes().decode()

    def write_bytes(self, data: bytes) -> None:
        """Creates or replaces the object."""
        with self._opened() as (fs, path):
            fs.pipe_file(path, data)

    def upload(self, file: Path, name: str) -> None:
        """Creates or replaces the object `name` under it with a local file's content, a piece at a time."""
        with (self / name)._opened() as (fs, path):
            fs.put_file(str(file), path)

    @property
    def has_conditional_put(self) -> bool:
        """Whether its PUT can be asked to fail if the object exists; not all such stores keep to it."""
        with self._opened() as (fs, _):
            protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
            return not CONDITIONAL.isdisjoint(protocols)

    def create(self, data: bytes) -> bool:
        """Creates the object; False when there is one, whoever was faster.

        That is one step where the store has conditional PUT, else two.
        """
        if self.has_conditional_put:
            with self._opened() as (fs, path):
                try:
                    fs.pipe_file(path, data, mode="create")
                    return True
                except OSError:  # stores do not agree on the error
                    if not self.exists():
                        raise
                    return False
        if self.exists():
            return False
        self.write_bytes(data)
        return True

    def names(self) -> list[str]:
        """What lies directly under it, sorted; nothing where there is nothing."""
        with self._opened() as (fs, path):
            try:
                found = fs.ls(path, detail=False, refresh=True)
            except FileNotFoundError:
                return []
        names = {entry.rstrip("/").rsplit("/", 1)[-1] for entry in found if entry.rstrip("/") != path}
        return sorted(names - {""})

    def unlink(self) -> None:
        """Deletes the object, if there is one."""
        with self._opened() as (fs, path), contextlib.suppress(FileNotFoundError):
            fs.rm_file(path)

    def remove_tree(self) -> None:
        """Deletes all that lies under it."""
        with self._opened(fresh=True) as (fs, path), contextlib.suppress(FileNotFoundError):
            fs.rm(path, recursive=True)

    @contextlib.contextmanager
    def _opened(self, *, fresh: bool = False) -> Iterator[tuple[Any, str]]:
        with storage_errors(self.url):
            fs, path = fsspec.core.url_to_fs(self.url)
            if fresh:
                fs.invalidate_cache()
            yield fs, path.rstrip("/")


Place = Path | ObjectPath


def place_of(path: str | Path | ObjectPath) -> Place:
    """The path as what it is: a URL other than file:// as an ObjectPath, all else as an absolute Path."""
    if isinstance(path, ObjectPath):
        return path
    text = str(path)
    if "://" in text and not text.startswith("file://"):
        return ObjectPath(text.rstrip("/"))
    return Path(text.removeprefix("file://")).expanduser().absolute()


def names_in(place: Place) -> list[str]:
    """What lies directly in a folder, sorted; nothing where there is no folder."""
    if isinstance(place, ObjectPath):
        return place.names()
    return sorted(entry.name for entry in place.iterdir()) if place.exists() else []


def refresh(folder: Place) -> None:
    """Lists an object store's folder anew, so that what is opened from it next is what is there now."""
    if isinstance(folder, ObjectPath):
        folder.names()


def make_folder(place: Place) -> None:
    """The folder, with its parents; an object store needs none."""
    if isinstance(place, Path):
        place.mkdir(parents=True, exist_ok=True)


def remove_tree(place: Place) -> None:
    """Deletes a folder and all in it."""
    if isinstance(place, ObjectPath):
        place.remove_tree()
    else:
        shutil.rmtree(place)


@contextlib.contextmanager
def storage_errors(where: str) -> Iterator[None]:
    """What the storage of this place raises, as OSError with a number: clients have errors of their own for a
    lost connection or absent credentials, and those say nothing about the data."""
    try:
        yield
    except (CogbatchError, NotImplementedError, ValueError):
        raise
    except OSError as err:
        if err.errno is not None or isinstance(err, FileNotFoundError | FileExistsError | PermissionError):
            raise
        raise OSError(errno.EIO, f"{where}: {' '.join(str(err).split())}") from err
    except ImportError as err:
        raise OSError(errno.ENOSYS, f"{where}: its file system is not installed ({err})") from err
    except Exception as err:
        line = " ".join(str(err).split())
        if "Credentials" in type(err).__name__:
            line += "; set them in the environment of this machine (docs/storage.md)"
        raise OSError(errno.EIO, f"{where}: {type(err).__name__}: {line}") from err


class StoredFile(io.RawIOBase):
    """An open object whose reads fail as storage_errors says."""

    def __init__(self, file: IO[bytes], where: str) -> None:
        self._file, self._where = file, where

    def readinto(self, buffer: Any) -> int:
        with storage_errors(self._where):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
