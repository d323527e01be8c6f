"""The latest snapshot of every resource, newest by (session epoch, `live_seq`), never by anybody's clock."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from skygw.ids import Epoch, InstallId
from skygw.protocol.node_frames import PublishSnapshot, SnapshotStream

MAX_RESOURCES_PER_INSTALLATION = 1_000
"""Of all streams together; a real node has a few dozen of 1 KiB."""

MAX_BYTES_PER_INSTALLATION = 8 * 1024 * 1024

MAX_INSTALLATIONS = 10_000
"""× a few dozen KiB. Beyond it the one that has been silent longest is forgotten, as one that left for good is."""


class Retained(NamedTuple):
    """One snapshot. `data` is the text as it came; `max_silence_s` is what the node promised."""

    stream: SnapshotStream
    uid: str
    data: str
    observed_at: datetime
    received_at: datetime
    max_silence_s: float | None
    order: tuple[Epoch, int]


class _Installation:
    """What is held of one installation, the size of its texts, and when it was last heard, in snapshots of all."""

    __slots__ = ("heard", "size", "snapshots")

    def __init__(self) -> None:
        self.snapshots: dict[tuple[SnapshotStream, str], Retained] = {}
        self.size = 0
        self.heard = 0


class RetainedSnapshots:
    """In memory. One installation's snapshots cannot crowd out another's. `refused` is told of each one not taken."""

    def __init__(self, *, refused: Callable[[], None] = lambda: None) -> None:
        self._held: dict[InstallId, _Installation] = {}
        self._heard = 0
        self._refused = refused

    def offer(self, install_id: InstallId, epoch: Epoch, frame: PublishSnapshot) -> None:
        """Keeps a snapshot unless a newer one is held. One without a `uid`, or beyond the limits, is counted."""
        data = frame.data
        uid = data.value.get("uid")
        if not isinstance(uid, str) or not 1 <= len(uid) <= 64:
            self._refused()
            return
        held = self._held.get(install_id) or self._new(install_id)
        self._heard += 1
        held.heard = self._heard
        key = (frame.stream, uid)
        before = held.snapshots.get(key)
        order = (epoch, frame.live_seq)
        size = held.size + len(data.text)
        if before is not None:
            if before.order >= order:
                return
            size -= len(before.data)
        elif len(held.snapshots) >= MAX_RESOURCES_PER_INSTALLATION:
            self._refused()
            return
        if size > MAX_BYTES_PER_INSTALLATION:
            self._refused()
            return
        held.size = size
        held.snapshots[key] = Retained(
            frame.stream, uid, data.text, frame.observed_at, datetime.now(UTC), frame.max_silence_s, order
        )

    def _new(self, install_id: InstallId) -> _Installation:
        if len(self._held) >= MAX_INSTALLATIONS:
            del self._held[min(self._held, key=lambda one: self._held[one].heard)]
        held = self._held[install_id] = _Installation()
        return held

    def of(self, install_id: InstallId) -> Iterator[Retained]:
        """Everything held of one installation."""
        held = self._held.get(install_id)
        return iter(() if held is None else list(held.snapshots.values()))
