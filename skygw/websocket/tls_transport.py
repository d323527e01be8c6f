"""The same in TLS: Trio's TLS stream, on a connection that loses no record to a cancelled task."""

import socket
import ssl
from contextlib import suppress
from typing import Final

import trio

from skygw.websocket.transport import READ_BYTES, ConnectionLost, NotReading, Patience, PlainTransport

PIECE_BYTES: Final = 16 * 1024  # one TLS record


class _Wire(trio.abc.HalfCloseableStream):
    """What TLS stands on. Trio's own stream looks for a cancellation once more when a record is sealed already, and a
    record that is not sent takes all behind it along: a session that ended while its reader wrote a pong had no
    goodbye. Here a record is lost only if the kernel has no room for it.
    """

    def __init__(self, plain: PlainTransport) -> None:
        self._plain = plain

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Raises `NotReading` besides what Trio's streams raise."""
        try:
            await self._plain.send_even_if_cancelled(bytes(data))
        except ConnectionLost as error:
            raise trio.BrokenResourceError(str(error)) from error

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:  # noqa: ARG002 - TLS takes what has come
        try:
            return await self._plain.receive()
        except ConnectionLost as error:
            raise trio.BrokenResourceError(str(error)) from error

    async def send_eof(self) -> None:
        await self._plain.send_end()

    async def aclose(self) -> None:
        self._plain.close()
        await trio.lowlevel.checkpoint()


class TlsTransport:
    """A `Transport` in TLS; `shake_hands` comes first. Of a record that could not be finished nothing is known."""

    __slots__ = ("_plain", "_stream", "begun", "handed_over")

    def __init__(self, plain: PlainTransport, stream: trio.SSLStream[_Wire]) -> None:
        self._plain = plain
        self._stream = stream
        self.handed_over = self.begun = 0

    @classmethod
    def serving(cls, sock: socket.socket, context: ssl.SSLContext, patience: Patience) -> "TlsTransport":
        """The server's end over an accepted socket that does not block."""
        plain = PlainTransport(sock, patience)
        return cls(plain, trio.SSLStream(_Wire(plain), context, server_side=True, https_compatible=True))

    @classmethod
    def asking(cls, sock: socket.socket, context: ssl.SSLContext, patience: Patience, *, host: str) -> "TlsTransport":
        """The client's end over a connected socket that does not block; the server has to prove that it is `host`."""
        plain = PlainTransport(sock, patience)
        return cls(plain, trio.SSLStream(_Wire(plain), context, server_hostname=host, https_compatible=True))

    async def shake_hands(self) -> None:
        """Raises `ConnectionLost`. No deadline of its own."""
        try:
            await self._stream.do_handshake()
        except (trio.BrokenResourceError, trio.ClosedResourceError, NotReading) as error:
            raise ConnectionLost(str(error.__cause__ or error) or "the peer left") from error

    async def receive(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(READ_BYTES))
        except (trio.BrokenResourceError, trio.ClosedResourceError, NotReading) as error:
            raise ConnectionLost(str(error.__cause__ or error)) from error

    async def send(self, data: bytes) -> None:
        began = trio.current_time()
        view = memoryview(data)
        for start in range(0, len(data), PIECE_BYTES):
            await trio.lowlevel.checkpoint_if_cancelled()
            piece = view[start : start + PIECE_BYTES]
            self.begun = self.handed_over + len(piece)
            try:
                await self._stream.send_all(piece)
            except NotReading:
                waited_s = trio.current_time() - began
                raise NotReading(f"took {start} of {len(data)} bytes in {waited_s:.1f} s") from None
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise ConnectionLost(str(error.__cause__ or error)) from error
            self.handed_over = self.begun

    async def send_end(self) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, NotReading):  # not a clean end then
            await self._stream.unwrap()
        await self._plain.send_end()

    def close(self) -> None:
        self._plain.close()

    def abort(self) -> None:
        self._plain.abort()
