"""The node's end of one WebSocket, over trio-websocket, with that library's hazards kept inside."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    open_websocket_url,
)
from wsproto.utilities import ProtocolError

from skygw.protocol.limits import MAX_TEXT_BYTES

SUBPROTOCOL = "skynet.node.v1"
RECEIVE_BYTES = 64 * 1024
QUEUED_MESSAGES = 8
"""Read ahead by the library: 8 × 64 KiB at most."""

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
) -> AsyncIterator[WebSocketLink]:
    """Connects; leaving the block closes with 1000, and drops the connection after `disconnect_timeout_s`.

    Raises `LinkEnded` when the gateway cannot be reached or refuses, and when the library fails under a hostile peer.
    No compression is offered: trio-websocket offers no extension.
    """
    ended: LinkEnded | None = None
    try:
        async with open_websocket_url(
            url,
            ssl_context,
            subprotocols=[SUBPROTOCOL],
            extra_headers=[(b"authorization", b"Bearer " + token.encode())],
            message_queue_size=QUEUED_MESSAGES,
            max_message_size=MAX_TEXT_BYTES,
            receive_buffer_size=RECEIVE_BYTES,
            connect_timeout=connect_timeout_s,
            disconnect_timeout=disconnect_timeout_s,
        ) as connection:
            if connection.subprotocol != SUBPROTOCOL:
                raise LinkEnded(f"{url} does not speak {SUBPROTOCOL}.")
            try:
                yield WebSocketLink(connection)
            except LinkEnded as error:
                # Leaving the library's block with our own exception would hide it behind a timeout while closing.
                ended = error
    except ConnectionRejected as refusal:
        raise LinkEnded(
            f"{url} refused the connection with HTTP {refusal.status_code}.",
            status=refusal.status_code,
            retry_after_s=_retry_after(refusal.headers),
        ) from None
    except HandshakeError as error:
        if ended is None:
            cause = error.__cause__ or error
            raise LinkEnded(f"{url} cannot be reached: {str(cause) or type(cause).__name__}.") from None
    # The library lets these out of its reader (trio-websocket #184) or of its first request.
    except (ProtocolError, trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError) as error:
        if ended is None:
            raise LinkEnded(f"The connection to {url} broke: {error!r}.") from None
    if ended is not None:
        raise ended


def _ended(closed: ConnectionClosed) -> LinkEnded:
    reason = closed.reason
    if reason is None:
        return LinkEnded("The connection ended without a word.")
    return LinkEnded(f"The gateway closed with {reason.code}: {reason.reason or 'no reason given'}.", code=reason.code)


def _retry_after(headers: tuple[tuple[bytes, bytes], ...]) -> float:
    """Seconds only: an HTTP date would need a clock that is right."""
    for name, value in headers:
        if name.lower() == b"retry-after" and value.isdigit():
            return min(float(value), MAX_RETRY_AFTER_S)
    return 0.0
