"""One HTTP request and its answer where Hypercorn has its own stream: ASGI in as few steps as a short request needs.

The head of an answer leaves with the first of its body. A peer's leaving is told to the app. What is not offered
(trailers, push, early hints) may not be sent.
"""

from collections.abc import Iterable
from enum import Enum, auto
from typing import Any, Protocol
from urllib.parse import unquote

from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import StreamClosed
from hypercorn.utils import suppress_body

from skygw.serving.asgi import App, Message
from skygw.serving.exchange import Exchanges
from skygw.serving.request_rules import RequestHead

CLOSE = (b"connection", b"close")


class Answers(Protocol):
    """The protocol below: it frames an answer and writes it."""

    def begin_answer(self, status: int, fields: Iterable[tuple[bytes, bytes]]) -> None: ...

    async def go_on(self, body: bytes, *, is_last: bool) -> None: ...

    async def break_off(self) -> None: ...


class _State(Enum):
    ASKED = auto()
    ANSWERING = auto()
    ANSWERED = auto()


class HttpStream:
    """One request. `start` it, then give it the body."""

    def __init__(self, app: App, exchanges: Exchanges, answers: Answers, head: RequestHead) -> None:
        self._app = app
        self._exchanges = exchanges
        self._answers = answers
        self._head = head
        self._method = head.method.decode("ascii")
        self._state = _State.ASKED
        self._has_body = True
        self.closed = False
        """The exchange is over. Hypercorn reads it."""

    async def start(self, *, scheme: str, peer: tuple[str, int], here: tuple[str, int], state: dict[str, Any]) -> None:
        """Start the app on the request (ASGI's HTTP connection scope, 2.1)."""
        head = self._head
        path, _, query = head.target.partition(b"?")
        scope = {
            "type": "http",
            "asgi": {"spec_version": "2.1", "version": "3.0"},
            # A higher minor version is taken as ours (RFC 9110 §2.5).
            "http_version": "1.0" if head.is_of_1_0 else "1.1",
            "method": self._method,
            "scheme": scheme,
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": head.fields_as_meant(),
            "client": peer,
            "server": here,
            "state": state.copy(),
            "extensions": {},
        }
        self._put = await self._exchanges.spawn_app(self._app, scope, self._send_as_app)

    async def take(self, body: bytes, *, is_last: bool) -> None:
        """More of the request's body, or the last of it. Waits for an app that is behind."""
        if not self.closed:
            await self._put({"type": "http.request", "body": body, "more_body": not is_last})

    async def handle(self, event: StreamEvent) -> None:
        """That the exchange is over, which is all that Hypercorn has to say to it."""
        if isinstance(event, StreamClosed) and not self.closed:
            self.closed = True
            if self._state is not _State.ANSWERED:
                self._exchanges.peer_has_left()
            await self._put({"type": "http.disconnect"})

    async def _send_as_app(self, message: Message | None) -> None:
        """`None`: the app has returned. An answer that it did not begin is a 500; one that it did not end is cut."""
        if message is None:
            if self.closed:
                return
            if self._state is _State.ASKED:
                self._begin(500, [(b"content-length", b"0"), CLOSE])
                await self._go_on(b"", is_last=True)
            else:
                await self._answers.break_off()
            return
        match message["type"], self._state:
            case "http.response.start", _State.ASKED:
                self._begin(int(message["status"]), message.get("headers", ()))
            case "http.response.body", _State.ANSWERING:
                await self._go_on(bytes(message.get("body", b"")), is_last=not message.get("more_body", False))
            case kind, _:
                raise RuntimeError(f"an app may not send {kind} now")

    def _begin(self, status: int, fields: Iterable[tuple[bytes, bytes]]) -> None:
        self._answers.begin_answer(status, fields)
        self._has_body = not suppress_body(self._method, status)
        self._state = _State.ANSWERING

    async def _go_on(self, body: bytes, *, is_last: bool) -> None:
        if is_last:
            self._state = _State.ANSWERED
        await self._answers.go_on(body if self._has_body else b"", is_last=is_last)
