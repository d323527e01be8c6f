"""The suite's server names no subprotocol and our client insists on one: this adds it to the handshake."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import urlsplit

import trio

from skygw.protocol.schemas import SUBPROTOCOL

RECEIVE_BYTES = 64 * 1024
END_OF_HEAD = b"\r\n\r\n"


@asynccontextmanager
async def subprotocol_relay(url: str) -> AsyncIterator[str]:
    """Yields the address to connect to instead of `url`."""
    target = urlsplit(url)

    async def carry(client: trio.SocketStream) -> None:
        async with await trio.open_tcp_stream(target.hostname or "", target.port or 80) as server:
            try:
                await _carry(client, server)
            except* trio.BrokenResourceError:
                pass  # one end has reset its connection; the other one is closed on the way out

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, carry, 0, host="127.0.0.1"))
        yield f"ws://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def _carry(client: trio.SocketStream, server: trio.SocketStream) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_copy, client, server, b"")
        answer = bytearray()
        while END_OF_HEAD not in answer:
            data = await server.receive_some(RECEIVE_BYTES)
            if not data:
                raise trio.BrokenResourceError
            answer += data
        head, _, rest = bytes(answer).partition(END_OF_HEAD)
        head += b"\r\nSec-WebSocket-Protocol: " + SUBPROTOCOL.encode() + END_OF_HEAD
        await _copy(server, client, head + rest)


async def _copy(source: trio.SocketStream, sink: trio.SocketStream, first: bytes) -> None:
    await sink.send_all(first)
    while data := await source.receive_some(RECEIVE_BYTES):
        await sink.send_all(data)
    await sink.send_eof()
