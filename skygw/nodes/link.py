"""The seam between a session and its socket: four verbs, so that a session can be run without one."""

from typing import Protocol


class LinkClosed(Exception):
    """The socket has ended. `code` is what the peer said, if it said anything."""

    def __init__(self, code: int | None, reason: str = "") -> None:
        super().__init__(f"the link is closed ({code}: {reason})" if reason else f"the link is closed ({code})")
        self.code = code
        self.reason = reason


class NodeLink(Protocol):
    """One socket. One task receives, one task sends."""

    async def receive(self) -> str | bytes:
        """The next message. Raises `LinkClosed`. Always a checkpoint."""
        ...

    async def send(self, message: str | bytes) -> None:
        """Hands a message over. Raises `LinkClosed`. Cancelled in the middle, the link must be aborted."""
        ...

    async def close(self, code: int, reason: str) -> None:
        """Says goodbye with a close frame. May take as long as the peer lets it: bound it, then `abort`."""
        ...

    def abort(self) -> None:
        """Drops the connection now, without a word. Idempotent."""
        ...

    @property
    def last_received_at(self) -> float:
        """When the last bytes came, on trio's clock: any received byte is life."""
        ...
