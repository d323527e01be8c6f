"""One WebSocket, either end, after its handshake: messages go in and out in the caller's own task, and no other."""

import os
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import islice
from math import inf
from typing import Final

import trio

from skygw.websocket.frames import (
    CLOSE,
    PING,
    PONG,
    Close,
    Code,
    Flaw,
    FrameReader,
    Ping,
    Pong,
    close_payload,
    frame,
    message_frame,
)
from skygw.websocket.keeping import Keeping, Rhythm
from skygw.websocket.outcomes import Fault, LinkClosed, Sent
from skygw.websocket.transport import ConnectionLost, NotReading, Transport

MESSAGES_AT_ONCE: Final = 16
"""What is handed over between two checkpoints at most: whoever works on messages gives way to others after as many."""

READ_AHEAD_BYTES: Final = 256 * 1024
READ_AHEAD_MESSAGES: Final = 1_024
"""Where reading pauses for an app that is busy elsewhere: until there, pings are answered and a goodbye is seen."""

TAKEN_BYTES: Final = 8 * 1024
MANY_EVENTS: Final = 100
"""Frames out of `TAKEN_BYTES`: whoever sends so small ones is not read on before others had their turn."""

MAX_PONG_BYTES: Final = 4 * 1024
"""Pongs that wait for a write: thirty of the largest size."""


class WebSocket:
    """One task receives, any may send, `keep` runs beside them for as long as the link lives.

    Whoever ends it, the first reason stays: `ended` is set, and both verbs raise `LinkClosed`.
    """

    __slots__ = (
        "_app_waits",
        "_arrival",
        "_control",
        "_is_client",
        "_keeping",
        "_max_message_bytes",
        "_messages",
        "_parting",
        "_reader",
        "_reading",
        "_said_goodbye",
        "_taken",
        "_transport",
        "_turns",
        "_violation_code",
        "_waiting_bytes",
        "_writing",
        "close_code",
        "close_reason",
        "ended",
        "fault",
    )

    def __init__(
        self,
        transport: Transport,
        *,
        is_client: bool,
        max_message_bytes: int,
        rhythm: Rhythm,
        violation_code: int | None = None,
        unread: bytes = b"",
        parting: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
    ) -> None:
        """`unread` came right behind the handshake. `violation_code` is said on broken framing in place of RFC 6455's
        1002 and 1007. `parting` is awaited when reading finds the link lost, before anybody is told.
        """
        self._transport = transport
        self._is_client = is_client
        self._max_message_bytes = max_message_bytes
        self._keeping = Keeping(rhythm)
        self._violation_code = violation_code
        self._parting = parting
        self._reader = FrameReader(masked=not is_client, max_message_bytes=max_message_bytes)
        self._messages: deque[str | bytes] = deque()
        self._waiting_bytes = 0
        self._taken = 0  # messages handed over since the last checkpoint
        self._reading = False
        self._app_waits = False
        self._arrival = trio.lowlevel.ParkingLot()
        self._writing = False
        self._turns = trio.lowlevel.ParkingLot()
        self._control = b""  # pongs, a ping or a goodbye, which go out with the next write
        self._said_goodbye = False
        self.ended = trio.Event()
        self.close_code: int | None = None
        self.close_reason = ""
        self.fault: Fault | None = None
        if unread:
            self._take(unread)

    # --- in

    @property
    def is_in_use(self) -> bool:
        """Somebody reads or writes the connection, and has not noticed yet if the link has ended."""
        return self._reading or self._writing

    @property
    def last_received_at(self) -> float:
        """When the last bytes came, on trio's clock."""
        return self._keeping.last_heard_at

    async def receive(self) -> list[str | bytes]:
        """The messages that have come: at least one, at most `MESSAGES_AT_ONCE`. A checkpoint; cancelling loses none.

        Raises `LinkClosed` after the last one.
        """
        if self._messages:
            await trio.lowlevel.checkpoint()
        else:
            await self._until_one_comes()
        batch = list(islice(self._messages, MESSAGES_AT_ONCE))
        for message in batch:
            self._messages.popleft()
            self._waiting_bytes -= len(message)
        return batch

    async def receive_one(self) -> str | bytes:
        """The next message. A checkpoint, but for messages that came together at every `MESSAGES_AT_ONCE`th only."""
        self._taken += 1
        if not self._messages:
            self._taken = 0
            await self._until_one_comes()
        elif self._taken >= MESSAGES_AT_ONCE:
            self._taken = 0
            await trio.lowlevel.checkpoint()
        message = self._messages.popleft()
        self._waiting_bytes -= len(message)
        return message

    async def _until_one_comes(self) -> None:
        if self._control:
            await self.write_control()  # a ping or a goodbye came with the handshake
        while not self._messages:
            if self.ended.is_set() or self._reader.is_over:
                await trio.lowlevel.checkpoint()
                raise self._closed()
            if self._reading:  # `keep` has begun to
                self._app_waits = True
                try:
                    await self._arrival.park()
                finally:
                    self._app_waits = False
            else:
                await self.read_some(until=inf)

    async def read_some(self, *, until: float) -> None:
        """One read, given up at `until`; what it brings is taken and answered before this returns.

        For `receive`, and for `keep` while nobody else reads.
        """
        self._reading = True
        try:
            if until == inf:
                data = await self._transport.receive()
            else:
                with trio.CancelScope(deadline=until) as waiting:
                    data = await self._transport.receive()
                if waiting.cancelled_caught:
                    self._arrival.unpark_all()  # whoever waits for messages reads by itself from now on
                    return
            if data:
                self._keeping.heard()
                await self._take_all(data)
            else:
                await self._lose()
        except ConnectionLost:
            await self._lose()
        finally:
            self._reading = False
        self._arrival.unpark_all()
        if self._control:
            await self.write_control()

    async def _lose(self) -> None:
        await self._parting()
        self._end(None, "")

    async def _take_all(self, data: bytes) -> None:
        """64 KiB may be ten thousand empty frames: others get their turn between them."""
        for start in range(0, len(data), TAKEN_BYTES):
            count = self._take(data[start : start + TAKEN_BYTES])
            if count > MANY_EVENTS and start + TAKEN_BYTES < len(data):
                await trio.lowlevel.cancel_shielded_checkpoint()  # what was read must not be lost

    def _take(self, data: bytes) -> int:
        """Returns how many frames came of it."""
        events = self._reader.feed(data)
        for event in events:
            if isinstance(event, str | bytes):
                self._messages.append(event)
                self._waiting_bytes += len(event)
            elif isinstance(event, Ping):
                if len(self._control) >= MAX_PONG_BYTES:
                    self._control = b""  # of a flood only the last wants an answer (RFC 6455 §5.5.3)
                self._control += self._frame(PONG, event.payload)
            elif isinstance(event, Close):
                self._hear_goodbye(event.code, event.reason, answer=close_payload(event.code, ""))
            elif isinstance(event, Flaw):
                self.fault = Fault.BROKE_A_RULE
                code = event.code if event.code is Code.TOO_BIG else self._violation_code or event.code
                self._hear_goodbye(code, event.reason, answer=close_payload(code, event.reason))
            else:
                assert isinstance(event, Pong)  # noqa: S101 - as any byte, it was life; nothing else is asked of it
        return len(events)

    def _hear_goodbye(self, code: int, reason: str, *, answer: bytes) -> None:
        if self._said_goodbye:
            self._end(code, reason)
            return
        self.close_code, self.close_reason = code, reason
        self._said_goodbye = True
        self._control += self._frame(CLOSE, answer)

    # --- out

    async def send(self, messages: Sequence[str | bytes], sent: Sent | None = None) -> None:
        """Hands messages to the kernel, in order and as one write; `sent` is filled in however this ends.

        Raises `LinkClosed`. Cancelled before its first byte, nothing has happened; cancelled behind it, the link
        is reset, since nobody could tell the rest of a frame from the next one. So is a peer that does not read.
        """
        frames = [message_frame(message, os.urandom(4) if self._is_client else None) for message in messages]
        if self._writing:
            await self._turn()
        if self._said_goodbye or self.ended.is_set():
            await trio.lowlevel.checkpoint()
            raise self._closed()
        transport = self._transport
        start = transport.handed_over + len(self._control)
        try:
            await self._write(frames[0] if len(frames) == 1 else b"".join(frames))
        finally:
            if sent is not None:
                sent.measure(frames, certain=transport.handed_over - start, possible=transport.begun - start)

    async def close(self, code: int = Code.NORMAL, reason: str = "") -> None:
        """Says goodbye, once. What the peer had sent before can still be received, up to its own goodbye.

        Raises `LinkClosed` if the link had ended before, or does not take it. Cancelling: as with `send`.
        """
        if self._writing:
            await self._turn()
        if self.ended.is_set():
            raise self._closed()
        if self._said_goodbye:
            return
        before = self._transport.begun
        self._said_goodbye = True
        self.close_code, self.close_reason = code, reason
        try:
            await self._write(self._frame(CLOSE, close_payload(code, reason)))
        except trio.Cancelled:
            if self._transport.begun == before and not self.ended.is_set():  # not said after all
                self._said_goodbye = False
                self.close_code, self.close_reason = None, ""
            raise

    def abort(self) -> None:
        """Resets the connection now; whoever waits here is told. Idempotent, from any task."""
        self._end(None, "")
        self._transport.abort()

    async def _turn(self) -> None:
        while self._writing:
            await self._turns.park()

    async def _write(self, data: bytes) -> None:
        """Only while nobody else writes. What waits in `_control` goes first, and what comes there meanwhile next; what
        comes during that is left, or a peer that pings without end would hold the writer.
        """
        transport = self._transport
        self._writing = True
        try:
            for _ in range(2):
                if not (data or self._control):
                    break
                control, self._control = self._control, b""
                before = transport.begun
                try:
                    await transport.send(control + data if control else data)
                except trio.Cancelled:
                    if transport.begun == before:
                        self._control = control + self._control
                    else:
                        self.abort()
                    raise
                data = b""
        except NotReading as error:
            self._give_up(Fault.DOES_NOT_READ, str(error))
            raise self._closed() from None
        except ConnectionLost:
            self._end(None, "")
            raise self._closed() from None
        finally:
            self._writing = False
            self._turns.unpark_all()  # all: one that finds the link closed wakes no other
        if self._said_goodbye and self._reader.is_over:
            self._end(self.close_code, self.close_reason)

    async def write_control(self) -> None:
        """Writes pongs, a ping and a goodbye that wait; whoever is writing now does it without being asked."""
        if self._control and not self._writing:
            with suppress(LinkClosed):  # whoever receives or sends is told the same
                await self._write(b"")

    def _frame(self, opcode: int, payload: bytes) -> bytes:
        return frame(opcode, payload, os.urandom(4) if self._is_client else None)

    # --- life and end

    async def keep(self) -> None:
        """Asks a silent peer for a sign of life, gives up one that is gone, and reads ahead while the app is busy
        elsewhere. Returns when the link has ended.
        """
        await self._keeping.keep(self)

    @property
    def is_read_otherwise(self) -> bool:
        """By the app, which may have come back while a pong was being written; or there is nothing more to read."""
        return self._app_waits or self._reading or self._reader.is_over or self.ended.is_set()

    @property
    def is_full(self) -> bool:
        """The app is so far behind that reading pauses."""
        return self._waiting_bytes >= READ_AHEAD_BYTES or len(self._messages) >= READ_AHEAD_MESSAGES

    def ask(self) -> bool:
        """Lets a ping go out with the next write; false while somebody writes, and behind our goodbye."""
        if self._writing or self._said_goodbye:
            return False
        self._control += self._frame(PING, b"")
        return True

    def give_up(self, reason: str) -> None:
        """Ends the link: its peer is gone."""
        self._give_up(Fault.GONE, reason)

    def _give_up(self, fault: Fault, reason: str) -> None:
        if not self.ended.is_set():
            self.fault = fault
            self._end(None, reason)
        self._transport.abort()

    def _closed(self) -> LinkClosed:
        return LinkClosed(self.close_code, self.close_reason, self.fault)

    def _end(self, code: int | None, reason: str) -> None:
        if not self.ended.is_set():
            if self.close_code is None:
                self.close_code, self.close_reason = code, reason
            self.ended.set()
            self._arrival.unpark_all()
