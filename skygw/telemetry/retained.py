"""The latest snapshot of every resource, newest by (session epoch, `live_seq`), never by anybody's clock."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from skygw.ids import Epoch, InstallId
from skygw.protocol.node_frames import PublishSnapshot, SnapshotStream
from skygw.resources import Unwanted

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


class Publisher(Protocol):
    """Whose snapshots they are."""

    @property
    def install_id(self) -> InstallId: ...


class RetainedSnapshots:
    """In memory. One installation's snapshots cannot crowd out another's."""

    def __init__(self) -> None:
        self._held: dict[InstallId, _Installation] = {}
        self._heard = 0

    def offer(self, binding: Publisher, epoch: Epoch, frame: PublishSnapshot) -> Unwanted | None:
        """Keeps a snapshot unless a newer one is held. One without a `uid`, or beyond the limits, is refused."""
        install_id = binding.install_id
        data = frame.data
        uid = data.value.get("uid")
        if not isinstance(uid, str) or not 1 <= len(uid) <= 64:
            return Unwanted("invalid", "A snapshot needs the `uid` of its resource in `data`.")
        held = self._held.get(install_id) or self._new(install_id)
        self._heard += 1
        held.heard = self._heard
        key = (frame.stream, uid)
        before = held.snapshots.get(key)
        order = (epoch, frame.live_seq)
        size = held.size + len(data.text)
        if before is not None:
            if before.order >= order:
                return None
            size -= len(before.data)
        elif len(held.snapshots) >= MAX_RESOURCES_PER_INSTALLATION:
            return Unwanted("quota_exceeded", "So many resources, or so large snapshots, are not kept for one node.")
        if size > MAX_BYTES_PER_INSTALLATION:
            return Unwanted("quota_exceeded", "So many resources, or so large snapshots, are not kept for one node.")
        held.size = size
        held.snapshots[key] = Retained(
            frame.stream, uid, data.text, frame.observed_at, datetime.now(UTC), frame.max_silence_s, order
        )
        return None

    def _new(self, install_id: InstallId) -> _Installation:
        if len(self._held) >= MAX_INSTALLATIONS:
            del self._held[min(self._held, key=lambda one: self._held[one].heard)]
        held = self._held[install_id] = _Installation()
        return held

    def of(self, install_id: InstallId) -> Iterator[Retained]:
        """Everything held of one installation."""
        held = self._held.get(install_id)
        return iter(() if held is None else list(held.snapshots.values()))
