"""The one place that reaches into Hypercorn: its HTTP/1.1 and WebSocket protocols, made safe to stand on.

The shell around them (`connection.py`) knows Hypercorn's events and worker context only; Hypercorn's own
shell (`TCPServer`) and its HTTP/2 are not used. What is changed in the protocols, and why:

- HTTP/2 by prior knowledge is refused; `Upgrade: h2c` is ignored, as RFC 9110 §7.8 allows, and answered in
  HTTP/1.1.
- An upgrade with a body, a frame sent before the upgrade was answered, and Content-Length beside
  Transfer-Encoding are refused (upstream issue #225 and its kin: each ended the whole server).
- permessage-deflate is never accepted: one small frame may unfold into a gigabyte.
- A WebSocket message is bounded in bytes, and exceeding the bound ends the link, which upstream does not.
- The peer's close code reaches the app (upstream #127).
- `100 Continue` is sent when the app asks for the body, so that a refusal can come before it.

Written against Hypercorn 0.18; a test fails when one of the classes used here changes.
"""

import re
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import lru_cache
from typing import Any, NoReturn, cast

import h11
from hypercorn.config import Config
from hypercorn.events import Event, RawData, Updated
from hypercorn.protocol.events import Body, Data, EndBody, Request, Response, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol, H11WSConnection
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState, TaskGroup
from wsproto.connection import ConnectionState as WebSocketState
from wsproto.events import CloseConnection, Message, Ping, TextMessage

from skygw.serving.asgi import App
from skygw.serving.config import ListenerConfig
from skygw.serving.ends import End, PeerFaultError
from skygw.serving.exchange import Exchanges
from skygw.serving.problem import refusal_body

WEBSOCKET_VERSION = b"13"
LONGEST_COMPLAINT = 120  # characters of what the parser says is wrong
_QUOTED = re.compile(r"[:,]? ?(?:bytearray\(|b['\"])")


@lru_cache(maxsize=8)
def hypercorn_config(config: ListenerConfig) -> Config:
    """Hypercorn's settings as far as its protocols read them; its loggers write nothing."""
    theirs = Config()
    theirs.accesslog = None
    theirs.errorlog = None
    theirs.include_server_header = False
    theirs.h11_max_incomplete_size = config.max_header_bytes
    theirs.keep_alive_max_requests = sys.maxsize  # nothing here wears out
    theirs.websocket_max_message_size = config.websocket_max_message_bytes
    return theirs


class Awaiting(Enum):
    """What the next bytes of the peer would be."""

    HEAD = auto()
    BODY = auto()
    FRAMES = auto()
    NOTHING = auto()
    """The peer has said all; the answer is being made."""


@dataclass(frozen=True)
class Ends:
    """Both ends of one connection, as the ASGI scope shows them."""

    peer: tuple[str, int]
    here: tuple[str, int]
    is_tls: bool


class Http11(H11Protocol):
    """One connection's HTTP/1.1, upgraded to a WebSocket at most once. Owned by `Connection`.

    Raises `PeerFaultError` out of `handle` when the peer broke a rule; a refusal has been sent where one
    could be.
    """

    def __init__(
        self,
        app: App,
        config: ListenerConfig,
        *,
        context: WorkerContext,
        exchanges: Exchanges,
        state: dict[str, Any],
        ends: Ends,
        send: Callable[[Event], Awaitable[None]],
    ) -> None:
        super().__init__(
            cast("AppWrapper", app),
            hypercorn_config(config),
            context,
            cast("TaskGroup", exchanges),
            ConnectionState(state),
            ends.is_tls,
            ends.peer,
            ends.here,
            send,
        )
        self._violation_code = config.websocket_violation_code
        # Upstream swaps `self.connection` on an upgrade; refusals still go through the HTTP one.
        self._http = cast("h11.Connection", self.connection)
        self._method = b""

    @property
    def awaiting(self) -> Awaiting:
        """What the reader waits for now, which decides how long it may take."""
        if isinstance(self.connection, H11WSConnection):
            return Awaiting.FRAMES
        if self._http.their_state is h11.IDLE:
            return Awaiting.HEAD
        if self._http.their_state is h11.SEND_BODY and not self._http.they_are_waiting_for_100_continue:
            return Awaiting.BODY
        return Awaiting.NOTHING

    @property
    def has_partial_head(self) -> bool:
        """A request head has begun to arrive."""
        return self._http.their_state is h11.IDLE and bool(self._http.trailing_data[0])

    @property
    def answer_is_cut(self) -> bool:
        """A response has begun and will not be completed: the connection must not end cleanly."""
        return self._http.our_state in (h11.SEND_BODY, h11.ERROR)

    async def stream_send(self, event: StreamEvent) -> None:
        """While draining, say that this answer is the connection's last."""
        if isinstance(event, Response) and event.status_code >= 200 and self.context.terminated.is_set():
            event = replace(event, headers=[*event.headers, (b"connection", b"close")])
        await super().stream_send(event)

    @property
    def owes_continue(self) -> bool:
        """The client waits to hear that its body is wanted."""
        return self.connection is self._http and self._http.they_are_waiting_for_100_continue

    async def send_continue(self) -> None:
        """Say that the body is wanted; only while `owes_continue`."""
        await self._send_h11_event(h11.InformationalResponse(status_code=100, headers=[]))

    async def refuse(
        self,
        status: int,
        sentence: str,
        *,
        why: End = End.PROTOCOL,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> NoReturn:
        """End the running exchange, answer `status` if nothing was answered yet, and raise."""
        await self._close_stream()
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            # Idle: the request that cannot be read is not the one whose method was seen last.
            has_no_body = self._method == b"HEAD" and self._http.our_state is h11.SEND_RESPONSE
            body = refusal_body(sentence)
            answer = h11.Response(
                status_code=status,
                headers=[
                    (b"content-type", b"application/json"),
                    (b"content-length", b"%d" % len(body)),
                    (b"connection", b"close"),
                    *headers,
                    *self.config.response_headers("h11"),
                ],
            )
            data = self._http.send(answer) or b""
            if not has_no_body:
                data += self._http.send(h11.Data(data=body)) or b""
            data += self._http.send(h11.EndOfMessage()) or b""
            await self.send(RawData(data=data))
        raise PeerFaultError(why, sentence)

    async def _handle_events(self) -> None:
        while True:
            try:
                event = self.connection.next_event()
            except h11.RemoteProtocolError as error:
                # What the parser quotes may be somebody's token.
                complaint = _QUOTED.split(str(error), maxsplit=1)[0][:LONGEST_COMPLAINT]
                await self.refuse(error.error_status_hint, f"The request cannot be read: {complaint}.")
            if isinstance(event, h11.Request):
                self._method = event.method
                await self.send(Updated(idle=False))
                await self._check_protocol(event)
                await self._create_stream(event)
            elif event is h11.PAUSED:
                if not self._http.trailing_data[0]:
                    return  # an upgrade that was not taken up: go on listening, the peer may leave
                await self.can_read.clear()
                await self.can_read.wait()
            elif event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed) or self.stream is None:
                return
            elif isinstance(event, h11.Data):
                await self.stream.handle(Body(stream_id=STREAM_ID, data=event.data))
            elif isinstance(event, h11.EndOfMessage):
                await self.stream.handle(EndBody(stream_id=STREAM_ID))
            elif isinstance(event, Data):
                if not cast("WSStream", self.stream).handshake.accepted:
                    await self.refuse(400, "A frame came before the upgrade was answered.")
                await self.stream.handle(event)

    async def _check_protocol(self, event: h11.Request) -> None:
        names = {name for name, _ in event.headers}
        if event.http_version not in (b"1.0", b"1.1"):
            await self.refuse(505, "Only HTTP/1.1 is spoken here.")
        if _path_and_query(event.target) is None:
            await self.refuse(400, "The request target is neither a path nor a URL.")
        if b"content-length" in names and b"transfer-encoding" in names:
            await self.refuse(400, "Content-Length and Transfer-Encoding exclude each other.")
        if not _wants_websocket(event):
            return
        has_length = b"content-length" in names and (b"content-length", b"0") not in event.headers
        if b"transfer-encoding" in names or has_length:
            await self.refuse(400, "A WebSocket upgrade has no body.")
        if event.http_version != b"1.1" or b"sec-websocket-key" not in names:
            await self.refuse(400, "A WebSocket upgrade needs HTTP/1.1 and a Sec-WebSocket-Key.")
        if (b"sec-websocket-version", WEBSOCKET_VERSION) not in event.headers:
            await self.refuse(
                426,
                "Only WebSocket version 13 is spoken here.",
                headers=((b"sec-websocket-version", WEBSOCKET_VERSION),),
            )

    async def _create_stream(self, request: h11.Request) -> None:
        common = (
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        headers = list(request.headers)
        if _wants_websocket(request):
            headers = _handshake_headers(headers)
            self.stream = BoundedWebSocket(*common, violation_code=self._violation_code)
            self.connection = H11WSConnection(self._http)
        else:
            self.stream = HTTPStream(*common)
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=headers,
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii").upper(),
                raw_path=_path_and_query(request.target) or b"/",
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1
        if self.stream.closed:
            # Upstream has refused the handshake with a bare 400 and would hold the connection for ever.
            raise PeerFaultError(End.PROTOCOL, "The WebSocket handshake does not hold together.")


class BoundedWebSocket(WSStream):
    """A WebSocket whose message never holds more than its bound in memory, and whose end says why."""

    def __init__(self, *common: Any, violation_code: int) -> None:
        super().__init__(*common)
        self._violation_code = violation_code
        self._message = bytearray()

    async def _handle_events(self) -> None:
        for event in self.connection.events():
            if isinstance(event, Message):
                await self._collect(event)
            elif isinstance(event, Ping):
                await self._send_wsproto_event(event.response())
            elif isinstance(event, CloseConnection):
                if self.connection.state in (WebSocketState.OPEN, WebSocketState.LOCAL_CLOSING):
                    await self._violation(f"broken framing: {event.reason}")
                # Answer first: an app that hears of the end returns, and its return closes the connection.
                if self.connection.state is WebSocketState.REMOTE_CLOSING:
                    await self._send_wsproto_event(event.response())
                await self._tell_app(int(event.code), event.reason)
                await self.send(StreamClosed(stream_id=self.stream_id))
                return

    async def _collect(self, event: Message[Any]) -> None:
        is_text = isinstance(event, TextMessage)
        self._message += event.data.encode() if isinstance(event, TextMessage) else event.data
        if len(self._message) > self.config.websocket_max_message_size:
            await self._violation(f"a message is larger than {self.config.websocket_max_message_size} bytes")
        if not event.message_finished:
            return
        message, self._message = bytes(self._message), bytearray()
        if self.app_put is not None:
            await self.app_put(
                {
                    "type": "websocket.receive",
                    "bytes": None if is_text else message,
                    "text": message.decode() if is_text else None,
                }
            )

    async def _violation(self, reason: str) -> NoReturn:
        # The exception and what it passes through refer to each other: this would stay until the next collection.
        self._message = bytearray()
        await self._send_wsproto_event(CloseConnection(code=self._violation_code, reason=reason))
        await self._tell_app(self._violation_code, reason)
        raise PeerFaultError(End.PROTOCOL, f"WebSocket: {reason}")

    async def _tell_app(self, code: int, reason: str | None) -> None:
        """The disconnect with the true code; upstream's own, always 1006, is then not sent."""
        if self.app_put is not None:
            put, self.app_put = self.app_put, None
            await put({"type": "websocket.disconnect", "code": code, "reason": reason})


def _path_and_query(target: bytes) -> bytes | None:
    """The request target in origin form, whole URLs included (RFC 9112 §3.2.2). None for anything else."""
    if target.startswith(b"/") or target == b"*":
        return target
    if target.lower().startswith((b"http://", b"https://")):
        _, _, after_scheme = target.partition(b"://")
        authority, slash, path = after_scheme.partition(b"/")
        return None if b"?" in authority else slash + path or b"/"
    return None


def _handshake_headers(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """As upstream's handshake reads them: it keeps one line of each name, in ASCII.

    It also accepts permessage-deflate wherever it sees it offered, so that the offer is taken out.
    """
    protocols = [value for name, value in headers if name == b"sec-websocket-protocol" and value.isascii()]
    replaced = (b"connection", b"sec-websocket-extensions", b"sec-websocket-protocol")
    kept = [(name, value) for name, value in headers if name not in replaced]
    kept.append((b"connection", b"upgrade"))
    if protocols:
        kept.append((b"sec-websocket-protocol", b", ".join(protocols)))
    return kept


def _wants_websocket(request: h11.Request) -> bool:
    upgrade = b""
    connection: list[bytes] = []
    for name, value in request.headers:
        if name == b"upgrade":
            upgrade = value
        elif name == b"connection":
            connection += value.lower().split(b",")
    return (
        request.method == b"GET"
        and upgrade.strip().lower() == b"websocket"
        and any(token.strip() == b"upgrade" for token in connection)
    )
