"""The input's path -> its files, their format and their fingerprint. Lists, reads no data."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from fsspec.core import has_magic
from fsspec.implementations.local import LocalFileSystem

from cogbatch.dataset.huggingface import saved_files
from cogbatch.dataset.object_path import storage_errors
from cogbatch.dataset.options import FORMATS, InputOptions
from cogbatch.dataset.rows import printable
from cogbatch.errors import DatasetError
from cogbatch.redact import lacks_secrets, without_secrets

ENDINGS = {
    "parquet": (".parquet", ".pq"),
    "jsonl": (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz"),
    "csv": (".csv", ".csv.gz"),
    "webdataset": (".tar", ".tar.gz", ".tgz"),
    "huggingface": (".arrow",),
    "folder": (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2", ".ppm"),
}
GZIPPED = (".gz", ".tgz")
# Compressed as a whole, and what undoes it. Of gzip, only what ENDINGS has can be read as it is.
COMPRESSED = {".gz": "gunzip", ".bz2": "bunzip2", ".xz": "unxz", ".zst": "unzstd --rm"}
# Where file systems keep what changes when a file does: S3, GCS, HTTP, then times (local, Azure, memory).
VERSION_KEYS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "modified", "created")

Infos = Mapping[str, dict[str, Any]]  # file system's own words about each file, by relative path


@dataclass(frozen=True)
class InputFile:
    """One file of the input: path relative to the input's folder, and what identifies its content."""

    path: str
    size_bytes: int
    version: str

    @property
    def name(self) -> str:
        """The path as messages, job.json and parts have it: one line of valid UTF-8, without secrets."""
        return without_secrets(printable(self.path), whole=True)

    @property
    def is_gzipped(self) -> bool:
        """Whether the file can only be read from its start."""
        return self.path.lower().endswith(GZIPPED)


@dataclass(frozen=True)
class Listing:
    """What the path leads to.

    Args:
        fs: where the files are; travels to workers with its options, but not its connections.
        protocol: "file" for local disk. folder: absolute, without scheme.
    """

    format: str
    fs: fsspec.AbstractFileSystem
    protocol: str
    folder: str
    files: tuple[InputFile, ...]


def list_input(options: InputOptions) -> Listing:
    """The files of options.path, sorted by relative path.

    Names that begin with "." or "_" are passed over in directories, as Spark and Hugging Face write them.

    Raises DatasetError: nothing there, an unknown format, or several formats.
    """
    path = options.path
    if options.format not in FORMATS:
        near = difflib.get_close_matches(options.format, FORMATS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DatasetError(f"input.format is {options.format!r}, expected one of {', '.join(FORMATS)}{hint}")
    if lacks_secrets(path):
        raise DatasetError(
            "this address lacks its secrets, which job.json does not keep; set input.path again"
        )
    try:
        fs, root = fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as err:
        raise DatasetError(f"this address cannot be opened: {err}") from err
    root = root.rstrip("/") or "/"
    try:
        with storage_errors(protocol_of(fs)):
            folder, infos = _find(fs, root)
            kind = _format_of(infos, options)
            if kind == "huggingface" and folder == root:
                infos = saved_files(fs, folder, infos)
    except OSError as err:
        said = err if err.filename is not None else err.strerror or err
        raise DatasetError(f"cannot be listed: {said}") from err
    if options.format == "auto" or folder == root:  # a file or glob with a format is taken at its word
        infos = {name: info for name, info in infos.items() if name.lower().endswith(ENDINGS[kind])}
    if not infos:
        raise DatasetError(f"no {kind} files there; expected names ending in {', '.join(ENDINGS[kind])}")
    _refuse_twins(infos)
    files = tuple(
        InputFile(name, int(info["size"] or 0), _version(info)) for name, info in sorted(infos.items())
    )
    return Listing(kind, fs, protocol_of(fs), folder, files)


def protocol_of(fs: fsspec.AbstractFileSystem) -> str:
    """The scheme of a file system: "file" for local disk."""
    if isinstance(fs, LocalFileSystem):
        return "file"
    return fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]


def fingerprint(files: Iterable[InputFile]) -> str:
    """sha256 over the sorted (relative path, size, etag or modification time)."""
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.path):
        path = without_secrets(file.path, whole=True)  # a signed URL may be signed anew
        digest.update(f"{path}\0{file.size_bytes}\0{file.version}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _find(fs: fsspec.AbstractFileSystem, root: str) -> tuple[str, Infos]:
    """The input's folder and the infos of files under it, by relative path."""
    local = isinstance(fs, LocalFileSystem)
    if local and not has_magic(root):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            Path(root).stat()  # says why a path cannot be looked at, which isfile and isdir do not
    if fs.isfile(root):
        folder = posixpath.dirname(root)
        found = {root: fs.info(root)}
    elif fs.isdir(root):
        folder = root
        listed = fs.find(root, detail=True, withdirs=local)
        found = {name: info for name, info in listed.items() if not _is_hidden(posixpath.relpath(name, root))}
        if local:  # find passes over folders that may not be read
            _refuse_closed(root, *(name for name, info in found.items() if info["type"] == "directory"))
            found = {name: info for name, info in found.items() if info["type"] != "directory"}
    elif has_magic(root):
        folder = root
        while has_magic(folder):
            folder = posixpath.dirname(folder)
        if local:  # as find does, glob passes over them
            _refuse_closed(*_folders_on_the_way(fs, folder, root))
        found = {name: info for name, info in fs.glob(root, detail=True).items() if info["type"] == "file"}
    else:
        raise DatasetError("nothing there; expected a file, a directory or a glob")
    relative = {posixpath.relpath(name, folder or "/"): info for name, info in found.items()}
    if not relative:
        raise DatasetError(
            f"no file matches; expected files of {', '.join(FORMATS[1:-1])}, or for images their folder"
        )
    return folder, relative


def _folders_on_the_way(fs: fsspec.AbstractFileSystem, folder: str, pattern: str) -> Iterator[str]:
    """The folders that a glob looks into, folder being the part of it without magic."""
    if fs.isdir(folder):
        yield folder
    pieces = pattern.removeprefix(folder).strip("/").split("/")
    for count in range(1, len(pieces)):
        found = fs.glob(posixpath.join(folder, *pieces[:count]), detail=True)
        yield from (name for name, info in found.items() if info["type"] == "directory")


def _refuse_closed(*folders: str) -> None:
    closed = next((folder for folder in folders if not os.access(folder, os.R_OK | os.X_OK)), None)
    if closed is not None:
        raise DatasetError(f"{printable(closed)} may not be read by this user; allow it, or use another path")


def _is_hidden(name: str) -> bool:
    return any(piece.startswith((".", "_")) for piece in name.split("/"))


def _format_of(infos: Iterable[str], options: InputOptions) -> str:
    if options.format != "auto":
        return options.format
    names = sorted(name.lower() for name in infos)
    kinds = [
        kind for kind, ends in ENDINGS.items() if kind != "folder" and any(n.endswith(ends) for n in names)
    ]
    if len(kinds) > 1:
        raise DatasetError(f"files of several formats ({', '.join(sorted(kinds))}); set input.format")
    if kinds:
        return kinds[0]
    if any(name.endswith(ENDINGS["folder"]) for name in names):
        return "folder"
    for ending, command in COMPRESSED.items():
        found = next((name for name in sorted(infos) if name.lower().endswith(ending)), None)
        if found:
            raise DatasetError(
                f"{printable(found)} is compressed as a whole and cannot be read in ranges;"
                f" first: {command} {printable(found)}"
            )
    known = ", ".join(ending for endings in ENDINGS.values() for ending in endings)
    raise DatasetError(
        f"unknown format of {printable(', '.join(names[:3]))}; expected {known}, or set input.format"
    )


def _refuse_twins(infos: Infos) -> None:
    """A file beside its own decompressed copy would give every row twice."""
    for name in infos:
        if name.endswith(".gz") and name.removesuffix(".gz") in infos:
            raise DatasetError(f"{printable(name)} is there and decompressed too; remove one of the two")


def _version(info: dict[str, Any]) -> str:
    return next((str(info[key]) for key in VERSION_KEYS if info.get(key) is not None), "")
