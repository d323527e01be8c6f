"""A WebSocket client that costs next to nothing, so that the server is what is measured (RFC 6455, no extensions)."""

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import trio

from tests.benchmarks.wire import CLOSE, PING, PONG, message, upgrade

RECEIVE_BYTES = 64 * 1024


class WebSocketEnded(Exception):
    """The server refused, closed, or went away."""


class RawWebSocket:
    """Send with `send`, receive whole messages in order. Servers here send nothing fragmented."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._unread = bytearray()

    async def send(self, data: bytes) -> None:
        """Messages made by `message`, as many as there are in `data`."""
        await self._stream.send_all(data)

    async def receive(self) -> bytes:
        """The payload of the next message; pings on the way are answered. Raises `WebSocketEnded`."""
        while True:
            opcode, payload = await self._frame()
            if opcode == PING:
                await self.send(message(PONG, payload))
            elif opcode == CLOSE:
                raise WebSocketEnded(f"closed: {payload[2:].decode()}")
            elif opcode != PONG:
                return payload

    async def _frame(self) -> tuple[int, bytes]:
        first, second = await self._exactly(2)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", await self._exactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self._exactly(8))
        return first & 0x0F, await self._exactly(size)

    async def upgraded(self) -> None:
        """Waits for the answer to `wire.upgrade`. Raises `WebSocketEnded` unless the server switches protocols."""
        while (end := self._unread.find(b"\r\n\r\n")) < 0:
            await self._more()
        answer = self._unread[:end].decode()
        del self._unread[: end + 4]
        if not answer.startswith("HTTP/1.1 101"):
            raise WebSocketEnded(f"refused: {answer.splitlines()[0]}")

    async def _exactly(self, size: int) -> bytes:
        while len(self._unread) < size:
            await self._more()
        found = bytes(self._unread[:size])
        del self._unread[:size]
        return found

    async def _more(self) -> None:
        data = await self._stream.receive_some(RECEIVE_BYTES)
        if not data:
            raise WebSocketEnded("the connection ended")
        self._unread += data


@asynccontextmanager
async def raw_websocket(url: str, *, token: str | None = None) -> AsyncIterator[RawWebSocket]:
    """Connects to a `ws://` address, as a node if it has a token; drops the connection when left."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    stream = await trio.open_tcp_stream(parts.hostname, parts.port or 80)
    try:
        socket = RawWebSocket(stream)
        await socket.send(upgrade(parts.path, token=token))
        await socket.upgraded()
        yield socket
    finally:
        await trio.aclose_forcefully(stream)
