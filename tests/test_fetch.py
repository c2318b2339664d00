"""Fetching over a real server on loopback, reached by names whose addresses are made up."""

from __future__ import annotations

import base64
import contextlib
import gzip
import socket
import threading
import time
import traceback
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpcore
import pytest

from cogbatch.errors import ImageError
from cogbatch.fetch import Fetcher
from cogbatch.images import ImageLimits, load_image
from cogbatch.network import INTERNET, Network, is_public

PUBLIC = {
    "a.example": ["93.184.216.34"],
    "b.example": ["93.184.216.35"],
    "dead.example": ["93.184.216.99", "93.184.216.34"],
    "inner.example": ["10.0.0.7"],
    "both.example": ["93.184.216.34", "127.0.0.1"],
}
Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers as the server's table says; keeps connections open."""

    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append((self.headers["host"], self.path))
        self.server.headers.append(dict(self.headers))
        with contextlib.suppress(ConnectionError):
            self.server.answers[path](self)

    def reply(self, status: int = 200, body: bytes = b"", **headers: str) -> None:
        """A whole answer; `_` in header names is `-`."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Handlers by path, and what was asked."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.connections = 0

    def handle_error(self, *_: object) -> None:
        pass  # a client that goes away in the middle is what is tested

    @property
    def calls(self) -> Counter[str]:
        return Counter(path for _, path in self.asked)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def network(server: Server) -> Network:
    """Every made-up address but one leads to the server; others to themselves."""

    def resolve(host: str, port: int) -> list[str]:
        return PUBLIC.get(host) or INTERNET.resolve(host, port)

    def connect(address: str, port: int, timeout_s: float) -> httpcore.NetworkStream:
        if address == "93.184.216.99":
            raise httpcore.ConnectError("nobody there")
        if address.startswith("93."):
            address, port = "127.0.0.1", server.server_port
        return INTERNET.connect(address, port, timeout_s)

    return Network(resolve, connect)


class Get:
    """Fetches with small limits, and notes how long it was told to wait."""

    def __init__(self, network: Network) -> None:
        self.waits: list[float] = []
        self.fetcher = Fetcher(network=network, sleep=self.waits.append)

    def __call__(self, url: str, *, max_bytes: int = 5000, timeout_s: float = 20, attempts: int = 3) -> bytes:
        return self.fetcher.fetch(url, max_bytes=max_bytes, timeout_s=timeout_s, attempts=attempts)


@pytest.fixture
def get(network: Network) -> Iterator[Get]:
    get = Get(network)
    yield get
    get.fetcher.close()


def redirect(to: str) -> Answer:
    return lambda handler: handler.reply(302, b"moved", Location=to)


def drip(handler: Handler) -> None:
    """A byte at a time, for ever: no single read ever meets a time-out."""
    while True:
        handler.wfile.write(b"x")
        time.sleep(0.01)


def test_many_fetches_at_once_reuse_connections(server: Server, get: Get) -> None:
    server.answers["/x"] = lambda handler: handler.reply(body=b"data")
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(get, ["http://a.example/x"] * 100)) == {b"data"}
    assert server.calls["/x"] == 100
    assert server.connections <= 4


def test_answers_that_nobody_wants_leave_their_connection_usable(server: Server, get: Get) -> None:
    server.answers["/x"] = lambda handler: handler.reply(body=b"data")
    server.answers["/gone"] = lambda handler: handler.reply(404, b"no" * 9999)
    server.answers["/here"] = redirect("/x")
    with pytest.raises(ImageError):
        get("http://a.example/gone")
    assert get("http://a.example/here") == b"data"
    assert server.connections == 1


def test_only_what_may_pass_is_tried_again(server: Server, get: Get) -> None:
    server.answers["/404"] = lambda handler: handler.reply(404)
    with pytest.raises(ImageError, match=r"http://a.example/404'.*answers 404; expected 200"):
        get("http://a.example/404")
    assert server.calls["/404"] == 1
    for status in (500, 503, 429, 408):
        path = f"/{status}"
        server.answers[path] = lambda handler, path=path, status=status: handler.reply(
            status if server.calls[path] < 3 else 200, b"late"
        )
        assert get(f"http://a.example{path}") == b"late"
        assert server.calls[path] == 3
    server.answers["/down"] = lambda handler: handler.reply(502)
    with pytest.raises(ImageError, match="answers 502; gave up after 2 attempts"):
        get("http://a.example/down", attempts=2)


def test_waits_grow_at_random_and_keep_to_what_the_server_asks_within_the_limit(
    server: Server, get: Get
) -> None:
    server.answers["/down"] = lambda handler: handler.reply(500)
    with pytest.raises(ImageError):
        get("http://a.example/down", attempts=4)
    for wait_s, base_s in zip(get.waits, (0.5, 1, 2), strict=True):
        assert base_s < wait_s <= 2 * base_s
    cases = {"7": 7, "9999": 20, "nonsense": 0.5, formatdate(time.time() + 3600, usegmt=True): 20}
    for value, expected_s in cases.items():
        get.waits.clear()
        server.answers["/busy"] = lambda handler, value=value: handler.reply(429, Retry_After=value)
        with pytest.raises(ImageError, match="answers 429"):
            get("http://a.example/busy", attempts=2)
        assert expected_s <= get.waits[0] <= expected_s + 0.5


def test_a_server_that_drips_meets_the_deadline_in_headers_and_in_the_body(server: Server, get: Get) -> None:
    def body(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "4000")
        handler.end_headers()
        drip(handler)

    def header(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        drip(handler)

    server.answers |= {"/body": body, "/header": header, "/never": lambda _: time.sleep(0.6)}
    for path in server.answers:
        with pytest.raises(ImageError, match=r"no whole answer within 0\.2 s; gave up after 2 attempts"):
            get(f"http://a.example{path}", timeout_s=0.2, attempts=2)


def test_a_body_ends_at_the_limit_whatever_its_length_is_said_to_be(server: Server, get: Get) -> None:
    sent = []

    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        while True:
            sent.append(1)
            handler.wfile.write(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
            time.sleep(0.001)  # what the two kernels hold does not count

    def unsaid(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 6000)
        handler.close_connection = True

    def much(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6000\r\n\r\n")  # and no byte follows

    server.answers |= {"/endless": endless, "/unsaid": unsaid, "/much": much}
    for path in server.answers:
        with pytest.raises(ImageError, match="over the limit of 5000 bytes"):
            get(f"http://a.example{path}")
    assert len(sent) < 1000

    def exact(handler: Handler) -> None:
        handler.reply(body=b"x" * 5000)

    def more(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + b"x" * 6000)
        handler.close_connection = True

    def less(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nxx")
        handler.close_connection = True

    server.answers |= {"/exact": exact, "/more": more, "/less": less}
    assert get("http://a.example/exact") == b"x" * 5000
    assert get("http://a.example/more") == b"xxx"
    with pytest.raises(ImageError, match=r"the connection failed: .*; gave up after 3"):
        get("http://a.example/less")


def test_compressed_answers_are_decoded_within_the_limit(server: Server, get: Get) -> None:
    bare = zlib.compressobj(wbits=-15)
    for coding, packed in (
        *[("gzip", gzip.compress(b"data")), ("deflate", zlib.compress(b"data"))],
        ("deflate", bare.compress(b"data") + bare.flush()),
    ):
        server.answers["/x"] = lambda handler, body=packed, coding=coding: handler.reply(
            body=body, Content_Encoding=coding
        )
        assert get("http://a.example/x") == b"data"
    bomb = gzip.compress(b"0" * 2**26)
    server.answers["/x"] = lambda handler: handler.reply(body=bomb, Content_Encoding="gzip")
    tracemalloc.start()
    with pytest.raises(ImageError, match="over the limit of 100000"):
        get("http://a.example/x", max_bytes=100_000)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    server.answers["/x"] = lambda handler: handler.reply(body=b"no", Content_Encoding="gzip")
    with pytest.raises(ImageError, match="said to be gzip and is not"):
        get("http://a.example/x")
    cut = gzip.compress(b"data" * 999)[:-9]
    server.answers["/x"] = lambda handler: handler.reply(body=cut, Content_Encoding="gzip")
    with pytest.raises(ImageError, match="its gzip body is cut off; gave up after 3"):
        get("http://a.example/x")
    server.answers["/x"] = lambda handler: handler.reply(body=b"?", Content_Encoding="br")
    with pytest.raises(ImageError, match="'br' that was not asked for"):
        get("http://a.example/x")


@pytest.mark.parametrize("url", ["http://ann:s3cret/x y@h/x", "http://ann:s3cret#x@h/"])
def test_what_a_library_says_of_a_url_shows_nothing_of_a_password(get: Get, url: str) -> None:
    with pytest.raises(ImageError) as caught:
        get(url)
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value)).replace(url, "")
    with pytest.raises(ImageError, match="not a valid URL: Invalid port: 'x'"):
        get("http://h:x/")


PRIVATE = [
    *["127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254", "0.0.0.0", "100.64.0.1"],
    *["224.0.0.1", "240.0.0.1", "255.255.255.255", "168.63.129.16", "127.1", "2130706433", "0x7f000001"],
    *["[::1]", "[::]", "[fe80::1]", "[fd00::1]", "[fec0::1]", "[ff02::1]", "[::ffff:127.0.0.1]"],
    *["[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[::7f00:1]", "[64:ff9b:1::1]", "[2001::1]", "[100::1]"],
    *["192.0.0.8", "192.0.0.192", "192.88.99.1", "198.18.0.1", "203.0.113.9", "[3fff::1]", "[2001:db8::1]"],
    *["[::ffff:192.0.0.192]", "[2002:c000:c0::1]", "[64:ff9b::c000:c0]", "[5f00::1]"],
    *["inner.example", "both.example", "localhost"],
]


@pytest.mark.parametrize("host", PRIVATE)
def test_private_addresses_are_refused_directly_and_after_a_redirect(
    server: Server, get: Get, host: str
) -> None:
    with pytest.raises(ImageError, match="private address"):
        get(f"http://{host}:{server.server_port}/secret")
    assert server.connections == 0
    server.answers["/"] = redirect(f"http://{host}:{server.server_port}/secret")
    with pytest.raises(ImageError, match="private address"):
        get("http://a.example/")
    assert server.asked == [("a.example", "/")]


def test_public_addresses_are_public() -> None:
    for address in ("93.184.216.34", "8.8.8.8", "2606:2800:220:1::1", "::ffff:8.8.8.8", "64:ff9b::808:808"):
        assert is_public(address), address


def test_the_checked_address_is_the_one_connected_to(server: Server, network: Network) -> None:
    """DNS rebinding: the name has another address by the second time anybody asks."""
    answers = iter([["93.184.216.34"], ["127.0.0.1"], ["127.0.0.1"]])
    connected: list[str] = []

    def connect(address: str, port: int, timeout_s: float) -> httpcore.NetworkStream:
        connected.append(address)
        return network.connect(address, port, timeout_s)

    server.answers["/"] = lambda handler: handler.reply(body=b"data", Connection="close")
    get = Get(Network(lambda *_: next(answers), connect))
    assert get("http://rebind.example/") == b"data"
    assert connected == ["93.184.216.34"]
    with pytest.raises(ImageError, match=r"'rebind.example' has the private address 127\.0\.0\.1"):
        get("http://rebind.example/")
    assert connected == ["93.184.216.34"]
    get.fetcher.close()


def test_a_connection_made_with_permission_is_not_there_for_who_has_none(server: Server) -> None:
    url = f"http://127.0.0.1:{server.server_port}/x"
    server.answers["/x"] = lambda handler: handler.reply(body=b"GIF")
    with pytest.raises(ImageError, match="not an image"):  # it was fetched
        load_image(url, limits=ImageLimits(allow_private_addresses=True))
    with pytest.raises(ImageError, match="private address"):
        load_image(url)
    assert server.calls["/x"] == 1


def test_of_several_addresses_one_that_answers_is_enough(server: Server, get: Get) -> None:
    server.answers["/"] = lambda handler: handler.reply(body=b"data")
    assert get("http://dead.example/") == b"data"


def test_redirects_are_followed_to_http_only_and_not_for_ever(server: Server, get: Get) -> None:
    server.answers |= {
        "/": redirect("http://b.example/there?x=1"),
        "/there": lambda handler: handler.reply(body=b"there"),
        "/loop": redirect("/loop"),
        "/file": redirect("file:///etc/passwd"),
    }
    assert get("http://a.example/") == b"there"
    assert server.asked == [("a.example", "/"), ("b.example", "/there?x=1")]
    with pytest.raises(ImageError, match="more than 5 redirects"):
        get("http://a.example/loop")
    assert server.calls["/loop"] == 6
    with pytest.raises(ImageError, match=r"leads to 'file:/etc/passwd'; expected http\(s\)"):
        get("http://a.example/file")


def test_credentials_of_a_url_go_to_its_host_and_to_no_message(server: Server, get: Get) -> None:
    server.answers |= {
        "/x": lambda handler: handler.reply(404),
        "/same": redirect("/x"),
        "/other": redirect("http://b.example/x"),
    }
    pair = base64.b64encode(b"ann:s3cret").decode()
    for path, expected in (("/same", f"Basic {pair}"), ("/other", None)):
        with pytest.raises(ImageError, match=r"http://\*\*\*@a\.example.*token=\*\*\*") as caught:
            get(f"http://ann:s3cret@a.example{path}?token=t0ken")
        assert "s3cret" not in str(caught.value)
        assert "t0ken" not in str(caught.value)
        assert server.headers[-1].get("Authorization") == expected
        assert server.headers[-2]["Authorization"] == f"Basic {pair}"


def test_no_cookie_outlives_its_answer(server: Server, get: Get) -> None:
    server.answers["/x"] = lambda handler: handler.reply(body=b"x", Set_Cookie="a=b; Path=/")
    get("http://a.example/x")
    get("http://a.example/x")
    assert "Cookie" not in server.headers[1]


def test_an_unknown_name_is_final_and_a_silent_resolver_is_not(network: Network) -> None:
    def resolve(host: str, _: int) -> list[str]:
        raise socket.gaierror(socket.EAI_AGAIN if host == "later.example" else socket.EAI_NONAME, "no")

    get = Get(Network(resolve, network.connect))
    with pytest.raises(ImageError, match=r"host 'never\.example' is not known"):
        get("http://never.example/")
    assert get.waits == []
    with pytest.raises(ImageError, match="cannot be resolved now; gave up after 3 attempts"):
        get("http://later.example/")
    assert len(get.waits) == 2
    get.fetcher.close()


def test_what_is_no_http_is_an_error_of_one_line(server: Server, get: Get) -> None:
    def noise(handler: Handler) -> None:
        handler.wfile.write(b"SSH-2.0-OpenSSH\r\n")
        handler.close_connection = True

    server.answers["/"] = noise
    with pytest.raises(ImageError, match="gave up after 3") as caught:
        get("http://a.example/")
    assert "\n" not in str(caught.value)
    with pytest.raises(ImageError, match="gave up after 1"):
        get("https://a.example/", attempts=1)  # TLS to a server that has none
    for url in ("http://", "http://a.example:99999/", "http://[::1", "http://a.example\x00/"):
        with pytest.raises(ImageError):
            get(url)
