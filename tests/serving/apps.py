"""Pure ASGI apps with which the listener is tested."""

from typing import Any

import trio

from skygw.serving.asgi import Message, Receive, Scope, Send

UPGRADE = (
    b"GET /socket HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


async def answer(send: Send, body: bytes, status: int = 200) -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def read_body(receive: Receive) -> bytes | None:
    """The whole body; None if the client left before its end."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += bytes(message["body"])
        if not message["more_body"]:
            return body


class EchoApp:
    """Echoes bodies and WebSocket messages, and remembers what it was told."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.disconnects: list[Message] = []
        self.flooded = trio.Event()
        self.busy = trio.Event()
        self._calls = trio.lowlevel.ParkingLot()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        self.scopes.append(scope)
        self._calls.unpark_all()
        if scope["type"] == "websocket":
            await self._echo_messages(receive, send)
        elif scope["path"] == "/flood":
            await self._flood(send)
        elif scope["path"] == "/hang":
            self.busy.set()
            await trio.sleep_forever()
        elif scope["path"] == "/fail":
            raise RuntimeError("the app is broken")
        elif scope["path"] == "/cut":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
        else:
            body = await read_body(receive)
            if body is None:
                self.disconnects.append({"type": "http.disconnect"})
            else:
                await answer(send, body or b"hello")

    async def until_called(self, count: int) -> None:
        """Wait until so many requests and sockets have reached the app."""
        while len(self.scopes) < count:
            await self._calls.park()

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _flood(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        self.busy.set()
        while True:
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            if self.scopes and not self.scopes[-1]["extensions"]["skygw.connection"].is_open:
                self.flooded.set()
                return

    async def _flood_messages(self, send: Send) -> None:
        while self.scopes[-1]["extensions"]["skygw.connection"].is_open:
            await send({"type": "websocket.send", "bytes": b"x" * 65536})
        self.flooded.set()

    async def _echo_messages(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "websocket.connect":
                await send({"type": "websocket.accept"})
                self.busy.set()
            elif message.get("text") == "flood me":
                await self._flood_messages(send)
            elif message["type"] == "websocket.disconnect":
                self.disconnects.append(message)
                return
            else:
                echoed = {key: message[key] for key in ("bytes", "text")}
                await send({"type": "websocket.send", **echoed})


async def greets(scope: Any, receive: Any, send: Any) -> None:
    """Takes no lifespan, answers hello."""
    if scope["type"] == "lifespan":
        raise NotImplementedError("no lifespan here")
    await answer(send, b"hello")
