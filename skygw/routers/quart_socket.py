"""Quart's end of a WebSocket without its second task and its queue: a handler receives from the socket itself."""

from typing import Any

import trio
from quart.wrappers import Response
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIWebsocketConnection
from quart_trio.wrappers import TrioWebsocket
from werkzeug.wrappers import Response as WerkzeugResponse

NORMAL, INTERNAL_ERROR = 1000, 1011


class DirectWebsocket(TrioWebsocket):
    """Quart-Trio's, without a checkpoint and a look at the handshake for each message: the socket has checkpoints."""

    async def receive(self) -> str | bytes:
        """The next message; an empty binary one too. Cancelled when the peer has left."""
        message: str | bytes = await self._receive()
        return message

    async def send(self, data: str | bytes) -> None:
        """Hands a message over. Does nothing on a link that has ended."""
        await self._send(data)


class DirectWebsocketConnection(TrioASGIWebsocketConnection):
    """Quart-Trio's, in one task. What differs for a handler:

    - It is cancelled when it next receives after the peer has left, and not in whatever else it does.
    - Its uncaught error closes with 1011; upstream says 1000.
    - It has to accept before it receives or sends. Quart's signals for single messages are not sent.
    """

    def __init__(self, app: QuartTrio, scope: Any) -> None:
        # Not upstream's: it would open a channel that nobody uses.
        self.app = app
        self.scope = scope
        self._accepted = False
        self._closed = False

    async def __call__(self, receive: Any, send: Any) -> None:
        await receive()  # `websocket.connect`
        with trio.CancelScope() as handler:
            self.receive_channel: Any = _Messages(receive, handler)
            await self.handle_websocket(None, self._create_websocket_from_scope(send), send)

    async def handle_websocket(self, _nursery: object, websocket: Any, send: Any) -> None:  # type: ignore[override]
        """Runs the handler, then says what is left to be said."""
        response = await self.app.handle_websocket(websocket)
        if not self._accepted:
            if response is not None:
                await _deny(response, send)
        elif not self._closed:
            failed = response is not None and response.status_code >= 500
            await self.close_connection(send, INTERNAL_ERROR if failed else NORMAL, "")

    async def send_data(self, send: Any, data: str | bytes) -> None:
        key = "text" if isinstance(data, str) else "bytes"
        await send({"type": "websocket.send", key: data})


class _Messages:
    """Stands where upstream keeps the receiving end of its channel."""

    def __init__(self, receive: Any, handler: trio.CancelScope) -> None:
        self._receive = receive
        self._handler = handler

    async def receive(self) -> str | bytes:
        event = await self._receive()
        if event["type"] == "websocket.disconnect":
            self._handler.cancel()
            await trio.sleep_forever()
        text: str | None = event["text"]
        message: str | bytes = event["bytes"] if text is None else text
        return message


async def _deny(response: Response | WerkzeugResponse, send: Any) -> None:
    headers = [(key.lower().encode(), value.encode()) for key, value in response.headers.items()]
    await send({"type": "websocket.http.response.start", "status": response.status_code, "headers": headers})
    # The framework's own refusals (no such path, say) are Werkzeug's.
    body = await response.get_data(as_text=False) if isinstance(response, Response) else response.get_data()
    await send({"type": "websocket.http.response.body", "body": body, "more_body": False})


def use_direct_sockets(app: QuartTrio) -> None:
    """From now on the app's WebSockets are of these classes."""
    app.asgi_websocket_class = DirectWebsocketConnection
    app.websocket_class = DirectWebsocket
