"""The input's path -> its files, their format and their fingerprint. Lists, never reads contents."""

from __future__ import annotations

import difflib
import hashlib
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import fsspec
from fsspec.core import has_magic
from fsspec.implementations.local import LocalFileSystem

from cogbatch.dataset.options import FORMATS, InputOptions
from cogbatch.errors import DatasetError

ENDINGS = {".parquet": "parquet", ".pq": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2", ".ppm")
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
# Where file systems keep what changes when a file does: S3, GCS, HTTP, then times (local, Azure, memory).
VERSION_KEYS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "modified", "created")


@dataclass(frozen=True)
class InputFile:
    """One file of the input: path relative to the input's folder, and what identifies its content."""

    path: str
    size_bytes: int
    version: str


@dataclass(frozen=True)
class Listing:
    """What the path leads to. folder: absolute, without scheme; protocol: "file" for local disk."""

    format: str
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
    try:
        fs, root = fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as err:
        raise DatasetError(f"this address cannot be opened: {err}") from err
    root = root.rstrip("/") or "/"
    try:
        folder, infos = _find(fs, root)
    except OSError as err:
        raise DatasetError(f"cannot be listed: {err}") from err
    kind = _format_of(infos, options)
    endings = (
        IMAGE_ENDINGS if kind == "folder" else tuple(end for end, name in ENDINGS.items() if name == kind)
    )
    if options.format == "auto" or folder == root:  # a file or glob with a format is taken at its word
        infos = {name: info for name, info in infos.items() if name.lower().endswith(endings)}
    if not infos:
        raise DatasetError(f"no {kind} files there; expected names ending in {', '.join(endings)}")
    files = tuple(
        InputFile(name, int(info["size"] or 0), _version(info)) for name, info in sorted(infos.items())
    )
    protocol = "file" if isinstance(fs, LocalFileSystem) else _first(fs.protocol)
    return Listing(format=kind, protocol=protocol, folder=folder, files=files)


def fingerprint(files: Iterable[InputFile]) -> str:
    """sha256 over the sorted (relative path, size, etag or modification time)."""
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.path):
        digest.update(f"{file.path}\0{file.size_bytes}\0{file.version}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _find(fs: fsspec.AbstractFileSystem, root: str) -> tuple[str, dict[str, dict[str, Any]]]:
    """The input's folder and the infos of files under it, by relative path."""
    if fs.isfile(root):
        folder = posixpath.dirname(root)
        found = {root: fs.info(root)}
    elif fs.isdir(root):
        folder = root
        listed = fs.find(root, detail=True)
        found = {name: info for name, info in listed.items() if not _is_hidden(posixpath.relpath(name, root))}
    elif has_magic(root):
        folder = root
        while has_magic(folder):
            folder = posixpath.dirname(folder)
        found = {name: info for name, info in fs.glob(root, detail=True).items() if info["type"] == "file"}
    else:
        raise DatasetError("nothing there; expected a file, a directory or a glob")
    relative = {posixpath.relpath(name, folder or "/"): info for name, info in found.items()}
    if not relative:
        raise DatasetError(
            f"no file matches; expected files of {', '.join(FORMATS[1:-1])}, or for images their folder"
        )
    return folder, relative


def _is_hidden(name: str) -> bool:
    return any(piece.startswith((".", "_")) for piece in name.split("/"))


def _format_of(infos: Iterable[str], options: InputOptions) -> str:
    if options.format != "auto":
        return options.format
    names = [name.lower() for name in infos]
    kinds = sorted({kind for name in names for ending, kind in ENDINGS.items() if name.endswith(ending)})
    if len(kinds) > 1:
        raise DatasetError(f"files of several formats ({', '.join(kinds)}); set input.format")
    if kinds:
        return kinds[0]
    if any(name.endswith(IMAGE_ENDINGS) for name in names):
        return "folder"
    compressed = next((name for name in infos if name.lower().endswith(COMPRESSED)), None)
    if compressed:
        raise DatasetError(
            f"{compressed} is compressed as a whole; decompress it first (gunzip -k {compressed})"
        )
    some = ", ".join(sorted(infos)[:3])
    raise DatasetError(
        f"unknown format of {some}; expected {', '.join([*ENDINGS, *IMAGE_ENDINGS])} or set input.format"
    )


def _version(info: dict[str, Any]) -> str:
    return next((str(info[key]) for key in VERSION_KEYS if info.get(key) is not None), "")


def _first(protocol: str | tuple[str, ...]) -> str:
    return protocol if isinstance(protocol, str) else protocol[0]
