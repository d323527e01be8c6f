"""Whether somebody on site has taken control: set by a switch there and by nothing else, and told to the hub."""

from typing import Any

import trio

from skygw.protocol.node_frames import NodeType, SnapshotStream


class LocalControl:
    """Belongs to the client and outlives its links. Until it was set once, nothing is told."""

    def __init__(self, node_type: NodeType) -> None:
        self._told_in = SnapshotStream.DEVICE_SNAPSHOT
        if node_type is NodeType.TELESCOPE:
            self._told_in = SnapshotStream.TELESCOPE_SNAPSHOT
        self._taken: bool | None = None
        self._changed = trio.Event()

    @property
    def taken(self) -> bool:
        return bool(self._taken)

    def set(self, taken: bool) -> None:
        is_news = taken != self.taken
        self._taken = taken
        if is_news:
            self._changed.set()

    def told_in(self, stream: SnapshotStream, data: dict[str, Any]) -> dict[str, Any]:
        """The data of a snapshot, with the word on it where it belongs."""
        if self._taken is None or stream is not self._told_in:
            return data
        return {**data, "local_control": self._taken}

    async def changed(self) -> None:
        """Returns once for each change, or for several together."""
        await self._changed.wait()
        self._changed = trio.Event()
