"""A token issuer on a real loopback socket that publishes keys, answers introspection, counts and misbehaves.

For tests with a real clock only. It answers one request per connection and then closes it.
"""

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any
from urllib.parse import parse_qs

import trio

JWKS_PATH = "/jwks"
INTROSPECTION_PATH = "/introspect"

_MAX_REQUEST_BYTES = 64 * 1024


class Mood(Enum):
    """How the issuer answers from now on."""

    WELL = auto()
    SERVER_ERROR = auto()
    STALLED = auto()
    """Takes the request and says nothing until the mood changes."""
    REDIRECTING = auto()
    """Sends everybody to `redirect_to`."""
    HANGING_UP = auto()
    """Closes the connection instead of answering."""
    ENDLESS = auto()
    """Sends body bytes until the reader leaves."""
    COMPRESSED = auto()
    """Claims to have compressed its answer although plain bytes were asked for."""


@dataclass
class Request:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class FakeIssuer:
    """Set `jwks`, `introspected` and `mood` as the test needs; read `hits` and `requests`."""

    url: str
    jwks: bytes = b'{"keys": []}'
    introspected: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Token → what introspection answers beside `active: true`. Others are not active."""
    raw_introspection: bytes | None = None
    """Answered to every introspection instead, if set."""
    redirect_to: str = ""
    hits: Counter[str] = field(default_factory=Counter)
    requests: list[Request] = field(default_factory=list)
    _mood: Mood = Mood.WELL
    _news: trio.Condition = field(default_factory=trio.Condition)

    @property
    def jwks_url(self) -> str:
        return self.url + JWKS_PATH

    @property
    def introspection_url(self) -> str:
        return self.url + INTROSPECTION_PATH

    async def become(self, mood: Mood) -> None:
        """Change how requests are answered; stalled ones wake up and follow the new mood."""
        async with self._news:
            self._mood = mood
            self._news.notify_all()

    async def wait_for_hits(self, path: str, count: int) -> None:
        """Return once `path` was asked at least `count` times; put a deadline around it."""
        async with self._news:
            while self.hits[path] < count:
                await self._news.wait()

    def publish(self, *keys: dict[str, Any]) -> None:
        """Publish exactly these JWKs."""
        self.jwks = json.dumps({"keys": keys}).encode()

    async def serve_one(self, stream: trio.SocketStream) -> None:
        """Read one request and answer it as the mood has it."""
        try:
            request = await _read_request(stream)
            if request is None:
                return
            async with self._news:
                self.requests.append(request)
                self.hits[request.path] += 1
                self._news.notify_all()
                while self._mood is Mood.STALLED:
                    await self._news.wait()
            await self._answer(stream, request)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the client left, as some tests want it to

    async def _answer(self, stream: trio.SocketStream, request: Request) -> None:
        if self._mood is Mood.HANGING_UP:
            return
        if self._mood is Mood.SERVER_ERROR:
            await stream.send_all(_response(500, b"out of order"))
        elif self._mood is Mood.REDIRECTING:
            await stream.send_all(_response(302, b"", f"Location: {self.redirect_to}\r\n"))
        elif self._mood is Mood.ENDLESS:
            await stream.send_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
            while True:
                await stream.send_all(b" " * 16_384)
        elif self._mood is Mood.COMPRESSED:
            await stream.send_all(_response(200, self.jwks, "Content-Encoding: gzip\r\n"))
        elif request.path == JWKS_PATH and request.method == "GET":
            await stream.send_all(_response(200, self.jwks))
        elif request.path == INTROSPECTION_PATH and request.method == "POST":
            await stream.send_all(_response(200, self._introspect(request)))
        else:
            await stream.send_all(_response(404, b"not here"))

    def _introspect(self, request: Request) -> bytes:
        if self.raw_introspection is not None:
            return self.raw_introspection
        token = parse_qs(request.body.decode())["token"][0]
        if token not in self.introspected:
            return b'{"active": false}'
        return json.dumps({"active": True, **self.introspected[token]}).encode()


@asynccontextmanager
async def fake_issuer() -> AsyncIterator[FakeIssuer]:
    """An issuer on a free loopback port until the block is left."""
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        issuer = FakeIssuer(url=f"http://127.0.0.1:{port}")
        nursery.start_soon(trio.serve_listeners, issuer.serve_one, [listener])
        yield issuer
        nursery.cancel_scope.cancel()


async def _read_request(stream: trio.SocketStream) -> Request | None:
    received = bytearray()
    while b"\r\n\r\n" not in received:
        more = await stream.receive_some(4096)
        if not more or len(received) > _MAX_REQUEST_BYTES:
            return None
        received += more
    head, _, rest = bytes(received).partition(b"\r\n\r\n")
    request_line, *header_lines = head.decode("latin-1").split("\r\n")
    method, path, _version = request_line.split(" ")
    pairs = (line.partition(":") for line in header_lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    body = bytearray(rest)
    while len(body) < int(headers.get("content-length", "0")):
        more = await stream.receive_some(4096)
        if not more:
            return None
        body += more
    return Request(method=method, path=path, headers=headers, body=bytes(body))


def _response(status: int, body: bytes, extra: str = "") -> bytes:
    head = f"HTTP/1.1 {status} Whatever\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{extra}\r\n"
    return head.encode() + body
