"""An HTTP server that answers with prepared bytes, whole or broken, and keeps what it was asked."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio


class CannedHttp:
    """Each request takes the next of `answers` and ends the connection."""

    def __init__(self) -> None:
        self.base_url = ""
        self.answers: list[bytes] = []
        self.heads: list[str] = []
        self.bodies: list[Any] = []

    def answer(self, status: int, body: bytes | dict[str, Any], **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"HTTP/1.1 {status} X", "Connection: close"]
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        given.setdefault("Content-Length", str(len(content)))
        lines += [f"{name}: {value}" for name, value in given.items()]
        self.answers.append("\r\n".join(lines).encode() + b"\r\n\r\n" + content)

    async def serve(self, stream: trio.SocketStream) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            received += await stream.receive_some()
        head, _, body = received.partition(b"\r\n\r\n")
        lines = head.decode().lower().split("\r\n")
        length = next((int(line.partition(":")[2]) for line in lines if line.startswith("content-length:")), 0)
        while len(body) < length:
            body += await stream.receive_some()
        self.heads.append(head.decode())
        self.bodies.append(json.loads(body) if body else None)
        await stream.send_all(self.answers.pop(0))
        await stream.send_eof()


@asynccontextmanager
async def canned_http() -> AsyncIterator[CannedHttp]:
    """Listens on a free port of the loopback until the block is left."""
    server = CannedHttp()
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, server.serve, 0, host="127.0.0.1"))
        server.base_url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        yield server
        nursery.cancel_scope.cancel()
