"""Brings the outbox to the hub during one session: in order, within the hub's window, from where it left off."""

import logging
import sqlite3
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import trio

from skygw.client.journal import Row
from skygw.client.lanes import Lanes, Report
from skygw.client.link import LinkEnded
from skygw.client.outbox import Outbox
from skygw.protocol.codec import encode
from skygw.protocol.json_text import Opaque
from skygw.protocol.limits import Limits
from skygw.protocol.node_frames import PublishGap

RETRY_S = 5.0

SHARE = 0.8
"""What a backlog takes of what the hub lets one installation send; the rest is for what is published meanwhile."""

AHEAD_S = 1.0
"""So much of it may come at once, each time the link is new."""

log = logging.getLogger("skygw.client")


class DurableSender:
    """One per session. `acked` and `nacked` are for the reader and never wait. `hub_has` is the welcome's cursor.

    A disk that fails is tried again: the session must stay, because a stop comes over it.
    """

    def __init__(self, outbox: Outbox, lanes: Lanes, limits: Limits, *, hub_has: int) -> None:
        self._outbox = outbox
        self._lanes = lanes
        self._limits = limits
        self._pace = Pace(
            frames_per_s=limits.frames_per_s * limits.reports_per_frame * SHARE,
            bytes_per_s=limits.bytes_per_s * SHARE,
        )
        self._in_flight: deque[Row] = deque()
        self._in_flight_bytes = 0
        self._nacked: set[int] = set()
        self._confirmed = hub_has
        self._moved = trio.Event()
        self._told = False

    def acked(self, seq: int) -> None:
        """Everything up to `seq` is committed. An ack of what was not sent says nothing about it."""
        seq = min(seq, self._lanes.begun_seq)
        while self._in_flight and self._in_flight[0].seq <= seq:
            self._drop_first()

    def nacked(self, seq: int, reason: str) -> None:
        """The hub will never take this one; those before it may still wait for their ack."""
        if seq <= self._lanes.begun_seq and any(row.seq == seq for row in self._in_flight):
            log.warning("the hub refuses report %d for ever: %s", seq, reason, extra={"seq": seq, "reason": reason})
            self._nacked.add(seq)
        while self._in_flight and self._in_flight[0].seq in self._nacked:
            self._drop_first()

    def _drop_first(self) -> None:
        row = self._in_flight.popleft()
        self._in_flight_bytes -= row.size
        self._nacked.discard(row.seq)
        self._confirmed = row.seq
        self._moved.set()
        self._moved = trio.Event()

    async def run(self) -> None:
        """Sends and clears until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._clear)
            nursery.start_soon(self._send)

    async def _clear(self) -> None:
        while True:
            while self._confirmed <= self._outbox.acked:
                await self._moved.wait()
            with self._patient() as patience:
                await self._outbox.acknowledge(self._confirmed)
            await patience.wait()

    async def _send(self) -> None:
        sent = self._confirmed
        while True:
            await self._outbox.wait_beyond(sent)
            rows: list[Row] = []
            with self._patient() as patience:
                rows = await self._outbox.read(after=sent)
                if not rows:
                    raise LinkEnded("The journal has lost frames that it counted.")
            await patience.wait()
            for row in rows:
                await self._window(row.size)
                await self._pace.turn(row.size)
                self._in_flight.append(row)
                self._in_flight_bytes += row.size
                text = row.text if row.size <= self._limits.text_bytes else _too_large(row)
                await self._lanes.durable(Report(row.seq, text))
                sent = row.seq

    @contextmanager
    def _patient(self) -> Iterator["_Pause"]:
        pause = _Pause()
        try:
            yield pause
        except sqlite3.Error as error:
            if not self._told:
                log.error("the journal fails, and is tried again every %.0f s: %s", RETRY_S, error)  # noqa: TRY400
                self._told = True
            pause.needed = True

    async def _window(self, size: int) -> None:
        while self._in_flight and (
            len(self._in_flight) >= self._limits.unacked_frames
            or self._in_flight_bytes + size > self._limits.unacked_bytes
        ):
            await self._moved.wait()


class Pace:
    """So slow that a night's backlog is no flood, which would cost the link."""

    def __init__(self, *, frames_per_s: float, bytes_per_s: float) -> None:
        self._frames_per_s = frames_per_s
        self._bytes_per_s = bytes_per_s
        self._due = trio.current_time() - AHEAD_S

    async def turn(self, size: int) -> None:
        """Returns when a frame of `size` bytes may go."""
        cost_s = max(1 / self._frames_per_s, size / self._bytes_per_s)
        now = trio.current_time()
        self._due = max(self._due, now - AHEAD_S) + cost_s
        if self._due > now:
            await trio.sleep_until(self._due)


class _Pause:
    """Whether the disk failed, and the time to let it rest."""

    needed = False

    async def wait(self) -> None:
        if self.needed:
            await trio.sleep(RETRY_S)


def _too_large(row: Row) -> str:
    """A gateway with smaller limits than ours: the outbox must not stand still for ever behind one frame."""
    gap = PublishGap(seq=row.seq, data=Opaque.of({"reason": "too_large", "size": row.size}), observed_at=_now())
    return encode(gap)


def _now() -> datetime:
    return datetime.now(UTC)
