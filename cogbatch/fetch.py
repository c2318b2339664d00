"""The bytes behind an http(s) URL: one pool of connections a process, retries, and every limit. Not a cache.

Redirects are followed here, hop by hop, each over a checked address (network.py). Proxies and credentials of
the environment are not used, and cookies are not kept. Any number of threads may fetch at once.
"""

from __future__ import annotations

import atexit
import base64
import email.utils
import functools
import os
import random
import ssl
import time
import zlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

import httpcore
import httpx

from cogbatch import __version__
from cogbatch.errors import ImageError
from cogbatch.network import INTERNET, CheckedNetwork, Network, RefusedError, UnresolvedError, within
from cogbatch.redact import lacks_secrets, shown

MAX_REDIRECTS = 5
MAX_CONNECTIONS = 64  # of a process; a worker fetches with fewer threads
KEEP_ALIVE_S = 30.0
FIRST_RETRY_DELAY_S = 0.5  # doubled by every further attempt
DRAINED_BYTES = 64 * 2**10  # of an answer nobody wants: read, so that its connection can be used again
RETRIED_STATUS = frozenset({408, 425, 429, *range(500, 600)})
TIMEOUTS = ("connect", "read", "write", "pool")


class Fetcher:
    """Fetches over connections that are kept for the next URL of the same server. Close it after use.

    Args:
        allow_private_addresses: let URLs reach loopback, private and link-local addresses.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        *,
        allow_private_addresses: bool = False,
        network: Network | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._sleep = sleep
        self._pool = httpcore.ConnectionPool(
            ssl_context=_tls_context(),
            max_connections=MAX_CONNECTIONS,
            keepalive_expiry=KEEP_ALIVE_S,
            network_backend=CheckedNetwork(network or INTERNET, allow_private=allow_private_addresses),
        )

    def fetch(self, url: str, *, max_bytes: int, timeout_s: float, attempts: int) -> bytes:
        """The body that the URL leads to, at most max_bytes.

        Tried again after time-outs, lost connections, 408, 425, 429 and 5xx, at growing and random intervals;
        a server's Retry-After is kept to up to timeout_s.

        Args:
            timeout_s: for one attempt with all its redirects. attempts: tries in all.

        Raises ImageError: refused address, time-out, an answer that is not 2xx, too large.
        """
        name = shown(url)
        for attempt in range(1, attempts + 1):
            try:
                return self._attempt(url, max_bytes=max_bytes, timeout_s=timeout_s)
            except _TryAgainError as err:
                problem, asked_s = str(err), err.asked_s
            except RefusedError as err:
                raise ImageError(f"{name}: {err}") from err
            except httpx.InvalidURL as err:  # quotes pieces of it, as the password's before an unescaped "/"
                reason = "" if lacks_secrets(name) else f": {_line(err)}"
                raise ImageError(f"{name}: not a valid URL{reason}") from None
            except (httpcore.ProtocolError, OSError, ValueError) as err:
                raise ImageError(f"{name}: cannot be fetched: {_line(err)}") from err
            if attempt < attempts:
                delay_s = FIRST_RETRY_DELAY_S * 2 ** (attempt - 1)
                # Many workers that were refused at once must not come back at once.
                self._sleep(max(delay_s, min(asked_s, timeout_s)) + random.uniform(0, delay_s))
        raise ImageError(f"{name}: {problem}; gave up after {attempts} attempts")

    def close(self) -> None:
        """Closes the connections."""
        self._pool.close()

    def _attempt(self, url: str, *, max_bytes: int, timeout_s: float) -> bytes:
        try:
            with within(timeout_s):
                return self._follow(url, max_bytes=max_bytes, timeouts=dict.fromkeys(TIMEOUTS, timeout_s))
        except httpcore.TimeoutException as err:
            raise _TryAgainError(f"no whole answer within {timeout_s:g} s") from err
        except (httpcore.NetworkError, httpcore.RemoteProtocolError) as err:
            if isinstance(err.__cause__, ssl.SSLCertVerificationError):
                raise ImageError(f"{shown(url)}: its certificate is not valid: {_line(err)}") from err
            raise _TryAgainError(f"the connection failed: {_line(err)}") from err
        except UnresolvedError as err:
            raise _TryAgainError(str(err)) from err

    def _follow(self, url: str, *, max_bytes: int, timeouts: dict[str, float]) -> bytes:
        target, name = httpx.URL(url), shown(url)
        for _ in range(MAX_REDIRECTS + 1):
            if target.scheme not in ("http", "https") or not target.host:
                raise ImageError(f"{name}: leads to {shown(str(target))}; expected http(s)")
            with self._pool.stream(
                "GET", _core(target), headers=_headers(target), extensions={"timeout": timeouts}
            ) as response:
                headers = {key.lower(): value for key, value in response.headers}
                location = headers.get(b"location")
                if 300 <= response.status < 400 and location is not None:
                    _read(response.iter_stream(), DRAINED_BYTES)
                    target = target.join(location.decode("utf-8", "replace"))
                    continue
                if not 200 <= response.status < 300:
                    _read(response.iter_stream(), DRAINED_BYTES)
                    if response.status in RETRIED_STATUS:
                        asked_s = _retry_after_s(headers.get(b"retry-after", b"").decode("latin-1"))
                        raise _TryAgainError(f"the server answers {response.status}", asked_s)
                    raise ImageError(f"{name}: the server answers {response.status}; expected 200")
                length = headers.get(b"content-length", b"")  # refused before a byte of it is paid for
                data = None
                if not (length.isdigit() and int(length) > max_bytes):
                    data = _read(response.iter_stream(), max_bytes)
                if data is not None:
                    data = _decoded(data, headers.get(b"content-encoding", b""), max_bytes, name=name)
                if data is None:
                    raise ImageError(f"{name}: over the limit of {max_bytes} bytes")
                return data
        raise ImageError(f"{name}: more than {MAX_REDIRECTS} redirects")


def fetch(
    url: str, *, max_bytes: int, timeout_s: float, attempts: int, allow_private_addresses: bool = False
) -> bytes:
    """As Fetcher.fetch, over the connections that this process keeps. Raises ImageError."""
    fetcher = _shared(os.getpid(), allow_private_addresses)
    return fetcher.fetch(url, max_bytes=max_bytes, timeout_s=timeout_s, attempts=attempts)


class _TryAgainError(Exception):
    """What may pass. asked_s: how long the server asks to be left alone."""

    def __init__(self, problem: str, asked_s: float = 0.0) -> None:
        super().__init__(problem)
        self.asked_s = asked_s


def _core(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


def _headers(url: httpx.URL) -> list[tuple[str, str]]:
    headers = [
        ("Host", url.netloc.decode("ascii")),
        ("User-Agent", f"cogbatch/{__version__}"),
        ("Accept", "*/*"),
        ("Accept-Encoding", "identity"),
    ]
    if url.username or url.password:
        pair = f"{url.username}:{url.password}".encode()
        headers.append(("Authorization", f"Basic {base64.b64encode(pair).decode()}"))
    return headers


def _read(chunks: Iterable[bytes], max_bytes: int) -> bytes | None:
    """The body; None when it is longer than max_bytes, whatever the server says of its length."""
    data = bytearray()
    for chunk in chunks:
        data += chunk
        if len(data) > max_bytes:
            return None
    return bytes(data)


def _decoded(data: bytes, encoding: bytes, max_bytes: int, *, name: str) -> bytes | None:
    """The content of a body, None over the limit. Some servers compress though they were asked not to."""
    kind = encoding.strip().lower()
    if kind in (b"", b"identity") or not data:
        return data
    if kind not in (b"gzip", b"x-gzip", b"deflate"):
        raise ImageError(f"{name}: content encoding {kind.decode('latin-1')!r} that was not asked for")
    bare = kind == b"deflate" and int.from_bytes(data[:2], "big") % 31 != 0  # without the header of zlib
    unpacker = zlib.decompressobj(wbits=-15 if bare else 47)  # 47: gzip or zlib, it sees
    try:
        content = unpacker.decompress(data, max_bytes + 1)
    except zlib.error as err:
        raise ImageError(f"{name}: said to be {kind.decode()} and is not: {err}") from err
    if len(content) > max_bytes:
        return None
    if not unpacker.eof:
        raise _TryAgainError(f"its {kind.decode()} body is cut off")
    return content


def _retry_after_s(value: str) -> float:
    """Seconds that a Retry-After header asks for, as a number or a date; 0 where it says nothing usable."""
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, (email.utils.parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return 0.0


@functools.cache
def _shared(pid: int, allow_private_addresses: bool) -> Fetcher:
    """One for each process, a fork being another, and for each right: a connection outlives its check."""
    del pid
    fetcher = Fetcher(allow_private_addresses=allow_private_addresses)
    atexit.register(fetcher.close)
    return fetcher


@functools.cache
def _tls_context() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)  # loading the certificates takes longer than most images


def _line(err: BaseException) -> str:
    reason = getattr(err, "strerror", None) or str(err)
    return " ".join(reason.split()) or type(err).__name__
