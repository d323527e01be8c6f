"""What waits to be written to one socket: bounded lanes, safing before everything (house rule: one writer)."""

from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Literal

import trio

from skygw.nodes.shares import share_of
from skygw.nodes.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable

KIB = 1024


class Lane(IntEnum):
    """In the order they are written."""

    SAFING = 0
    SAFETY = 1
    """What a node must know to keep its telescope safe: the roof and the weather, as others see them."""
    CONTROL = 2
    DATA = 3
    """What callers send. They take turns here, and none can fill it alone."""

    @property
    def label(self) -> Literal["safing", "safety", "control", "data"]:
        """Its name for people and numbers."""
        match self:
            case Lane.SAFING:
                return "safing"
            case Lane.SAFETY:
                return "safety"
            case Lane.CONTROL:
                return "control"
            case Lane.DATA:
                return "data"


LANE_BYTES: dict[Lane, int] = {
    Lane.SAFING: 4096 * KIB,
    Lane.SAFETY: 512 * KIB,
    Lane.CONTROL: 1024 * KIB,
    Lane.DATA: 4096 * KIB,
}
"""What one socket can hold in memory: 9.5 MiB. Callers can fill 4 of them with data, and 4 with stops. A full safing
lane ends the session, and no stop may do that to another: a dozen telescopes fit five times over, with stops of the
largest size (63 × (64 KiB + `PARCEL_OVERHEAD`)), and 6,000 stops of the usual 400 bytes."""

PARCEL_OVERHEAD = 256
"""Counted with each message, so that many small ones are bounded too: 4 MiB of data lane is at most 16,384."""

BATCH_BYTES = 16 * KIB
"""What is written at once: what comes meanwhile, a stop most of all, waits for no more than this."""


class ParcelState(Enum):
    WAITING = "waiting"
    WRITING = "writing"
    WRITTEN = "written"
    WITHDRAWN = "withdrawn"
    """Never begun to be written, and never will be."""
    DOUBTFUL = "doubtful"
    """The link died, or the write was cut, while it was being written."""


class Parcel:
    """One message on its way out, and what is known of it."""

    __slots__ = ("_settled", "caller", "cost", "lane", "message", "on_settled", "state")

    def __init__(self, lane: Lane, message: str | bytes, caller: str = "") -> None:
        self.lane = lane
        self.message = message
        self.caller = caller
        # Characters are not bytes; ASCII, which most messages are, is counted without a copy.
        size = len(message) if isinstance(message, bytes) or message.isascii() else len(message.encode())
        self.cost = size + PARCEL_OVERHEAD
        self.state = ParcelState.WAITING
        self.on_settled: Callable[[Parcel], None] | None = None
        self._settled: trio.Event | None = None  # made by the first who waits: most have nobody

    @property
    def surely_not_sent(self) -> bool:
        return self.state in (ParcelState.WAITING, ParcelState.WITHDRAWN)

    def withdraw(self) -> bool:
        """Takes it back if not a byte was handed over. Returns whether that is certain."""
        if self.state is ParcelState.WAITING:
            self.settle(ParcelState.WITHDRAWN)
        return self.state is ParcelState.WITHDRAWN

    def settle(self, state: ParcelState) -> None:
        self.state = state
        if state is not ParcelState.WRITING:
            if self._settled is not None:
                self._settled.set()
            if self.on_settled is not None:
                self.on_settled(self)

    async def settled(self) -> ParcelState:
        """Waits until it is written, withdrawn or in doubt. Cancelling changes nothing."""
        if self.state in (ParcelState.WAITING, ParcelState.WRITING):
            if self._settled is None:
                self._settled = trio.Event()
            await self._settled.wait()
        else:
            await trio.lowlevel.checkpoint()
        return self.state


class OutboxFull(Exception):
    """The peer does not take what it is sent. `caller` is who has used up its share, if that is why."""

    def __init__(self, message: str, caller: str | None = None) -> None:
        super().__init__(message)
        self.caller = caller


class OutboxClosed(Exception):
    """The session is ending and takes nothing more."""


class Outbox:
    """`put` never waits; one writer takes with `next`. `caller` is whose message it is; it counts in the data lane."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, Turns] = {lane: Turns() for lane in Lane}
        self._wake = trio.Event()
        self._closed = False

    def queued_bytes(self, lane: Lane) -> int:
        return self._lanes[lane].bytes

    def check_room(self, lane: Lane, size: int, caller: str = "") -> None:
        """Raises what `put` would raise for a message of `size` bytes."""
        if self._closed:
            raise OutboxClosed
        self._check(lane, size + PARCEL_OVERHEAD, caller)

    def put(self, lane: Lane, message: str | bytes, caller: str = "") -> Parcel:
        """Queues a message. Raises `OutboxFull` or `OutboxClosed`, and then nothing was queued."""
        if self._closed:
            raise OutboxClosed
        parcel = Parcel(lane, message, caller if lane is Lane.DATA else "")
        self._check(lane, parcel.cost, caller)
        self._lanes[lane].append(parcel)
        self._wake.set()
        return parcel

    def _check(self, lane: Lane, cost: int, caller: str) -> None:
        waiting = self._lanes[lane]
        if waiting.bytes + cost > LANE_BYTES[lane]:
            raise OutboxFull(f"{waiting.bytes} bytes wait in the {lane.label} lane already")
        if lane is Lane.DATA and (own := waiting.used_by(caller)):
            share = share_of(LANE_BYTES[lane] - (waiting.bytes - own))
            if own + cost > share:
                raise OutboxFull(
                    f"{own} bytes of {caller or 'the gateway'} wait already, and its share is {share}", caller
                )

    def close(self) -> None:
        """Takes nothing more; safing and control that wait are still written, data is withdrawn."""
        self._closed = True
        for parcel in self._lanes[Lane.DATA]:
            parcel.withdraw()
        self._wake.set()

    def abandon(self) -> None:
        """Nothing that waits will be written."""
        self.close()
        for parcels in self._lanes.values():
            for parcel in parcels:
                parcel.withdraw()
            parcels.clear()

    async def next(self, *, at_most: int = BATCH_BYTES) -> list[Parcel]:
        """What to write next: the most urgent first, as much as fits `at_most` and at least one; empty when closed and
        nothing waits. Lets others run only while nothing waits: the write that follows does. Cancelling loses nothing.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            batch = self._take(at_most)
            if batch or self._closed:
                return batch
            self._wake = trio.Event()
            await self._wake.wait()

    def _take(self, at_most: int) -> list[Parcel]:
        batch: list[Parcel] = []
        for parcels in self._lanes.values():
            while parcels:
                parcel = parcels.first()
                if parcel.state is not ParcelState.WAITING:
                    parcels.take(keep_turn=True)
                    continue
                if batch and parcel.cost > at_most:
                    return batch
                parcels.take()
                parcel.settle(ParcelState.WRITING)
                batch.append(parcel)
                at_most -= parcel.cost
        return batch
