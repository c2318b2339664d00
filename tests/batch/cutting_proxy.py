"""A proxy before a head that cuts the streams of logs which pass through it: a network at its worst."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class CuttingProxy:
    """cuts: how many streams are cut, each after so many bytes towards the client; then: called after all."""

    target: tuple[str, int]
    cuts: int
    after_bytes: int
    then: Callable[[], object]
    address: str = ""
    _taken: int = 0
    _made: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def serve(self, listener: socket.socket) -> None:
        """Accepts until the listener is closed."""
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        with client, socket.create_connection(self.target) as server:
            request = client.recv(65_536)
            server.sendall(request)
            left = self.after_bytes if b"/logs/tail" in request and self._cuts_this() else None
            threading.Thread(target=_copy, args=(client, server), daemon=True).start()
            with suppress(OSError):
                while data := server.recv(256):
                    client.sendall(data if left is None else data[:left])
                    if left is not None and (left := left - len(data)) <= 0:
                        self._was_cut()
                        return

    def _cuts_this(self) -> bool:
        with self._lock:
            self._taken += 1
            return self._taken <= self.cuts

    def _was_cut(self) -> None:
        with self._lock:
            self._made += 1
            if self._made == self.cuts:
                self.then()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)


@contextmanager
def cutting_proxy(
    address: str, *, cuts: int, after_bytes: int, then: Callable[[], object]
) -> Iterator[CuttingProxy]:
    """A proxy to the head at that address, on loopback; gone when the block ends."""
    url = urlsplit(address)
    assert url.hostname is not None
    assert url.port is not None
    proxy = CuttingProxy((url.hostname, url.port), cuts, after_bytes, then)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy.address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=proxy.serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
