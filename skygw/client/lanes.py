"""What waits for the writer of one session, in lanes, so that the proof of a stop never queues behind megabytes."""

from collections import OrderedDict, deque
from typing import Generic, NamedTuple, TypeVar
from uuid import UUID

import trio

from skygw.client.piece_size import PieceSize
from skygw.protocol.codec import encode
from skygw.protocol.limits import KIB
from skygw.protocol.node_frames import PublishSnapshot, SnapshotStream

MAX_CONTROL = 1_024
"""Pongs, errors, refusals: at most 1,024 × 64 KiB, in practice 1,024 × 200 bytes."""

MAX_DURABLE = 32
"""Read ahead from the disk: 32 × 64 KiB = 2 MiB."""

MAX_CHUNKS = 8
"""Of direct responses, all calls together: 8 × 256 KiB = 2 MiB."""

BATCH_BYTES = 16 * KIB
"""What is written at once: what comes meanwhile, the proof of a stop most of all, waits for no more than this, or for
one message that is larger."""

MAX_RESOURCES = 4_096
"""Snapshots kept, one for each (stream, uid)."""


class Snapshots:
    """The newest snapshot of every resource, and which of them the hub has not been sent yet.

    Belongs to the client, not to a session: after every welcome all of them are sent again.
    """

    def __init__(self) -> None:
        self._latest: dict[tuple[SnapshotStream, str], PublishSnapshot] = {}
        self._due: OrderedDict[tuple[SnapshotStream, str], None] = OrderedDict()

    def put(self, uid: str, frame: PublishSnapshot) -> None:
        """Replaces what was there; its place in the queue stays. Raises `ValueError` beyond `MAX_RESOURCES`."""
        key = (frame.stream, uid)
        if key not in self._latest and len(self._latest) >= MAX_RESOURCES:
            raise ValueError(f"Snapshots of more than {MAX_RESOURCES} resources.")
        self._latest[key] = frame
        self._due.setdefault(key)

    def all_due(self) -> None:
        """After a welcome: everything is sent."""
        self._due = OrderedDict.fromkeys(self._latest)

    def next_due(self) -> PublishSnapshot | None:
        if not self._due:
            return None
        key, _ = self._due.popitem(last=False)
        return self._latest[key]


class Recipient:
    """One direct call as the lanes see it: what is queued for a call nobody waits for is not sent."""

    def __init__(self, call_id: UUID) -> None:
        self.id = call_id
        self.abandoned = False


class Queued(NamedTuple):
    """A message of a direct response."""

    call: Recipient
    message: str | bytes


class Report(NamedTuple):
    """A durable frame."""

    seq: int
    text: str


class ControlLaneFull(Exception):
    """The peer keeps asking and does not read the answers: the session ends."""


class Lanes:
    """Filled by many tasks, emptied by one writer. Order: control, durable, snapshots, direct responses."""

    def __init__(self, snapshots: Snapshots) -> None:
        self.pieces = PieceSize()
        """How large the chunks of direct responses should be."""
        self.begun_seq = 0
        """Every report up to this one has been given to the writer, and no other: an ack can mean no more."""
        self._snapshots = snapshots
        self._control: deque[str] = deque()
        self._durable = _Lane[Report](MAX_DURABLE)
        self._chunks = _Lane[Queued](MAX_CHUNKS)
        self._wake = trio.Event()

    def control(self, message: str) -> None:
        """Raises `ControlLaneFull`."""
        if len(self._control) >= MAX_CONTROL:
            raise ControlLaneFull
        self._control.append(message)
        self._wake.set()

    async def durable(self, report: Report) -> None:
        """Waits for room."""
        await self._durable.put(report)
        self._wake.set()

    async def chunk(self, queued: Queued) -> None:
        """Waits for room."""
        await self._chunks.put(queued)
        self._wake.set()

    def wake(self) -> None:
        """There is a snapshot to send."""
        self._wake.set()

    async def wait(self) -> None:
        """Returns when `take` may find something."""
        await self._wake.wait()
        self._wake = trio.Event()

    def take(self) -> list[str | bytes]:
        """What to write next: as much as fits `BATCH_BYTES`, on a slow uplink the size of a piece, and at least one
        message; empty when every lane is.
        """
        batch: list[str | bytes] = []
        room = min(BATCH_BYTES, self.pieces.bytes)
        while room > 0:
            message = self._next(room if batch else None)
            if message is None:
                break
            batch.append(message)
            room -= len(message)
        return batch

    def _next(self, room: int | None) -> str | bytes | None:
        if self._control:
            return self._control.popleft()
        report = self._durable.first()
        if report is not None:
            self._durable.pop()
            self.begun_seq = report.seq
            return report.text
        snapshot = self._snapshots.next_due()
        if snapshot is not None:
            return encode(snapshot)
        while (queued := self._chunks.first()) is not None:
            if room is not None and len(queued.message) > room and not queued.call.abandoned:
                return None  # a write of its own: what is urgent goes before it
            self._chunks.pop()
            if not queued.call.abandoned:
                return queued.message
        return None


ItemT = TypeVar("ItemT")


class _Lane(Generic[ItemT]):
    """A queue whose `put` waits for room, and is no checkpoint while there is some."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._items: deque[ItemT] = deque()
        self._waiting = trio.lowlevel.ParkingLot()

    async def put(self, item: ItemT) -> None:
        while len(self._items) >= self._places:
            await self._waiting.park()
        self._items.append(item)

    def first(self) -> ItemT | None:
        return self._items[0] if self._items else None

    def pop(self) -> None:
        self._items.popleft()
        if self._waiting:
            self._waiting.unpark()
