"""A listener under test, and peers that speak to it in raw bytes, well or badly."""

import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from skygw.serving import End, Listener, ListenerConfig, Refusal
from skygw.serving.asgi import App

PATIENCE_S = 20.0
"""The bound of every wait on a real socket here: reached only when something is broken."""


@dataclass
class CountingMetrics:
    """Keeps what the listener reports, and lets a test wait for it."""

    opened_count: int = 0
    closed_by: Counter[End] = field(default_factory=Counter)
    refused_by: Counter[Refusal] = field(default_factory=Counter)
    _changes: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)

    def opened(self, listener: str) -> None:
        self.opened_count += 1
        self._changes.unpark_all()

    def closed(self, listener: str, why: End) -> None:
        self.closed_by[why] += 1
        self._changes.unpark_all()

    def refused(self, listener: str, why: Refusal) -> None:
        self.refused_by[why] += 1
        self._changes.unpark_all()

    async def until_opened(self, count: int) -> None:
        with trio.fail_after(PATIENCE_S):
            while self.opened_count < count:
                await self._changes.park()

    async def until_closed(self, why: End, count: int = 1) -> None:
        with trio.fail_after(PATIENCE_S):
            while self.closed_by[why] < count:
                await self._changes.park()

    async def until_all_closed(self) -> None:
        with trio.fail_after(PATIENCE_S):
            while self.closed_by.total() < self.opened_count:
                await self._changes.park()


class Peer:
    """A client that sends exactly the bytes it is told to."""

    def __init__(self, stream: trio.abc.Stream, transport: trio.SocketStream) -> None:
        self.stream = stream
        self.transport = transport
        self._unread = b""

    async def send(self, data: bytes) -> None:
        with trio.fail_after(PATIENCE_S):
            await self.stream.send_all(data)

    async def read_until(self, mark: bytes) -> bytes:
        """Everything up to and with `mark`, or up to the end of the stream."""
        with trio.fail_after(PATIENCE_S):
            while mark not in self._unread:
                data = await self._receive()
                if not data:
                    break
                self._unread += data
        head, found, self._unread = self._unread.partition(mark)
        return head + found

    async def read_exactly(self, count: int) -> bytes:
        with trio.fail_after(PATIENCE_S):
            while len(self._unread) < count:
                data = await self._receive()
                if not data:
                    break
                self._unread += data
        data, self._unread = self._unread[:count], self._unread[count:]
        return data

    async def read_to_end(self) -> bytes:
        """All the rest until the other side closes or resets."""
        with trio.fail_after(PATIENCE_S):
            while data := await self._receive():
                self._unread += data
        rest, self._unread = self._unread, b""
        return rest

    async def _receive(self) -> bytes:
        try:
            return bytes(await self.stream.receive_some(65536))
        except trio.BrokenResourceError:
            return b""

    async def response(self) -> tuple[int, bytes]:
        """Status and body of one response with a Content-Length; 0 if the stream ended instead."""
        head = await self.read_until(b"\r\n\r\n")
        if not head:
            return 0, b""
        lines = head.split(b"\r\n")
        lengths = [int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length:")]
        return int(lines[0].split()[1]), await self.read_exactly(lengths[0] if lengths else 0)

    async def ask(self, path: str = "/", *, method: str = "GET", body: bytes = b"") -> tuple[int, bytes]:
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        await self.send(f"{method} {path} HTTP/1.1\r\nHost: here\r\n{length}\r\n".encode() + body)
        return await self.response()


@dataclass
class Served:
    """A running listener with what it has counted."""

    listener: Listener
    metrics: CountingMetrics
    nursery: trio.Nursery

    @asynccontextmanager
    async def peer(
        self, *, tls: ssl.SSLContext | None = None, receive_buffer: int | None = None, source: str | None = None
    ) -> AsyncIterator[Peer]:
        sock = trio.socket.socket()
        if source is not None:
            await sock.bind((source, 0))
        if receive_buffer is not None:
            sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer)
        try:
            await sock.connect(self.listener.address)
            transport = trio.SocketStream(sock)
            stream: trio.abc.Stream = transport
            if tls is not None:
                stream = trio.SSLStream(transport, tls, server_hostname="localhost", https_compatible=True)
            yield Peer(stream, transport)
        finally:
            sock.close()


@asynccontextmanager
async def serving(app: App, **settings: Any) -> AsyncIterator[Served]:
    """Run `app` on a free port; the listener is cancelled when the test is done with it."""
    metrics = CountingMetrics()
    config = ListenerConfig(**{"name": "node", "host": "127.0.0.1", "port": 0, "linger_s": 0.2, **settings})
    listener = Listener.bind(config, metrics=metrics)
    async with trio.open_nursery() as nursery:
        await nursery.start(listener.run, app)
        yield Served(listener, metrics, nursery)
        nursery.cancel_scope.cancel()
