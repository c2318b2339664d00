"""Connections to addresses that were checked, whose every operation ends at a deadline. For httpcore.

What asks for a connection gives a name; what is connected to is an address that the name had when it was
checked, so that a second DNS answer changes nothing.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import httpcore

GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")  # all that is routed of IPv6 (RFC 4291, 2.4)
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
CONNECT_S = 10.0  # for one address, so that the next one has its turn
# What ipaddress of older Pythons takes for global: some special-purpose addresses of IANA, of protocols and
# documentation (Oracle's cloud answers about itself at 192.0.0.192). And Azure's wire server, which answers a
# virtual machine about itself.
NOT_PUBLIC = tuple(
    ipaddress.ip_network(block)
    for block in ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "2001::/23", "3fff::/20")
)

# When the attempt of this thread ends, on the monotonic clock. httpcore's own time-outs are per operation: a
# server that drips would never meet one. Its streams read in the thread that asks.
_deadline: ContextVar[float] = ContextVar("deadline")


class RefusedError(Exception):
    """A host that is not connected to."""


class UnresolvedError(Exception):
    """A host whose name cannot be resolved now; it may be later."""


@dataclass(frozen=True)
class Network:
    """How names become addresses and addresses connections; tests give their own."""

    resolve: Callable[[str, int], list[str]]
    connect: Callable[[str, int, float], httpcore.NetworkStream]


@contextlib.contextmanager
def within(timeout_s: float) -> Iterator[None]:
    """All network operations of this thread inside the block end with httpcore's time-outs by then."""
    token = _deadline.set(time.monotonic() + timeout_s)
    try:
        yield
    finally:
        _deadline.reset(token)


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet: not private, loopback, link-local, multicast,
    reserved or a cloud's own, also where an IPv6 address only wraps such an IPv4 address."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in NAT64 else ip.ipv4_mapped or ip.sixtofour
        if inner is None:
            return ip.is_global and ip in GLOBAL_UNICAST and not _in_any(ip)
        ip = inner
    return ip.is_global and not ip.is_multicast and not ip.is_reserved and not _in_any(ip)


def _in_any(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return any(ip in block for block in NOT_PUBLIC)


class CheckedNetwork(httpcore.NetworkBackend):
    """Connects to addresses that were checked, and to nothing else."""

    def __init__(self, network: Network, *, allow_private: bool) -> None:
        self._network, self._allow_private = network, allow_private

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        del timeout, local_address, socket_options
        for address in (addresses := self._addresses(host, port)):
            try:
                timeout_s = min(_time_left_s(), CONNECT_S)
                return _TimedStream(self._network.connect(address, port, timeout_s))
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if address == addresses[-1]:
                    raise
        raise RefusedError(f"host {host!r} has no address")

    def _addresses(self, host: str, port: int) -> list[str]:
        try:
            addresses = self._network.resolve(host, port)
        except socket.gaierror as err:
            if err.errno == socket.EAI_AGAIN:
                raise UnresolvedError(f"the name of host {host!r} cannot be resolved now") from err
            raise RefusedError(f"host {host!r} is not known: {err.strerror}") from err
        for address in addresses:
            if not self._allow_private and not is_public(address):
                raise RefusedError(
                    f"host {host!r} has the private address {address}; refused unless"
                    " allow_private_addresses is true"
                )
        return addresses


class _TimedStream(httpcore.NetworkStream):
    """A connection whose every operation ends at the deadline of the attempt that uses it."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        del timeout
        return self._stream.read(max_bytes, timeout=_time_left_s())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        del timeout
        self._stream.write(buffer, timeout=_time_left_s())

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        del timeout
        return _TimedStream(self._stream.start_tls(ssl_context, server_hostname, timeout=_time_left_s()))

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _time_left_s() -> float:
    left_s = _deadline.get() - time.monotonic()
    if left_s <= 0:
        raise httpcore.ReadTimeout
    return left_s


def _resolve(host: str, port: int) -> list[str]:
    """Addresses of the host, IPv4 first: many containers have no IPv6 route."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    ordered = sorted(found, key=lambda entry: entry[0] != socket.AF_INET)
    return list(dict.fromkeys(str(entry[4][0]) for entry in ordered))


def _connect(address: str, port: int, timeout_s: float) -> httpcore.NetworkStream:
    return httpcore.SyncBackend().connect_tcp(address, port, timeout=timeout_s, socket_options=NO_DELAY)


NO_DELAY = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
INTERNET = Network(_resolve, _connect)
