"""A direct request with everything left out that can be: what no gateway on the same parts can go below.

A caller's request is handed to the one node, whose answer is handed back; nothing is checked, and nobody's leaving is
noticed. The argument says on which parts:

- `trio`: sockets as our transport has them, a task for each; requests and frames are cut by their layout;
- `h11`: the same, and HTTP is parsed and written by h11;
- `serving`: our listener with its HTTP and its WebSockets, and a plain ASGI app.

`GET` is answered with a greeting, so that HTTP can be measured alone.
"""

import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import h11
import trio

from skygw.protocol.schemas import SUBPROTOCOL
from skygw.serving.config import ListenerConfig
from skygw.serving.listener import Listener
from skygw.serving.metrics import NoMetrics
from skygw.websocket.transport import ConnectionLost, Patience, PlainTransport, tune
from tests.benchmarks.servers.listening import listening, say_ready
from tests.benchmarks.servers.trio_echo import KEY, switching, unmasked
from tests.benchmarks.wire import TEXT

GREETING = b"hello"
WELCOME = '{"kind":"welcome"}'
ID, ID_CHARS = '"id":"', 36
DATA = '"data":"'


class Relay:
    """The one node, and the calls that it has not answered."""

    def __init__(self) -> None:
        self._tell: Callable[[str], Awaitable[None]] | None = None
        self._calls: dict[str, tuple[trio.Event, list[str]]] = {}

    async def hear(self, text: str, tell: Callable[[str], Awaitable[None]]) -> None:
        """What the node says: its `hello`, then answers, each in one frame."""
        if self._tell is not tell:
            self._tell = tell
            await tell(WELCOME)
            return
        call_id = text.partition(ID)[2][:ID_CHARS]
        answered, answer = self._calls.pop(call_id)
        answer.append(text.partition(DATA)[2][:-2])
        answered.set()

    async def ask(self) -> bytes:
        assert self._tell is not None, "no node"
        call_id = str(uuid4())
        answered, answer = self._calls[call_id] = trio.Event(), []
        await self._tell(f'{{"kind":"direct_request",{ID}{call_id}"}}')
        await answered.wait()
        return answer[0].encode()


# On Trio alone.


async def serve(
    relay: Relay, sock: socket.socket, call: Callable[[Relay, PlainTransport, bytes], Awaitable[None]]
) -> None:
    transport = PlainTransport(sock, Patience())
    try:
        first = await transport.receive()
        if KEY.search(first):
            await as_node(relay, transport, first)
        elif first:
            await call(relay, transport, first)
    except ConnectionLost:
        pass
    finally:
        transport.abort()


async def as_node(relay: Relay, transport: PlainTransport, head: bytes) -> None:
    async def tell(text: str) -> None:
        size = len(text)
        length = bytes((size,)) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
        await transport.send(bytes((0x80 | TEXT,)) + length + text.encode())

    await transport.send(switching(head, SUBPROTOCOL))
    unread = head.partition(b"\r\n\r\n")[2]
    while data := await transport.receive():
        unread += data
        while len(unread) >= 8:
            size, start = unread[1] & 0x7F, 2
            if size == 126:
                size, start = int.from_bytes(unread[2:4], "big"), 4
            end = start + 4 + size
            if len(unread) < end:
                break
            await relay.hear(unmasked(unread[start + 4 : end], unread[start : start + 4]).decode(), tell)
            unread = unread[end:]


async def call_by_layout(relay: Relay, transport: PlainTransport, request: bytes) -> None:
    """Every request comes in one segment, which is all that is looked at."""
    while request:
        body = GREETING if request.startswith(b"GET") else await relay.ask()
        await transport.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        request = await transport.receive()


async def call_by_h11(relay: Relay, transport: PlainTransport, data: bytes) -> None:
    http = h11.Connection(h11.SERVER)
    method = b""
    while data:
        http.receive_data(data)
        while (event := http.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.Request):
                method = event.method
            elif isinstance(event, h11.EndOfMessage):
                body = GREETING if method == b"GET" else await relay.ask()
                head = h11.Response(status_code=200, headers=[(b"content-length", b"%d" % len(body))])
                answer = [http.send(head), http.send(h11.Data(data=body)), http.send(h11.EndOfMessage())]
                await transport.send(b"".join(answer))
                http.start_next_cycle()
        data = await transport.receive()


async def serve_on_trio(call: Callable[[Relay, PlainTransport, bytes], Awaitable[None]]) -> None:
    listener = listening()
    listener.setblocking(False)
    say_ready(listener.getsockname()[1])
    relay = Relay()
    async with trio.open_nursery() as nursery:
        while True:
            await trio.lowlevel.wait_readable(listener)
            sock, _ = listener.accept()
            sock.setblocking(False)
            tune(sock)
            nursery.start_soon(serve, relay, sock, call)


# On our serving.


def make_app(relay: Relay) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def tell(text: str) -> None:
            await send({"type": "websocket.send", "text": text})

        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
            while (message := await receive())["type"] == "websocket.receive":
                await relay.hear(message["text"], tell)
        elif scope["type"] == "http":
            while (await receive()).get("more_body", False):
                pass
            body = GREETING if scope["method"] == "GET" else await relay.ask()
            headers = [(b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    return app


async def serve_on_ours() -> None:
    config = ListenerConfig(name="node", host="127.0.0.1", port=0, max_connections_per_address=None)
    listener = Listener.bind(config, metrics=NoMetrics())
    say_ready(listener.address[1])
    await listener.run(make_app(Relay()))


PARTS: dict[str, Callable[[], Awaitable[None]]] = {
    "trio": lambda: serve_on_trio(call_by_layout),
    "h11": lambda: serve_on_trio(call_by_h11),
    "serving": serve_on_ours,
}


async def main(parts: str) -> None:
    await PARTS[parts]()


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
