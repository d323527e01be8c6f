"""A stream socket on the loopback, played by a script: for whatever has a whole program around the client."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

from skygw.protocol.subscriber_frames import SUBSCRIBER_SUBPROTOCOL
from skygw.websocket import LinkClosed
from tests.fakes.stream_links import StreamDoor, StreamLink


class StreamServer:
    """`door` has the sockets. `refusals` are answered to the next handshakes instead: a status and a body."""

    def __init__(self) -> None:
        self.url = ""
        self.door = StreamDoor()
        self.refusals: list[tuple[int, bytes]] = []
        self.asked: list[tuple[str, str]] = []
        """Path and Authorization of each handshake."""

    async def handle(self, request: WebSocketRequest) -> None:
        authorization = dict(request.headers).get(b"authorization", b"").decode()
        self.asked.append((request.path, authorization))
        if self.refusals:
            status, body = self.refusals.pop(0)
            await request.reject(status, extra_headers=[(b"Content-Length", b"%d" % len(body))], body=body)
            return
        assert request.proposed_subprotocols == (SUBSCRIBER_SUBPROTOCOL,)
        connection = await request.accept(subprotocol=SUBSCRIBER_SUBPROTOCOL)
        async with self.door.connect(authorization) as link, trio.open_nursery() as nursery:
            nursery.start_soon(_inwards, connection, link, nursery.cancel_scope)
            nursery.start_soon(_outwards, connection, link, nursery.cancel_scope)


async def _inwards(connection: WebSocketConnection, link: StreamLink, both: trio.CancelScope) -> None:
    try:
        while True:
            await link.send([await connection.get_message()])
    except (ConnectionClosed, LinkClosed):
        both.cancel()


async def _outwards(connection: WebSocketConnection, link: StreamLink, both: trio.CancelScope) -> None:
    try:
        while True:
            await connection.send_message(await link.receive_one())
    except LinkClosed as closed:
        with trio.move_on_after(1, shield=True):
            await connection.aclose(closed.code or 1011, closed.reason)
    except ConnectionClosed:
        pass
    both.cancel()


@asynccontextmanager
async def stream_server() -> AsyncIterator[StreamServer]:
    """Listens on a free port until the block is left; `url` is the base URL of an internal listener."""
    made = StreamServer()
    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            partial(serve_websocket, made.handle, "127.0.0.1", 0, None, disconnect_timeout=0.2)
        )
        made.url = f"http://127.0.0.1:{server.port}"
        yield made
        nursery.cancel_scope.cancel()
