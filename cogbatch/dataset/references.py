"""Image values of the data -> what load_image takes, and never anything outside the image root."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import fsspec

from cogbatch.dataset.files import Listing, protocol_of
from cogbatch.dataset.rows import clean
from cogbatch.errors import DatasetError, ImageError
from cogbatch.images import DEFAULT_LIMITS
from cogbatch.redact import shown, without_secrets

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://|(data):(?=[\w/+.-]*[;,])")


@dataclass(frozen=True)
class ImageRoot:
    """The folder that image paths are relative to and may not leave.

    Args:
        protocol: "file" for local disk, else an fsspec scheme. folder: absolute, without scheme.
        fs: where it is.
    """

    protocol: str
    folder: str
    fs: fsspec.AbstractFileSystem

    def resolve(self, value: object) -> tuple[str | bytes | None, str | None]:
        """(image, reference): what load_image takes, and what the output says of it: the value of the data
        without the secrets of a URL, None for bytes.

        Args:
            value: None; bytes; URL; path; or Hugging Face's {"bytes": ..., "path": ...}.

        Raises ImageError: a path that leaves the root, a scheme that is not the input's, an unusable value,
        or an object that cannot be read; no OSError: what is wrong with one image concerns its row.
        """
        if isinstance(value, Mapping):
            value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
        if value is None:
            return None, None
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value), None
        if not isinstance(value, str):
            raise ImageError(f"image value of type {type(value).__name__}; expected bytes, a path or a URL")
        return self._find(value), without_secrets(clean(value), whole=True)

    def _find(self, value: str) -> str | bytes:
        scheme = SCHEME.match(value)
        if scheme is None:
            return self._local(value) if self.protocol == "file" else self._object(value)
        name = (scheme[1] or scheme[2]).lower()
        if name in ("http", "https"):
            return value
        if name == self.protocol == "file":
            return self._local(value.removeprefix(scheme[0]))
        if name == self.protocol:
            return self._fetch(self.fs._strip_protocol(value), value)
        raise ImageError(
            f"image {shown(value)}: scheme {name!r};"
            f" expected http(s), a path, or the input's {self.protocol!r}; bytes can be a column as they are"
        )

    def _local(self, value: str) -> str:
        """The real path, links followed: a link out of the root is as good as a path out of it."""
        if not value:
            raise ImageError("image '': an empty path; expected the path of an image, or null for none")
        try:
            root = Path(self.folder).resolve()
            path = (root / value).resolve()
        except (OSError, ValueError, RuntimeError) as err:  # NUL, too long, a loop of links
            reason = "a loop of links" if isinstance(err, RuntimeError) else _reason(err)
            raise ImageError(f"image {value!r}: not a usable path: {reason}") from err
        if not path.is_relative_to(root):
            raise ImageError(f"image {value!r}: leaves the image root; set input.image_root, or copy it in")
        return str(path)

    def _object(self, value: str) -> bytes:
        path = posixpath.normpath(posixpath.join(self.folder, value))
        if not path.startswith(self.folder.rstrip("/") + "/"):
            raise ImageError(f"image {value!r}: leaves the image root; set input.image_root, or copy it in")
        return self._fetch(path, value)

    def _fetch(self, path: str, value: str) -> bytes:
        limit = DEFAULT_LIMITS.max_bytes
        try:
            with self.fs.open(path, "rb", cache_type="none") as file:
                data: bytes = file.read(limit + 1)  # one more, so that load_image sees that it is too large
        except Exception as err:  # every file system has errors of its own
            raise ImageError(f"image {value!r}: cannot be read: {_reason(err)}") from err
        return data


def _reason(err: Exception) -> str:
    """Without the path, which says where the dataset lies: rows are the same wherever that is."""
    if isinstance(err, FileNotFoundError):
        return "no such file"
    text = getattr(err, "strerror", None) or str(err)
    return f"{type(err).__name__}: {text}"


def image_root(given: str | None, listing: Listing) -> ImageRoot:
    """The given root, or the input's own folder."""
    if given is None:
        return ImageRoot(listing.protocol, listing.folder, listing.fs)
    try:
        fs, path = fsspec.core.url_to_fs(given)
    except (ImportError, ValueError) as err:
        raise DatasetError(f"input.image_root {shown(given)} cannot be opened: {err}") from err
    return ImageRoot(protocol_of(fs), path, fs)
