"""A WebSocket where Hypercorn builds its own: the handshake in HTTP, then ASGI messages straight from the socket.

The app's `receive` reads the socket in the app's own task, and its `send` writes it: there is no second task and no
queue between. What an app wants beyond ASGI (many messages at once, how far a write came) is the `websocket` of its
connection handle.
"""

import base64
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import unquote

import trio
from hypercorn.protocol.events import Body, EndBody, Response, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import STREAM_ID

from skygw.serving.asgi import App, Message, Scope
from skygw.serving.exchange import Exchanges
from skygw.serving.request_rules import RequestHead
from skygw.websocket import Code, LinkClosed, WebSocket

ACCEPT_SUFFIX: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3


class WebSocketStream:
    """One upgrade request and what becomes of it. `upgrade` makes the WebSocket, once 101 has been written."""

    def __init__(
        self,
        app: App,
        exchanges: Exchanges,
        *,
        scope: Scope,
        key: bytes,
        send: Callable[[StreamEvent], Awaitable[None]],
        upgrade: Callable[[], Awaitable[WebSocket]],
    ) -> None:
        self.closed = False
        """The exchange is over; Hypercorn's protocol looks at this."""
        self._app = app
        self._exchanges = exchanges
        self._scope = scope
        self._key = key
        self._send = send
        self._upgrade = upgrade
        self._socket: WebSocket | None = None
        self._denial: Message | None = None
        self._is_denied = False
        self._is_connected = False
        self._decided = trio.Event()
        self.is_accepting = False
        """The app has taken the upgrade, and 101 is being written: what comes now are frames."""

    async def start(self) -> None:
        """Calls the app, in the connection's nursery."""
        await self._exchanges.spawn_websocket(self._app, self._scope, self._receive, self._send_as_app)

    async def handle(self, event: StreamEvent) -> None:
        """Only the end comes this way: after 101 nothing passes through Hypercorn."""
        if isinstance(event, StreamClosed):
            self.closed = True
            self._decided.set()

    # --- the app's end

    async def _receive(self) -> Message:
        if not self._is_connected:
            self._is_connected = True
            await trio.lowlevel.checkpoint()
            return {"type": "websocket.connect"}
        await self._decided.wait()
        if self._socket is None:
            return {"type": "websocket.disconnect", "code": Code.ABNORMAL, "reason": ""}
        try:
            message = await self._socket.receive_one()
        except LinkClosed as closed:
            return {"type": "websocket.disconnect", "code": closed.code or Code.ABNORMAL, "reason": closed.reason}
        if isinstance(message, str):
            return {"type": "websocket.receive", "bytes": None, "text": message}
        return {"type": "websocket.receive", "bytes": message, "text": None}

    async def _send_as_app(self, message: Message | None) -> None:
        """`None`: the app has returned. On a link that has ended, sending does nothing, as ASGI apps expect; it is a
        checkpoint, so that an app which sends in a loop does not freeze the others.
        """
        if message is None:
            await self._finish()
            return
        match message["type"], self._socket:
            case "websocket.send", WebSocket() as socket:
                text = message.get("text")
                try:
                    await socket.send((bytes(message["bytes"]) if text is None else text,))
                except LinkClosed:
                    await trio.lowlevel.checkpoint()
            case "websocket.close", WebSocket() as socket:
                await self._say_goodbye(socket, int(message.get("code", Code.NORMAL)), message.get("reason") or "")
            case _ if self.closed:
                await trio.lowlevel.checkpoint()
            case "websocket.accept", None if self._denial is None:
                await self._accept(message.get("subprotocol"), message.get("headers", ()))
            case "websocket.close", None if self._denial is None:
                self._denial = {"status": 403, "headers": [(b"content-length", b"0")]}
                await self._deny({"more_body": False})
            case "websocket.http.response.start", None if self._denial is None:
                self._denial = message
            case "websocket.http.response.body", None if self._denial is not None:
                await self._deny(message)
            case kind, _:
                raise RuntimeError(f"an app may not send {kind} now")

    async def _accept(self, subprotocol: str | None, headers: Any) -> None:
        self.is_accepting = True
        accept = base64.b64encode(hashlib.sha1(self._key + ACCEPT_SUFFIX, usedforsecurity=False).digest())
        answer = [(b"upgrade", b"websocket"), (b"connection", b"upgrade"), (b"sec-websocket-accept", accept)]
        if subprotocol is not None:
            answer.append((b"sec-websocket-protocol", subprotocol.encode()))
        await self._send(Response(stream_id=STREAM_ID, status_code=101, headers=[*answer, *headers]))
        if not self.closed:
            self._socket = await self._upgrade()
            self._decided.set()

    async def _deny(self, message: Message) -> None:
        if self._denial is not None and not self._is_denied:
            self._is_denied = True
            headers = [(bytes(name).lower(), bytes(value)) for name, value in self._denial["headers"]]
            await self._send(Response(stream_id=STREAM_ID, status_code=int(self._denial["status"]), headers=headers))
        if body := bytes(message.get("body", b"")):
            await self._send(Body(stream_id=STREAM_ID, data=body))
        if not message.get("more_body", False):
            await self._send(EndBody(stream_id=STREAM_ID))
            await self._send(StreamClosed(stream_id=STREAM_ID))

    async def _finish(self) -> None:
        if self._socket is not None:
            # An app that wants to go says so; one that returns without a word has failed.
            await self._say_goodbye(self._socket, Code.INTERNAL_ERROR, "")
        elif not self.closed:
            if not self._is_denied:
                self._denial = {"status": 500, "headers": [(b"content-length", b"0")]}
            await self._deny({"more_body": False})
        if not self.closed:
            await self._send(StreamClosed(stream_id=STREAM_ID))

    async def _say_goodbye(self, socket: WebSocket, code: int, reason: str) -> None:
        try:
            await socket.close(code, reason)
        except LinkClosed:
            await trio.lowlevel.checkpoint()


def scope_of(
    head: RequestHead,
    *,
    is_tls: bool,
    peer: tuple[str, int],
    here: tuple[str, int],
    state: dict[str, Any],
) -> Scope:
    """The ASGI scope of an upgrade request (ASGI's WebSocket connection scope, 2.3)."""
    path, _, query = head.target.partition(b"?")
    return {
        "type": "websocket",
        "asgi": {"spec_version": "2.3", "version": "3.0"},
        "scheme": "wss" if is_tls else "ws",
        "http_version": head.version.decode(),
        "path": unquote(path.decode("ascii")),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": head.fields,
        "client": peer,
        "server": here,
        "state": dict(state),
        "subprotocols": _offered(head.fields),
        "extensions": {"websocket.http.response": {}},
    }


def _offered(headers: list[tuple[bytes, bytes]]) -> list[str]:
    """The subprotocols of all lines, in order; a name that is not ASCII is none (RFC 9110 §5.6.2)."""
    lines = [value for name, value in headers if name == b"sec-websocket-protocol" and value.isascii()]
    return [name for name in (offer.strip().decode() for line in lines for offer in line.split(b",")) if name]
