"""A client's end of one WebSocket: from an address and a token to a link, or to the reason why there is none."""

import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

import trio

from skygw.client.handshake import BadAnswer, Handshake, Refused
from skygw.protocol.limits import KIB, MAX_TEXT_BYTES
from skygw.protocol.schemas import SUBPROTOCOL
from skygw.websocket import (
    ConnectionLost,
    Fault,
    LinkClosed,
    NotReading,
    Patience,
    PlainTransport,
    Rhythm,
    TlsTransport,
    Transport,
    WebSocket,
    tune,
)

UNSENT_BYTES = 4 * KIB
"""What may wait in the kernel before it is sent: of 1 Mbit/s with four uploads beside the socket a sixth of a second,
which the proof of a stop waits too.
"""

REFUSAL_S = 2.0
"""What the rest of a refusal may take to come; its status is known by then."""


class LinkEnded(Exception):
    """There is no link. `code` is the gateway's close code, or `None`; `status` is the HTTP refusal, or `None`."""

    def __init__(
        self, message: str, *, code: int | None = None, status: int | None = None, retry_after_s: float = 0.0
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.retry_after_s = retry_after_s

    @classmethod
    def of(cls, closed: LinkClosed) -> "LinkEnded":
        """How a link ended that there was. With a fault it was we who gave it up, and the code is not the gateway's."""
        match closed.fault:
            case Fault.GONE:
                return cls(f"The gateway is gone: {closed.reason}.")
            case Fault.DOES_NOT_READ:
                return cls(f"The gateway does not read: it {closed.reason}.")
            case Fault.BROKE_A_RULE:
                return cls(f"The gateway broke a rule of WebSockets: {closed.reason}.")
        if closed.code is None:
            return cls("The connection ended without a word.")
        return cls(f"The gateway closed with {closed.code}: {closed.reason or 'no reason given'}.", code=closed.code)


class Link(Protocol):
    """One connection: one task receives, one task sends, `keep` runs beside them. All but `keep` raise `LinkClosed`.
    `skygw.websocket.WebSocket` is the one with a wire.
    """

    async def receive(self) -> Sequence[str | bytes]:
        """The messages that have come, at least one and not many."""
        ...

    async def receive_one(self) -> str | bytes:
        """The next message; what came with it is still there."""
        ...

    async def send(self, messages: Sequence[str | bytes]) -> None:
        """Hands messages over as one write. Cancelled in the middle of a message, the link has ended."""
        ...

    async def keep(self) -> None:
        """Asks a silent gateway for a sign of life and gives up one that is gone. Returns at the end of the link."""
        ...

    @property
    def last_received_at(self) -> float:
        """When the last bytes came, on trio's clock."""
        ...


@asynccontextmanager
async def open_link(
    url: str,
    *,
    token: str,
    connect_timeout_s: float,
    disconnect_timeout_s: float,
    ssl_context: ssl.SSLContext | None = None,
    subprotocol: str = SUBPROTOCOL,
    max_message_bytes: int = MAX_TEXT_BYTES,
    dialled: tuple[str, int] | None = None,
) -> AsyncIterator[WebSocket]:
    """Connects; leaving the block closes with 1000, and drops the connection after `disconnect_timeout_s`.
    `dialled` is the host and port of what carries the bytes to the gateway, if the URL's own is not to be dialled.

    Raises `LinkEnded` when the gateway cannot be reached or refuses, and for a `LinkClosed` of the block. No extension
    is offered, compression least of all.
    """
    if not (token.isascii() and token.isprintable()):
        raise LinkEnded("The token holds characters that no header can carry.")
    transport: Transport | None = None
    unread = b""
    try:
        with trio.move_on_after(connect_timeout_s) as patience:
            transport = await _connect(urlsplit(url), dialled, ssl_context)
            unread = await _shake_hands(transport, url, token, subprotocol)
        if transport is None or patience.cancelled_caught:
            raise LinkEnded(f"{url} did not answer within {connect_timeout_s:.0f} s.")
        link = WebSocket(transport, is_client=True, max_message_bytes=max_message_bytes, rhythm=Rhythm(), unread=unread)
        try:
            yield link
        finally:
            with trio.move_on_after(disconnect_timeout_s, shield=True):
                await _say_goodbye(link, transport)
    except LinkClosed as closed:
        raise LinkEnded.of(closed) from None
    except (ConnectionLost, NotReading, BadAnswer, OSError, UnicodeError) as error:
        raise LinkEnded(f"The connection to {url} failed: {_why(error)}.") from None
    finally:
        if transport is not None:
            transport.close()


async def _connect(url: SplitResult, dialled: tuple[str, int] | None, ssl_context: ssl.SSLContext | None) -> Transport:
    host = url.hostname or ""
    tls = url.scheme == "wss"
    stream = await trio.open_tcp_stream(*(dialled or (host, url.port or (443 if tls else 80))))
    sock = socket.socket(fileno=stream.socket.detach())
    sock.setblocking(False)
    tune(sock, unsent_bytes=UNSENT_BYTES)
    if not tls:
        return PlainTransport(sock, Patience())
    transport = TlsTransport.asking(sock, ssl_context or ssl.create_default_context(), Patience(), host=host)
    try:
        await transport.shake_hands()
    except BaseException:
        transport.abort()
        raise
    return transport


async def _shake_hands(transport: Transport, url: str, token: str, subprotocol: str) -> bytes:
    """Returns what came behind the answer. Raises `LinkEnded` for a refusal, and `BadAnswer`."""
    parts = urlsplit(url)
    handshake = Handshake(
        host=parts.netloc.rpartition("@")[2],
        target=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
        token=token,
        subprotocol=subprotocol,
    )
    await transport.send(handshake.request)
    answer = None
    with trio.CancelScope() as patience:
        while answer is None:
            answer = handshake.feed(await transport.receive())
            if handshake.refused() is not None:
                patience.deadline = min(patience.deadline, trio.current_time() + REFUSAL_S)
    answer = answer or handshake.refused()
    if isinstance(answer, Refused):
        raise LinkEnded(
            f"{url} refused the connection with HTTP {answer.status}{answer.detail and ': '}{answer.detail or '.'}",
            status=answer.status,
            retry_after_s=answer.retry_after_s,
        )
    if answer is None:
        raise BadAnswer("it said nothing")
    return answer.unread


async def _say_goodbye(link: WebSocket, transport: Transport) -> None:
    """Up to the gateway's own goodbye and its end of the connection, which comes first (RFC 6455 §7.1.1)."""
    try:
        await link.close()
        while True:
            await link.receive()
    except LinkClosed:
        pass
    try:
        while await transport.receive():
            pass
    except ConnectionLost:
        return


def _why(error: Exception) -> str:
    told: BaseException = error
    if isinstance(error, OSError) and error.__cause__ is not None:
        told = error.__cause__  # trio's own sentence is that all attempts failed
    while isinstance(told, BaseExceptionGroup):
        told = told.exceptions[0]
    return str(told) or type(told).__name__
