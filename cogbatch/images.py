"""One image source -> one loaded RGB PIL image, with every limit. PIL and httpx only.

Not a cache and not a dataset reader: s3:// and other fsspec sources arrive here as bytes. Any number of
threads may call it, also with one and the same PIL image: those are decoded one at a time, all else at once.
"""

from __future__ import annotations

import functools
import io
import ipaddress
import os
import socket
import ssl
import stat
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx
from PIL import Image, UnidentifiedImageError

from cogbatch.errors import ImageError

Resolver = Callable[[str, int], list[str]]

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

MAX_REDIRECTS = 5
FIRST_RETRY_DELAY_S = 0.5  # doubled by every further attempt
# Image.open decodes at first use: two threads that use one such image at once get wrong pixels or an error.
PIL_SOURCE = threading.Lock()
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address


@dataclass(frozen=True)
class ImageLimits:
    """What an image may cost.

    Args:
        max_pixels: width x height, judged from the header before decoding; at most 89,478,485 (PIL's).
        max_bytes: encoded size. timeout_s: for one download attempt as a whole, connection included.
        attempts: tries of a download; only time-outs and 5xx answers are tried again.
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
    if isinstance(source, bytes | bytearray | memoryview):
        name, data = "image bytes", bytes(source)
    else:
        source = os.fspath(source)
        name = shown(source)
        remote = source.lower().startswith(("http://", "https://"))
        data = fetch_image(source, limits=limits) if remote else _read_file(source, name=name, limits=limits)
    if not data:
        raise ImageError(f"{name}: empty, 0 bytes; expected an encoded image")
    if len(data) > limits.max_bytes:
        raise ImageError(f"{name}: {len(data)} bytes, over the limit of {limits.max_bytes}")
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


def fetch_image(
    url: str,
    *,
    limits: ImageLimits = DEFAULT_LIMITS,
    resolve: Resolver | None = None,
    transport: httpx.BaseTransport | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> bytes:
    """The bytes behind an http(s) URL, at most limits.max_bytes.

    Every hop's host is resolved once, all its addresses are checked, and the connection goes to the address
    that was checked, so that a second DNS answer changes nothing. Proxies of the environment are not used.

    Raises ImageError: refused address, time-out, an answer that is not 2xx, too large.
    """
    name = shown(url)
    for attempt in range(1, limits.attempts + 1):
        try:
            return _fetch_once(url, limits=limits, resolve=resolve or _resolve, transport=transport)
        except _TryAgainError as err:
            problem = str(err)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as err:
            raise ImageError(f"{name}: cannot be fetched: {_line(err)}") from err
        if attempt < limits.attempts:
            sleep(FIRST_RETRY_DELAY_S * 2 ** (attempt - 1))
    raise ImageError(f"{name}: {problem}; gave up after {limits.attempts} attempts")


class _TryAgainError(Exception):
    """A time-out or a 5xx answer."""


def _fetch_once(
    url: str, *, limits: ImageLimits, resolve: Resolver, transport: httpx.BaseTransport | None
) -> bytes:
    deadline = time.monotonic() + limits.timeout_s
    target = httpx.URL(url)
    with httpx.Client(
        verify=_tls_context(), trust_env=False, timeout=limits.timeout_s, transport=transport
    ) as client:
        for _ in range(MAX_REDIRECTS + 1):
            address = _checked_address(target, name=shown(url), limits=limits, resolve=resolve)
            request = client.build_request(
                "GET",
                target.copy_with(host=address),
                headers={"Host": target.netloc.decode(), "Accept-Encoding": "identity"},
                extensions={"sni_hostname": target.host},
            )
            try:
                with closing(client.send(request, stream=True)) as response:
                    if response.has_redirect_location:
                        target = target.join(response.headers["location"])
                        continue
                    return _body(response, name=shown(url), limits=limits, deadline=deadline)
            except httpx.TimeoutException as err:
                raise _TryAgainError(f"no answer within {limits.timeout_s:g} s") from err
    raise ImageError(f"{shown(url)}: more than {MAX_REDIRECTS} redirects")


def _body(response: httpx.Response, *, name: str, limits: ImageLimits, deadline: float) -> bytes:
    if response.status_code >= 500:
        raise _TryAgainError(f"the server answers {response.status_code}")
    if not response.is_success:
        raise ImageError(f"{name}: the server answers {response.status_code}; expected 200")
    data = bytearray()
    for chunk in response.iter_bytes():
        data += chunk
        if len(data) > limits.max_bytes:
            raise ImageError(f"{name}: over the limit of {limits.max_bytes} bytes")
        if time.monotonic() > deadline:
            raise _TryAgainError(f"not complete within {limits.timeout_s:g} s")
    return bytes(data)


def _checked_address(url: httpx.URL, *, name: str, limits: ImageLimits, resolve: Resolver) -> str:
    if url.scheme not in ("http", "https") or not url.host:
        raise ImageError(f"{name}: leads to {shown(str(url))}; expected http(s)")
    addresses = resolve(url.host, url.port or (443 if url.scheme == "https" else 80))
    for address in addresses:
        if not limits.allow_private_addresses and not _is_public(address):
            raise ImageError(
                f"{name}: host {url.host!r} has the private address {address};"
                " refused unless private addresses are allowed"
            )
    return addresses[0]


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in NAT64 else ip.ipv4_mapped or ip.sixtofour
        if inner is not None:
            return inner.is_global and not inner.is_multicast
    return ip.is_global and not ip.is_multicast


def _resolve(host: str, port: int) -> list[str]:
    """Addresses of the host, IPv4 first: many containers have no IPv6 route."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    ordered = sorted(found, key=lambda entry: entry[0] != socket.AF_INET)
    return [str(entry[4][0]) for entry in ordered]


@functools.cache
def _tls_context() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)  # loading the certificates takes longer than most images


def shown(source: str) -> str:
    """A path or URL as error messages have it: quoted, and cut where it is long."""
    return repr(source if len(source) <= 200 else source[:197] + "...")


def _line(err: BaseException) -> str:
    reason = getattr(err, "strerror", None) or str(err)  # str of an OSError repeats the path
    return " ".join(reason.split()) or type(err).__name__
