"""The node's end of one WebSocket, over trio-websocket, with that library's hazards kept inside."""

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

import h11
import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    WebSocketConnection,
    wrap_client_stream,
)
from wsproto.utilities import ProtocolError

from skygw.protocol.limits import MAX_TEXT_BYTES
from skygw.protocol.schemas import SUBPROTOCOL

RECEIVE_BYTES = 64 * 1024
QUEUED_MESSAGES = 8
"""Read ahead by the library: 8 × 64 KiB at most."""

MAX_DETAIL_CHARS = 300
MAX_RETRY_AFTER_S = 15 * 60.0


class LinkEnded(Exception):
    """There is no link. `code` is the peer's close code, or `None`; `status` is the HTTP refusal, or `None`."""

    def __init__(
        self, message: str, *, code: int | None = None, status: int | None = None, retry_after_s: float = 0.0
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.retry_after_s = retry_after_s


class Link(Protocol):
    """One connection: one task receives, one task sends. Both raise `LinkEnded`."""

    async def receive(self) -> str | bytes:
        """The next message."""
        ...

    async def send(self, message: str | bytes) -> None:
        """Hands a message over. Cancelled in the middle, half a frame may be out: the link must end then."""
        ...


class WebSocketLink:
    """A `Link` over a socket. Only `open_link` makes one."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self._connection = connection

    async def receive(self) -> str | bytes:
        try:
            return await self._connection.get_message()
        except ConnectionClosed as closed:
            raise _ended(closed) from None

    async def send(self, message: str | bytes) -> None:
        try:
            await self._connection.send_message(message)
        except ConnectionClosed as closed:
            raise _ended(closed) from None
        except trio.Cancelled:
            # Half a frame may be out. A close frame behind it would be read as the rest of it: drop the connection.
            await trio.aclose_forcefully(self._connection._stream)  # noqa: SLF001 - no public way; pinned by a test
            raise


@asynccontextmanager
async def open_link(
    url: str,
    *,
    token: str,
    connect_timeout_s: float,
    disconnect_timeout_s: float,
    ssl_context: ssl.SSLContext | None = None,
    max_message_bytes: int = MAX_TEXT_BYTES,
) -> AsyncIterator[WebSocketLink]:
    """Connects; leaving the block closes with 1000, and drops the connection after `disconnect_timeout_s`.

    Raises `LinkEnded` when the gateway cannot be reached or refuses, and when the library fails under a hostile peer.
    No compression is offered: trio-websocket offers no extension. The stream is ours, because the library leaves it
    open when it is refused, cancelled while connecting, or closed by the peer.
    """
    if not (token.isascii() and token.isprintable()):
        raise LinkEnded("The token holds characters that no header can carry.")
    ends: list[LinkEnded] = []
    try:
        async with trio.open_nursery() as nursery, AsyncExitStack() as cleanup:
            with trio.move_on_after(connect_timeout_s) as patience:
                connection = await _connect(url, token, ssl_context, max_message_bytes, nursery, cleanup)
            if patience.cancelled_caught:
                raise LinkEnded(f"{url} did not answer within {connect_timeout_s:.0f} s.")  # noqa: TRY301 - the way out
            try:
                yield WebSocketLink(connection)
            finally:
                with trio.move_on_after(disconnect_timeout_s, shield=True):
                    await connection.aclose()
                nursery.cancel_scope.cancel()
    except* LinkEnded as group:
        ends += leaves(group)
    except* ConnectionRejected as refusals:
        ends += [
            LinkEnded(
                f"{url} refused the connection with HTTP {refusal.status_code}{_detail(refusal.body)}",
                status=refusal.status_code,
                retry_after_s=_retry_after(refusal.headers),
            )
            for refusal in leaves(refusals)
        ]
    # The library lets these out of its reader (trio-websocket #184), and h11's when the answer is no handshake.
    except* (
        ProtocolError,
        h11.ProtocolError,
        ConnectionClosed,
        trio.BrokenResourceError,
        trio.ClosedResourceError,
        OSError,
    ) as group:
        ends += [LinkEnded(f"The connection to {url} failed: {_why(error)}.") for error in leaves(group)]
    if ends:
        raise ends[0]


async def _connect(
    url: str,
    token: str,
    ssl_context: ssl.SSLContext | None,
    max_message_bytes: int,
    nursery: trio.Nursery,
    cleanup: AsyncExitStack,
) -> WebSocketConnection:
    parts = urlsplit(url)
    host = parts.hostname or ""
    tls = parts.scheme == "wss"
    port = parts.port or (443 if tls else 80)
    stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]
    if tls:
        stream = await trio.open_ssl_over_tcp_stream(host, port, ssl_context=ssl_context, https_compatible=True)
    else:
        stream = await trio.open_tcp_stream(host, port)
    cleanup.push_async_callback(trio.aclose_forcefully, stream)
    if isinstance(stream, trio.SSLStream):
        await stream.do_handshake()  # left to the library, a refused certificate would only be seen as a silence
    connection = await wrap_client_stream(
        nursery,
        stream,
        parts.netloc.rpartition("@")[2],
        (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
        subprotocols=[SUBPROTOCOL],
        extra_headers=[(b"authorization", b"Bearer " + token.encode())],
        message_queue_size=QUEUED_MESSAGES,
        max_message_size=max_message_bytes,
        receive_buffer_size=RECEIVE_BYTES,
    )
    if connection.subprotocol != SUBPROTOCOL:
        raise LinkEnded(f"{url} does not speak {SUBPROTOCOL}.")
    return connection


ErrorT = TypeVar("ErrorT", bound=Exception)


def leaves(group: ExceptionGroup[ErrorT]) -> list[ErrorT]:
    """The errors in a group and in the groups inside it."""
    found: list[ErrorT] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, ExceptionGroup) else [error]
    return found


def _ended(closed: ConnectionClosed) -> LinkEnded:
    reason = closed.reason
    if reason is None:
        return LinkEnded("The connection ended without a word.")
    return LinkEnded(f"The gateway closed with {reason.code}: {reason.reason or 'no reason given'}.", code=reason.code)


def _detail(body: bytes | None) -> str:
    """What the refusal says of itself, to be shown on site: one printable line."""
    try:
        found = json.loads(body or b"")
    except (ValueError, RecursionError):
        return "."
    said = found.get("detail") if isinstance(found, dict) else None
    if not isinstance(said, str):
        return "."
    return ": " + "".join(character for character in said if character.isprintable())[:MAX_DETAIL_CHARS]


def _why(error: Exception) -> str:
    told = error.__cause__ or error
    return str(told) or type(told).__name__


def _retry_after(headers: tuple[tuple[bytes, bytes], ...]) -> float:
    """Seconds only: an HTTP date would need a clock that is right."""
    for name, value in headers:
        if name.lower() == b"retry-after" and value.isdigit():
            return min(float(value), MAX_RETRY_AFTER_S)
    return 0.0
