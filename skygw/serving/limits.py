"""A bound on request bodies that holds for every framework behind it, chunked bodies included."""

from collections.abc import Callable

from skygw.serving.asgi import App, Message, Receive, Scope, Send
from skygw.serving.problem import refusal_body


class BodyLimit:
    """ASGI middleware: 413 for a body over `max_bytes`.

    A declared length is refused unread. A chunked body is refused at the byte that is too much: the app is
    then told that the client left, and what it still sends is dropped. `takes_large_body(method, path)`
    names the requests whose handlers bound their bodies themselves.
    """

    def __init__(self, app: App, *, max_bytes: int, takes_large_body: Callable[[str, str], bool]) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._takes_large_body = takes_large_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._takes_large_body(scope["method"], scope["path"]):
            await self._app(scope, receive, send)
        elif _declared_bytes(scope) > self._max_bytes:
            await self._refuse(send)
        else:
            body = _CountedBody(receive, send, max_bytes=self._max_bytes)
            await self._app(scope, body.receive, body.send)
            if body.is_too_large and not body.is_answered:
                await self._refuse(send)

    async def _refuse(self, send: Send) -> None:
        body = refusal_body(f"The body is larger than {self._max_bytes} bytes.")
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),  # the rest of the body is not read
        ]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})


class _CountedBody:
    def __init__(self, receive: Receive, send: Send, *, max_bytes: int) -> None:
        self._receive = receive
        self._send = send
        self._bytes_left = max_bytes
        self.is_too_large = False
        self.is_answered = False

    async def receive(self) -> Message:
        if self.is_too_large:
            return {"type": "http.disconnect"}
        message = await self._receive()
        if message["type"] == "http.request":
            self._bytes_left -= len(message.get("body", b""))
            if self._bytes_left < 0:
                self.is_too_large = True
                return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        if self.is_too_large and not self.is_answered:
            return
        self.is_answered = True
        await self._send(message)


def _declared_bytes(scope: Scope) -> int:
    """0 for a chunked body; the HTTP parser has already refused a length that is no number."""
    return next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)
