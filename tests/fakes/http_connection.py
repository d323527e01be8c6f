"""One HTTP/1.1 connection kept alive, as little as a load generator or a crowd of callers needs, and no more.

Pools and parsers of real clients cost more than the gateway does, and would be what is measured.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import trio

RECEIVE_BYTES = 64 * 1024


class BrokenOff(Exception):
    """The connection ended before the answer did. `status` is set if its head had come."""

    def __init__(self, status: int | None) -> None:
        super().__init__(f"the answer with status {status} was broken off")
        self.status = status


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A complete answer. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class HttpConnection:
    """Sends one request at a time and reads its answer, by `Content-Length` or in chunks."""

    def __init__(self, stream: trio.SocketStream, *, host: str, token: str | None) -> None:
        self._stream = stream
        self._unread = bytearray()
        self._common = f"host: {host}\r\n" + (f"authorization: Bearer {token}\r\n" if token else "")

    async def request(self, method: str, path: str, body: bytes = b"") -> HttpAnswer:
        """Raises `BrokenOff`. Cancelled, the connection is of no more use."""
        head = f"{method} {path} HTTP/1.1\r\n{self._common}content-length: {len(body)}\r\n\r\n"
        status: int | None = None
        try:
            await self._stream.send_all(head.encode() + body)
            status, headers = await self._head()
            if "chunked" in headers.get("transfer-encoding", ""):
                return HttpAnswer(status, headers, await self._chunks())
            return HttpAnswer(status, headers, await self._exactly(int(headers.get("content-length", "0"))))
        except (trio.BrokenResourceError, EOFError):
            raise BrokenOff(status) from None

    async def post(self, path: str, body: Mapping[str, object]) -> HttpAnswer:
        return await self.request("POST", path, json.dumps(body).encode())

    async def _head(self) -> tuple[int, dict[str, str]]:
        status_line, *lines = (await self._until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.split(":", 1) for line in lines)
        return int(status_line.split(" ", 2)[1]), {name.strip().lower(): value.strip() for name, value in pairs}

    async def _chunks(self) -> bytes:
        body = bytearray()
        while size := int(await self._until(b"\r\n"), 16):
            body += await self._exactly(size)
            await self._exactly(2)
        await self._until(b"\r\n")
        return bytes(body)

    async def _until(self, mark: bytes) -> bytes:
        while (at := self._unread.find(mark)) < 0:
            await self._more()
        found = bytes(self._unread[:at])
        del self._unread[: at + len(mark)]
        return found

    async def _exactly(self, size: int) -> bytes:
        while len(self._unread) < size:
            await self._more()
        found = bytes(self._unread[:size])
        del self._unread[:size]
        return found

    async def _more(self) -> None:
        data = await self._stream.receive_some(RECEIVE_BYTES)
        if not data:
            raise EOFError
        self._unread += data


@asynccontextmanager
async def http_connection(url: str, *, token: str | None = None) -> AsyncIterator[HttpConnection]:
    """Connects to the host of `url`, without TLS; drops the connection when left."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    stream = await trio.open_tcp_stream(parts.hostname, parts.port or 80)
    try:
        yield HttpConnection(stream, host=parts.netloc, token=token)
    finally:
        await trio.aclose_forcefully(stream)
