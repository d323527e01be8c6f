"""What waits for the writer of one session, in lanes, so that the proof of a stop never queues behind megabytes."""

from collections import OrderedDict, deque
from typing import NamedTuple
from uuid import UUID

import trio

from skygw.protocol.codec import encode
from skygw.protocol.node_frames import PublishSnapshot, SnapshotStream

MAX_CONTROL = 1_024
"""Pongs, errors, refusals: at most 1,024 × 64 KiB, in practice 1,024 × 200 bytes."""

MAX_DURABLE = 32
"""Read ahead from the disk: 32 × 64 KiB = 2 MiB."""

MAX_CHUNKS = 8
"""Of direct responses, all calls together: 8 × 256 KiB = 2 MiB."""

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


class ControlLaneFull(Exception):
    """The peer keeps asking and does not read the answers: the session ends."""


class Lanes:
    """Filled by many tasks, emptied by one writer. Order: control, durable, snapshots, direct responses."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots
        self._control: deque[str] = deque()
        self._durable_in, self._durable = trio.open_memory_channel[str](MAX_DURABLE)
        self._chunks_in, self._chunks = trio.open_memory_channel[Queued](MAX_CHUNKS)
        self._wake = trio.Event()

    def control(self, message: str) -> None:
        """Raises `ControlLaneFull`."""
        if len(self._control) >= MAX_CONTROL:
            raise ControlLaneFull
        self._control.append(message)
        self._wake.set()

    async def durable(self, message: str) -> None:
        """Waits for room."""
        await self._durable_in.send(message)
        self._wake.set()

    async def chunk(self, queued: Queued) -> None:
        """Waits for room."""
        await self._chunks_in.send(queued)
        self._wake.set()

    def wake(self) -> None:
        """There is a snapshot to send."""
        self._wake.set()

    async def wait(self) -> None:
        """Returns when `take` may find something."""
        await self._wake.wait()
        self._wake = trio.Event()

    def take(self) -> str | bytes | None:
        """The next message, or `None` when every lane is empty."""
        if self._control:
            return self._control.popleft()
        try:
            return self._durable.receive_nowait()
        except trio.WouldBlock:
            pass
        snapshot = self._snapshots.next_due()
        if snapshot is not None:
            return encode(snapshot)
        while True:
            try:
                queued = self._chunks.receive_nowait()
            except trio.WouldBlock:
                return None
            if not queued.call.abandoned:
                return queued.message
