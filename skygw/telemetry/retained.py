"""The latest snapshot of every resource, newest by (session epoch, `live_seq`), never by anybody's clock."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from skygw.ids import Epoch, InstallId
from skygw.protocol.node_frames import PublishSnapshot, SnapshotStream

MAX_RESOURCES_PER_INSTALLATION = 1_000
"""Of all streams together; a real node has a few dozen of 1 KiB."""

MAX_BYTES_PER_INSTALLATION = 8 * 1024 * 1024

MAX_INSTALLATIONS = 10_000
"""× a few dozen KiB. Beyond it the one that has been silent longest is forgotten, as one that left for good is."""


@dataclass(frozen=True, slots=True)
class Retained:
    """One snapshot. `data` is the text as it came; `max_silence_s` is what the node promised."""

    stream: SnapshotStream
    uid: str
    data: str
    observed_at: datetime
    received_at: datetime
    max_silence_s: float | None
    order: tuple[Epoch, int]


class RetainedSnapshots:
    """In memory. One installation's snapshots cannot crowd out another's. `refused` is told of each one not taken."""

    def __init__(self, *, refused: Callable[[], None] = lambda: None) -> None:
        self._held: OrderedDict[InstallId, dict[tuple[SnapshotStream, str], Retained]] = OrderedDict()
        self._bytes: dict[InstallId, int] = {}
        self._refused = refused

    def offer(self, install_id: InstallId, epoch: Epoch, frame: PublishSnapshot) -> None:
        """Keeps a snapshot unless a newer one is held. One without a `uid`, or beyond the limits, is counted."""
        uid = frame.data.value.get("uid")
        if not isinstance(uid, str) or not 1 <= len(uid) <= 64:
            self._refused()
            return
        held = self._of_the_latest(install_id)
        key = (frame.stream, uid)
        before = held.get(key)
        order = (epoch, frame.live_seq)
        if before is not None and before.order >= order:
            return
        size = self._bytes.get(install_id, 0) + len(frame.data.text) - (0 if before is None else len(before.data))
        if (before is None and len(held) >= MAX_RESOURCES_PER_INSTALLATION) or size > MAX_BYTES_PER_INSTALLATION:
            self._refused()
            return
        self._bytes[install_id] = size
        held[key] = Retained(
            frame.stream, uid, frame.data.text, frame.observed_at, datetime.now(UTC), frame.max_silence_s, order
        )

    def _of_the_latest(self, install_id: InstallId) -> dict[tuple[SnapshotStream, str], Retained]:
        held = self._held.setdefault(install_id, {})
        self._held.move_to_end(install_id)
        while len(self._held) > MAX_INSTALLATIONS:
            silent, _ = self._held.popitem(last=False)
            self._bytes.pop(silent, None)
        return held

    def of(self, install_id: InstallId) -> Iterator[Retained]:
        """Everything held of one installation."""
        return iter(list(self._held.get(install_id, {}).values()))
