"""The one place that reaches into Hypercorn: its HTTP/1.1 protocol, made safe to stand on.

The shell around them (`connection.py`) knows Hypercorn's events and worker context only; Hypercorn's own
shell (`TCPServer`) and its HTTP/2 are not used. What is changed in the protocols, and why:

- HTTP/2 by prior knowledge is refused; `Upgrade: h2c` is ignored, as RFC 9110 §7.8 allows, and answered in
  HTTP/1.1.
- An upgrade with a body, a frame sent before the upgrade was answered, and Content-Length beside
  Transfer-Encoding are refused (upstream issue #225 and its kin: each ended the whole server).
- A WebSocket is our own stream from the upgrade request on (`websocket_stream.py`, upstream #125, #127).
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
from hypercorn.protocol.events import Body, Data, EndBody, Request, Response
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol, H11WSConnection
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState, TaskGroup

from skygw.serving.asgi import App
from skygw.serving.config import ListenerConfig
from skygw.serving.ends import End, PeerFaultError
from skygw.serving.exchange import Exchanges
from skygw.serving.problem import refusal_body
from skygw.serving.websocket_stream import WebSocketStream, is_valid_key, scope_of
from skygw.websocket import WebSocket

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
        upgrade: Callable[[bytes], WebSocket],
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
        self._exchanges = exchanges
        self._ends = ends
        self._state = state
        self._upgrade = upgrade
        self._early = b""  # frames that the peer sent as soon as it saw the 101 that we are still writing
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
                if not cast("WebSocketStream", self.stream).is_accepting:
                    await self.refuse(400, "A frame came before the upgrade was answered.")
                self._early += event.data

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
        versions = [value for name, value in event.headers if name == b"sec-websocket-version"]
        if len(versions) > 1:
            await self.refuse(400, "A WebSocket upgrade has one Sec-WebSocket-Version.")
        keys = [value for name, value in event.headers if name == b"sec-websocket-key"]
        if event.http_version != b"1.1" or len(keys) != 1 or not is_valid_key(keys[0]):
            await self.refuse(
                400, "A WebSocket upgrade needs HTTP/1.1 and one Sec-WebSocket-Key of 16 bytes in base64."
            )
        if versions != [WEBSOCKET_VERSION]:
            await self.refuse(
                426,
                "Only WebSocket version 13 is spoken here.",
                headers=((b"sec-websocket-version", WEBSOCKET_VERSION),),
            )

    async def _create_stream(self, request: h11.Request) -> None:
        target = _path_and_query(request.target) or b"/"
        self.keep_alive_requests += 1
        if _wants_websocket(request):
            await self._create_websocket(request, target)
            return
        self.stream = HTTPStream(
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
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii").upper(),
                raw_path=target,
                state=self.connection_state,
            )
        )

    async def _create_websocket(self, request: h11.Request, target: bytes) -> None:
        ends = self._ends
        stream = WebSocketStream(
            cast("App", self.app),
            self._exchanges,
            scope=scope_of(request, target, is_tls=ends.is_tls, peer=ends.peer, here=ends.here, state=self._state),
            key=dict(request.headers)[b"sec-websocket-key"],
            send=self.stream_send,
            upgrade=lambda: self._upgrade(self._early),
        )
        self.stream = cast("HTTPStream", stream)  # as far as upstream knows it: `handle` and `closed`
        self.connection = H11WSConnection(self._http)
        await stream.start()


def _path_and_query(target: bytes) -> bytes | None:
    """The request target in origin form, whole URLs included (RFC 9112 §3.2.2). None for anything else."""
    if target.startswith(b"/") or target == b"*":
        return target
    if target.lower().startswith((b"http://", b"https://")):
        _, _, after_scheme = target.partition(b"://")
        authority, slash, path = after_scheme.partition(b"/")
        return None if b"?" in authority else slash + path or b"/"
    return None


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
