"""One direction of one connection over a bad line: bytes wait for their turn, fly, and are delivered, in order."""

from collections import deque
from contextlib import suppress
from enum import Enum, auto
from math import inf
from typing import NamedTuple

import trio

from skygw.sim.line import Line, Way
from skygw.sim.mishaps import Mishaps
from skygw.sim.traffic import Traffic

RECEIVE_BYTES = 64 * 1024
SLOW_READ_S = 0.1
"""A slow reader takes what it may have in this time, and waits as long."""


class End(Enum):
    """How a direction ended."""

    FINISHED = auto()
    """The sender finished and everything has been delivered: the receiver may be told."""
    SENDER_GONE = auto()
    """The sender broke the connection; what it had sent before has been delivered."""
    RECEIVER_GONE = auto()
    """What came could not be delivered."""
    VANISHED = auto()
    """The sender ended while its bytes vanished: the receiver must not know."""


class _Flying(NamedTuple):
    arrives_at: float
    what: bytes | End


class Pipe:
    """Takes from `source` and delivers to `target`. Bounded by its share of the line's queue and by what a line of
    this rate and length can hold. `mishaps` is for this direction of this connection alone.
    """

    def __init__(
        self,
        source: trio.abc.ReceiveStream,
        target: trio.abc.SendStream,
        *,
        line: Line,
        way: Way,
        traffic: Traffic,
        mishaps: Mishaps,
    ) -> None:
        self._source = source
        self._target = target
        self._way = way
        self._traffic = traffic
        self._mishaps = mishaps
        self._latency_s = traffic.course.latency_s
        self._retransmit_s = line.retransmit_s
        self._flight_bytes = line.flight_bytes(way)
        self._queue = bytearray()
        self._queued_since = -inf
        self._ending: End | None = None
        self._flight: deque[_Flying] = deque()
        self._flying = 0
        self._last_arrives_at = -inf
        self._taken = 0
        self._sent = 0
        self._moved = trio.lowlevel.ParkingLot()
        self._work = trio.CancelScope()
        self.vanishing = False

    @property
    def held(self) -> int:
        """Bytes in here now."""
        return len(self._queue) + self._flying

    def vanish(self) -> None:
        """From now on nothing arrives, neither bytes nor the end; what is on its way neither."""
        self.vanishing = True
        self._queue.clear()
        self._flight.clear()
        self._flying = 0
        self._moved.unpark_all()
        if self._ending is not None:
            self._work.cancel()

    async def run(self) -> End:
        """Until the direction ends. Cancelled, what is on its way is lost."""
        end = End.VANISHED
        with self._work:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._take_in)
                nursery.start_soon(self._send)
                end = await self._deliver()
                nursery.cancel_scope.cancel()
        return end

    async def swallow(self) -> None:
        """After `run`: takes what the sender still sends and drops it, until it ends."""
        self.vanish()
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while await self._source.receive_some(RECEIVE_BYTES):
                pass

    async def _take_in(self) -> None:
        ending = End.FINISHED
        try:
            while data := await self._receive():
                self._take(bytearray(data))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            ending = End.SENDER_GONE
        self._ending = ending
        self._moved.unpark_all()
        if self.vanishing:
            self._work.cancel()

    async def _receive(self) -> bytes | bytearray:
        while (room := self._traffic.queue_share - len(self._queue)) <= 0:
            await self._moved.park()
        rate = self._traffic.read_bytes_per_s
        if rate == inf:
            return await self._source.receive_some(min(room, RECEIVE_BYTES))
        at_once = max(1, int(rate * SLOW_READ_S))
        data = await self._source.receive_some(min(room, at_once))
        await trio.sleep(len(data) / rate)
        return data

    def _take(self, data: bytearray) -> None:
        begin, self._taken = self._taken, self._taken + len(data)
        if self.vanishing:
            return
        due = {place for place in self._traffic.flip_at if begin <= place < self._taken}
        self._traffic.flip_at -= due
        for place in due.symmetric_difference(self._mishaps.flips(begin, self._taken)):
            data[place - begin] ^= self._mishaps.bit(place)
            self._traffic.counts.flips += 1
        if not self._queue:
            self._queued_since = trio.current_time()
        self._queue += data
        self._moved.unpark_all()

    async def _send(self) -> None:
        while self._queue or self._ending is None:
            if not self._queue or self._flying >= self._flight_bytes:
                await self._moved.park()
                continue
            await self._traffic.gate.wait_open()
            size = min(len(self._queue), self._traffic.course.turn_bytes)
            left_at = await self._traffic.bottleneck.carry(size, waiting_since=self._queued_since)
            self._launch(size, left_at)
        self._flight.append(_Flying(max(trio.current_time() + self._latency_s, self._last_arrives_at), self._ending))
        self._moved.unpark_all()

    def _launch(self, size: int, left_at: float) -> None:
        piece = bytes(self._queue[:size])  # nothing, if it vanished while it waited
        if not piece:
            return
        del self._queue[:size]
        begin, self._sent = self._sent, self._sent + size
        lost = self._mishaps.losses(begin, self._sent)
        self._traffic.counts.losses += lost
        late_s = self._mishaps.jitter_s(begin) + lost * self._retransmit_s
        self._last_arrives_at = max(self._last_arrives_at, left_at + self._latency_s + late_s)
        self._flight.append(_Flying(self._last_arrives_at, piece))
        self._flying += size
        self._moved.unpark_all()

    async def _deliver(self) -> End:
        while True:
            while not self._flight:
                await self._moved.park()
            await trio.sleep_until(self._flight[0].arrives_at)
            await self._traffic.gate.wait_open()
            if not self._flight:  # vanished
                continue
            what = self._flight.popleft().what
            if isinstance(what, End):
                return what
            try:
                await self._target.send_all(what)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return End.RECEIVER_GONE
            self._flying = max(0, self._flying - len(what))
            self._count(len(what))
            self._moved.unpark_all()

    def _count(self, size: int) -> None:
        if self._way is Way.UP:
            self._traffic.counts.bytes_up += size
        else:
            self._traffic.counts.bytes_down += size
