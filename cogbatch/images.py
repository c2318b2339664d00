"""One image source -> one loaded RGB PIL image, with every limit. PIL only; URLs are fetched in fetch.py.

Not a cache and not a dataset reader: s3:// and other fsspec sources arrive here as bytes. Any number of
threads may call it, also with one and the same PIL image: those are decoded one at a time, all else at once.
"""

from __future__ import annotations

import io
import os
import stat
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from cogbatch.errors import ImageError
from cogbatch.fetch import fetch
from cogbatch.redact import shown

Image.init()  # registers the plugins once: PIL does it lazily and without a lock
# What users have. Left out on purpose: EPS (starts Ghostscript), and formats recognised without a signature.
FORMATS = tuple(
    name
    for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO", "QOI")
    if name in Image.OPEN
)
# PIL warns above this size and refuses above twice that. We refuse what it warns about, and no lower layer is
# asked to bypass it. A filter at import, because warnings.catch_warnings is not thread-safe.
PIL_MAX_PIXELS = 89_478_485
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)

# Image.open decodes at first use: two threads that use one such image at once get wrong pixels or an error.
PIL_SOURCE = threading.Lock()


@dataclass(frozen=True)
class ImageLimits:
    """What an image may cost.

    Args:
        max_pixels: width x height, judged from the header before decoding; at most 89,478,485 (PIL's).
        max_bytes: encoded size. timeout_s: for one download attempt as a whole, connection included.
        attempts: tries of a download; again after what may pass: time-outs, lost connections, 429, 5xx.
        allow_private_addresses: let URLs reach loopback, private and link-local addresses.

    Raises ValueError: a limit that is not positive, or max_pixels above PIL's.
    """

    max_pixels: int = 64_000_000
    max_bytes: int = 64 * 2**20
    timeout_s: float = 30.0
    attempts: int = 3
    allow_private_addresses: bool = False

    def __post_init__(self) -> None:
        for name in ("max_pixels", "max_bytes", "timeout_s", "attempts"):
            if getattr(self, name) <= 0:
                raise ValueError(f"ImageLimits.{name} is {getattr(self, name)}, expected more than 0")
        if self.max_pixels > PIL_MAX_PIXELS:
            raise ValueError(
                f"ImageLimits.max_pixels is {self.max_pixels}, expected at most {PIL_MAX_PIXELS}"
            )


DEFAULT_LIMITS = ImageLimits()


def load_image(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image,
    *,
    limits: ImageLimits = DEFAULT_LIMITS,
) -> Image.Image:
    """The source as a new, fully decoded RGB image.

    As CogVLM's official code (Image.open(...).convert("RGB")): EXIF orientation is not applied, transparency
    is dropped, of an animation the first frame is taken. Unlike it, images of more than 8 bits are scaled and
    not clipped: integers from 0..65535, floats from 0..1 (or from 0..255, when a value lies outside 0..1).

    Args:
        source: http(s) URL or local path, encoded bytes, or a PIL image.

    Raises ImageError: one line; missing, empty, truncated, not an image of a known format, over a limit.
    """
    if isinstance(source, Image.Image):
        with PIL_SOURCE:
            return _decode(source, name="image", limits=limits)
    name, data = _encoded(source, limits=limits)
    try:
        opened = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as err:
        expected = ", ".join(FORMATS)
        raise ImageError(f"{name}: not an image ({len(data)} bytes); expected one of {expected}") from err
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as err:
        raise ImageError(f"{name}: over the limit of {limits.max_pixels} pixels; make it smaller") from err
    except Exception as err:  # PIL's parsers raise anything on damaged headers
        raise ImageError(f"{name}: damaged image header: {_line(err)}") from err
    with opened:
        return _decode(opened, name=name, limits=limits)


def encoded_image(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview, *, limits: ImageLimits = DEFAULT_LIMITS
) -> bytes:
    """The bytes that load_image would decode, with the same limits on reading them.

    Raises ImageError: missing, empty, or over the limit of bytes.
    """
    return _encoded(source, limits=limits)[1]


def _encoded(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview, *, limits: ImageLimits
) -> tuple[str, bytes]:
    """(what messages call it, bytes)."""
    if isinstance(source, bytes | bytearray | memoryview):
        name, data = "image bytes", bytes(source)
    else:
        source = os.fspath(source)
        name = shown(source)
        remote = source.lower().startswith(("http://", "https://"))
        data = _fetch(source, limits=limits) if remote else _read_file(source, name=name, limits=limits)
    if not data:
        raise ImageError(f"{name}: empty, 0 bytes; expected an encoded image")
    if len(data) > limits.max_bytes:
        raise ImageError(f"{name}: {len(data)} bytes, over the limit of {limits.max_bytes}")
    return name, data


def _decode(image: Image.Image, *, name: str, limits: ImageLimits) -> Image.Image:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{name}: {width} x {height} pixels; expected at least 1 x 1")
    if width * height > limits.max_pixels:
        raise ImageError(
            f"{name}: {width} x {height}, over the limit of {limits.max_pixels} pixels; make it smaller"
        )
    try:
        image.load()
        return _to_rgb(image)
    except Exception as err:  # whatever a decoder raises concerns this image only
        raise ImageError(f"{name}: truncated or damaged {image.format or 'image'}: {_line(err)}") from err


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits: 65535 / 257 = 255; the half rounds, since PIL truncates
        image = image.convert("I").point(lambda value: value * (1 / 257) + 0.5).convert("L")
    elif image.mode == "F":
        low, high = image.getextrema()
        if low >= 0 and high <= 1:  # type: ignore[operator]
            image = image.point(lambda value: value * 255 + 0.5)
        image = image.convert("L")
    elif image.mode == "La":  # premultiplied: PIL has one way out
        image = image.convert("LA")
    rgb = (
        image.convert("RGB")
        if "transparency" not in image.info
        else _without_transparency(image).convert("RGB")
    )
    rgb.info = {}
    return rgb


def _without_transparency(image: Image.Image) -> Image.Image:
    """A copy whose conversion neither warns nor looks for the transparent colour; pixels are the same."""
    image = image.copy()
    image.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return image


def _fetch(url: str, *, limits: ImageLimits) -> bytes:
    return fetch(
        url,
        max_bytes=limits.max_bytes,
        timeout_s=limits.timeout_s,
        attempts=limits.attempts,
        allow_private_addresses=limits.allow_private_addresses,
    )


def _read_file(path: str, *, name: str, limits: ImageLimits) -> bytes:
    if "://" in path:
        raise ImageError(f"{name}: expected an http(s) URL or a local path")
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe or device would block or never end
            raise ImageError(f"{name}: not a file; expected the path of an image")
        if status.st_size > limits.max_bytes:
            raise ImageError(f"{name}: {status.st_size} bytes, over the limit of {limits.max_bytes}")
        return Path(path).read_bytes()
    except (OSError, ValueError) as err:
        raise ImageError(f"{name}: cannot be read: {_line(err)}") from err


def _line(err: BaseException) -> str:
    reason = getattr(err, "strerror", None) or str(err)  # str of an OSError repeats the path
    return " ".join(reason.split()) or type(err).__name__
