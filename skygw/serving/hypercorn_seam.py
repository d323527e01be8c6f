"""The one place that reaches into Hypercorn: its HTTP/1.1 protocol, made safe to stand on.

The shell around them (`connection.py`) knows Hypercorn's events and worker context only; Hypercorn's own
shell (`TCPServer`) and its HTTP/2 are not used. What is changed in the protocols, and why:

- h11 is handed whole heads and the payload of bodies, cut and checked by `request_framing.py`: it is lenient where
  attackers live.
- HTTP/2 by prior knowledge is refused; `Upgrade: h2c` is ignored, as RFC 9110 §7.8 allows, and answered in
  HTTP/1.1.
- An upgrade with a body and a frame sent before the upgrade was answered are refused (upstream issue #225 and its
  kin: each ended the whole server).
- A request and its answer are our own stream, of fewer steps (`http_stream.py`), and so is a WebSocket from the upgrade
  request on (`websocket_stream.py`, upstream #125, #127).
- `100 Continue` is sent when the app asks for the body, so that a refusal can come before it.

Written against Hypercorn 0.18; a test fails when one of the classes used here changes.
"""

import re
import sys
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import lru_cache
from time import time
from typing import TYPE_CHECKING, Any, NoReturn, cast
from wsgiref.handlers import format_date_time

import h11
from hypercorn.config import Config
from hypercorn.events import Event, RawData, Updated
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import Response
from hypercorn.protocol.h11 import H11Protocol, H11WSConnection
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState, TaskGroup

from skygw.serving.asgi import App
from skygw.serving.config import ListenerConfig
from skygw.serving.ends import End, PeerFaultError
from skygw.serving.exchange import Exchanges
from skygw.serving.field_lines import MalformedError, lines_of
from skygw.serving.http_stream import CLOSE, HttpStream
from skygw.serving.places import ClientPlace
from skygw.serving.problem import refusal_body
from skygw.serving.request_framing import RequestFraming, SizedBody
from skygw.serving.request_rules import RequestHead, check_upgrade
from skygw.serving.websocket_stream import WebSocketStream, scope_of
from skygw.websocket import WebSocket

if TYPE_CHECKING:
    from hypercorn.protocol.http_stream import HTTPStream

SAID_ALL = (h11.MUST_CLOSE, h11.CLOSED, h11.ERROR)
FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection"})
RETRY_AFTER = b"5"  # seconds
MAX_EARLY_BYTES = 256 * 1024  # frames that came while the 101 was being written
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
        upgrade: Callable[[], Awaitable[WebSocket]],
        place: ClientPlace,
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
        self._place = place
        self.early = b""
        """Frames that the peer sent as soon as it saw the 101, until the WebSocket reads by itself."""
        # Upstream swaps `self.connection` on an upgrade; refusals still go through the HTTP one.
        self._http = cast("h11.Connection", self.connection)
        self._held: list[bytes] = []
        self._framing = RequestFraming(max_head_bytes=config.max_header_bytes)
        self._method = b""
        self._is_all_taken = False
        self.body_bytes = 0
        """Of the running request's body, as far as it came: payload alone, so that padding earns no time."""

    async def handle(self, event: Event) -> None:
        """Take what the socket brought, or that it is closed."""
        if not isinstance(event, RawData):
            await super().handle(event)
        elif self.connection is not self._http:
            await self._take_early(event.data)
        elif self._http.their_state not in SAID_ALL:
            # Behind its last request a peer may say what it likes: nobody listens (RFC 9112 §9.6).
            self._framing.feed(event.data)
            await self._handle_events()

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
        return self._http.their_state is h11.IDLE and self._framing.has_unread

    @property
    def answer_is_cut(self) -> bool:
        """A response has begun and will not be completed: the connection must not end cleanly."""
        return self._http.our_state in (h11.SEND_BODY, h11.ERROR)

    async def stream_send(self, event: StreamEvent) -> None:
        """While draining, say that this answer is the last."""
        if isinstance(event, Response) and event.status_code >= 200 and self.context.terminated.is_set():
            event = replace(event, headers=[*event.headers, CLOSE])
        await super().stream_send(event)

    def begin_answer(self, status: int, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """Its head, which waits for the first of the body: a short answer is one write. Raises `ValueError` for fields
        that cannot be sent, and then nothing was begun.

        The parser is given the fields that frame the answer, and puts their like right; the others are looked at here,
        all at once, which costs a tenth of what the parser takes for them.
        """
        framing: list[tuple[bytes, bytes]] = []
        others = [(b"date", _date(int(time())))]
        for field in fields:
            (framing if field[0].lower() in FRAMING else others).append(field)
        if self.context.terminated.is_set():
            framing.append(CLOSE)
        lines = lines_of(others)
        self._hold(h11.Response(status_code=status, headers=framing), further_lines=lines)

    async def go_on(self, body: bytes, *, is_last: bool) -> None:
        """More of the answer, or the last of it."""
        if body:
            self._hold(h11.Data(data=body))
        if is_last:
            self._hold(h11.EndOfMessage())
        await self._release()
        if is_last:
            await self._maybe_recycle()

    async def break_off(self) -> None:
        """The answer ends here, whole or not; one that is not ends the connection."""
        await self._release()
        await self._maybe_recycle()

    def _hold(self, event: h11.Event, *, further_lines: bytes = b"") -> None:
        """`further_lines` come before the empty line of a head."""
        try:
            data = self._http.send(event) or b""
        except h11.LocalProtocolError:
            if self._http.their_state is not h11.ERROR:  # the peer has broken off already
                raise
        else:
            self._held.append(data[:-2] + further_lines + data[-2:])

    async def _release(self) -> None:
        if self._held:
            data = b"".join(self._held)
            self._held = []
            if data:
                await self.send(RawData(data=data))

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
        body: bytes | None = None,
    ) -> NoReturn:
        """End the running exchange, answer `status` if nothing was answered yet, and raise."""
        await self._close_stream()
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            # Idle: the request that cannot be read is not the one whose method was seen last.
            has_no_body = self._method == b"HEAD" and self._http.our_state is h11.SEND_RESPONSE
            body = body or refusal_body(sentence)
            answer = h11.Response(
                status_code=status,
                headers=[
                    (b"content-type", b"application/json"),
                    (b"content-length", b"%d" % len(body)),
                    CLOSE,
                    *headers,
                    *self.config.response_headers("h11"),
                ],
            )
            data = self._http.send(answer) or b""
            if not has_no_body:
                data += self._http.send(h11.Data(data=body)) or b""
            data += self._http.send(h11.EndOfMessage()) or b""
            self._held.append(data)
            await self._release()
        raise PeerFaultError(why, sentence)

    async def _handle_events(self) -> None:
        """Until all that came was handed on. The parser is asked only for what it can have: asking it in vain costs as
        much as an event.
        """
        has_more = False
        while True:
            try:
                event = self._http.next_event() if has_more else h11.NEED_DATA
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    if not await self._feed_parser():
                        return
                    has_more = True
                    continue
                # By its type: h11's events are abstract classes, whose `isinstance` is slow.
                head = self._checked(event) if type(event) is h11.Request else None
            except MalformedError as malformed:
                await self.refuse(malformed.status, malformed.sentence, headers=malformed.headers)
            except h11.RemoteProtocolError as error:
                # What the parser quotes may be somebody's token.
                complaint = _QUOTED.split(str(error), maxsplit=1)[0][:LONGEST_COMPLAINT]
                await self.refuse(error.error_status_hint, f"The request cannot be read: {complaint}.")
            body = self._framing.body
            if head is not None:
                await self.send(Updated(idle=False))
                await self._take_place(head)
                await self._create(head)
                has_more = body.is_complete
            elif not isinstance(stream := cast("object", self.stream), HttpStream):
                return
            elif type(event) is h11.Data:
                # Of a sized body the parser hands on at once all that it was given.
                is_sized = isinstance(body, SizedBody)
                self._is_all_taken = is_sized and body.is_complete
                await stream.take(bytes(event.data), is_last=self._is_all_taken)
                has_more = body.is_complete or not is_sized
            elif type(event) is h11.EndOfMessage:
                if not self._is_all_taken:
                    await stream.take(b"", is_last=True)
                has_more = False

    async def _take_early(self, frames: bytes) -> None:
        """What comes behind an upgrade request, before the WebSocket reads by itself."""
        if self.stream is None:
            return
        if not cast("WebSocketStream", self.stream).is_accepting:
            await self.refuse(400, "A frame came before the upgrade was answered.")
        self.early += frames
        if len(self.early) > MAX_EARLY_BYTES:
            raise PeerFaultError(End.PROTOCOL, "WebSocket: too much came before the upgrade was answered")

    def _checked(self, request: h11.Request) -> RequestHead:
        """Raise `MalformedError`."""
        self._method = request.method
        self.body_bytes = 0
        self._is_all_taken = False
        head = RequestHead(request)
        if head.asks_for_websocket:
            check_upgrade(head, has_body=not self._framing.body.is_complete, is_followed=self._framing.has_unread)
        return head

    async def _feed_parser(self) -> bool:
        """Hand on the next whole piece; False if there is none. Raise `MalformedError`.

        Behind a whole request this waits until it is answered: nothing is read meanwhile, unless nothing lies here,
        so that the peer's leaving is noticed.
        """
        if self.connection is not self._http:
            return False  # has been upgraded
        state = self._http.their_state
        if state is h11.IDLE:
            piece = self._framing.take_head() or b""
        elif state is h11.SEND_BODY:
            piece = self._next_of_body()
        elif state not in SAID_ALL and self._framing.has_unread:
            await self.can_read.clear()
            await self.can_read.wait()
            return True
        else:
            return False
        if piece:
            self._http.receive_data(piece)
        return bool(piece)

    def _next_of_body(self) -> bytes:
        body = self._framing.body
        payload = self._framing.take_body()
        self.body_bytes += len(payload)
        if isinstance(body, SizedBody):
            return bytes(payload)
        # Chunks of the peer's making stay here; the parser gets one for all that has come.
        chunk = b"%x\r\n" % len(payload) + payload + b"\r\n" if payload else b""
        return chunk + b"0\r\n\r\n" if body.is_complete else chunk

    async def _take_place(self, head: RequestHead) -> None:
        if self._place.take(head.values_of(b"x-forwarded-for"), head.target.partition(b"?")[0]):
            return
        sentence = "This address has too much under way here; come back when some of it has ended."
        await self.refuse(
            503 if head.asks_for_websocket else 429,
            sentence,
            why=End.REFUSED,
            headers=((b"retry-after", RETRY_AFTER),),
            body=refusal_body(sentence, code="rate_limited", retry="after"),
        )

    async def _maybe_recycle(self) -> None:
        self._place.leave()
        await super()._maybe_recycle()

    async def _create(self, head: RequestHead) -> None:
        self.keep_alive_requests += 1
        if head.asks_for_websocket:
            await self._create_websocket(head)
            return
        ends = self._ends
        stream = HttpStream(cast("App", self.app), self._exchanges, self, head)
        self.stream = cast("HTTPStream", stream)  # as far as upstream knows it: `handle` and `closed`
        await stream.start(scheme="https" if ends.is_tls else "http", peer=ends.peer, here=ends.here, state=self._state)

    async def _create_websocket(self, head: RequestHead) -> None:
        ends = self._ends
        stream = WebSocketStream(
            cast("App", self.app),
            self._exchanges,
            scope=scope_of(head, is_tls=ends.is_tls, peer=ends.peer, here=ends.here, state=self._state),
            key=head.values_of(b"sec-websocket-key")[0],
            send=self.stream_send,
            upgrade=self._upgrade,
        )
        self.stream = cast("HTTPStream", stream)  # as above
        self.connection = H11WSConnection(self._http)
        await stream.start()


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    """RFC 9110 §6.6.1."""
    return format_date_time(second).encode()
