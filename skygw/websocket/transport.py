"""Bytes over one TCP connection, with writes that end: by a deadline, a rate floor, or cancelling."""

import socket
import struct
from dataclasses import dataclass
from typing import Final, Protocol

import trio

READ_BYTES: Final = 64 * 1024
UNSENT_BYTES: Final = 16 * 1024
"""What the kernel may hold that it has not begun to send (`TCP_NOTSENT_LOWAT`): behind more, a stop would have to wait.
At 1 Mbit/s this is an eighth of a second."""

SENDS_WITHOUT_A_PAUSE: Final = 16


class NotReading(Exception):
    """The peer does not take what it is sent, or too slowly."""


class ConnectionLost(Exception):
    """The connection has ended, or was ended here."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long writes may take. A peer that takes nothing for `stalled_s` is given up; so is one that is as far behind
    a pace of `min_bytes_per_s`, over all the writes for which it let us wait: many small ones are no way out.
    """

    stalled_s: float = 10.0
    min_bytes_per_s: float = 1024.0


class _Pace:
    """How far a peer is behind, in seconds: the time it let us wait, less what the bytes it took have earned."""

    __slots__ = ("_patience", "behind_s")

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self.behind_s = 0.0

    def deadline(self, *, began: float, moved: float, taken: int) -> float:
        """Of a write that began then, and of which `taken` bytes were taken, the last of them when it last `moved`."""
        stalled_s = self._patience.stalled_s
        earned = began + stalled_s - self.behind_s + taken / self._patience.min_bytes_per_s
        return min(moved + stalled_s, earned)

    def took(self, size: int, *, waited_s: float) -> None:
        self.behind_s = max(0.0, self.behind_s + waited_s - size / self._patience.min_bytes_per_s)


class Transport(Protocol):
    """One task receives, one task sends. Every failure of the connection is `ConnectionLost`."""

    handed_over: int
    """Bytes taken by the kernel since the beginning, in order."""
    begun: int
    """Bytes that may have been taken: more than `handed_over` only after a failed or cancelled `send` in TLS."""

    async def receive(self) -> bytes:
        """The next bytes, at most `READ_BYTES`; empty at the end. Always a checkpoint; cancelling loses nothing."""
        ...

    async def send(self, data: bytes) -> None:
        """Hands all of it to the kernel. Raises `NotReading` when patience ends.

        Cancelled or failed in the middle, `handed_over` and `begun` tell how far it came; if that is not nowhere, the
        connection is of no use any more.
        A checkpoint when it has to wait, and else every few calls.
        """
        ...

    async def send_end(self) -> None:
        """Says that nothing more will be sent: TLS close_notify, then FIN."""
        ...

    def close(self) -> None:
        """Closes the socket: what the kernel holds is still sent. Idempotent."""
        ...

    def abort(self) -> None:
        """Resets the connection: every pending operation is woken with `ConnectionLost`. Idempotent."""
        ...


def tune(sock: socket.socket, *, unsent_bytes: int = UNSENT_BYTES) -> None:
    """Small messages leave at once, and little waits in the kernel."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, unsent_bytes)


class PlainTransport:
    """A non-blocking stdlib socket. Its calls go straight to the kernel, and wait only when that says so: Trio's own
    socket objects cost a checkpoint and half a dozen calls per segment.
    """

    __slots__ = ("_has_more", "_pace", "_sends", "_socket", "begun", "handed_over")

    def __init__(self, sock: socket.socket, patience: Patience) -> None:
        self._socket = sock
        self._pace = _Pace(patience)
        self._has_more = False
        self._sends = 0
        self.handed_over = self.begun = 0

    async def receive(self) -> bytes:
        if self._has_more:
            await trio.lowlevel.checkpoint()
        else:  # the last read emptied the socket: reading again before asking would be a wasted call
            await self._wait(trio.lowlevel.wait_readable)
        while True:
            try:
                data = self._socket.recv(READ_BYTES)
            except BlockingIOError:
                await self._wait(trio.lowlevel.wait_readable)
            except OSError as error:
                raise ConnectionLost(str(error)) from None
            else:
                self._has_more = len(data) == READ_BYTES
                return data

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        await self.send_even_if_cancelled(data)

    async def send_even_if_cancelled(self, data: bytes) -> None:
        """As `send`, but what the kernel has room for is handed over in a cancelled task too."""
        sent = self._send_some(data)
        if sent < len(data):
            await self._send_the_rest(data, sent)
            return
        if self._pace.behind_s:
            self._pace.took(sent, waited_s=0.0)
        self._sends += 1
        if self._sends >= SENDS_WITHOUT_A_PAUSE:
            self._sends = 0
            await trio.lowlevel.cancel_shielded_checkpoint()

    async def _send_the_rest(self, data: bytes, sent: int) -> None:
        view = memoryview(data)
        began = moved = trio.current_time()
        while sent < len(data):
            deadline = self._pace.deadline(began=began, moved=moved, taken=sent)
            with trio.CancelScope(deadline=deadline) as waiting:
                await self._wait(trio.lowlevel.wait_writable)
            if waiting.cancelled_caught:
                raise NotReading(f"took {sent} of {len(data)} bytes in {trio.current_time() - began:.1f} s")
            if taken := self._send_some(view[sent:]):
                sent += taken
                moved = trio.current_time()
        self._pace.took(sent, waited_s=moved - began)

    def _send_some(self, data: bytes | memoryview) -> int:
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ConnectionLost(str(error)) from None
        self.begun = self.handed_over = self.handed_over + sent
        return sent

    async def _wait(self, ready: "_Wait") -> None:
        if self._socket.fileno() == -1:
            # Trio would enter -1 among what it watches, fail, and call the next one to ask busy.
            await trio.lowlevel.checkpoint()
            raise ConnectionLost("closed here")
        try:
            await ready(self._socket)
        except (trio.ClosedResourceError, OSError) as error:
            raise ConnectionLost("closed here") from error

    async def send_end(self) -> None:
        await trio.lowlevel.checkpoint()
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise ConnectionLost(str(error)) from None

    def close(self) -> None:
        if self._socket.fileno() != -1:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    def abort(self) -> None:
        if self._socket.fileno() != -1:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


class _Wait(Protocol):
    async def __call__(self, sock: socket.socket, /) -> None: ...
