"""The seam between a session and its socket: four verbs, so that a session can be run without one."""

from typing import Protocol

import trio

LAST_WORDS_S = 1.0
"""How long a session that ends may go on writing what is urgent, and then how long its close frame may take."""


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


async def say_goodbye(link: NodeLink, code: int, reason: str) -> bool:
    """Closes with a close frame; returns whether that was handed over. A link that does not take it within
    `LAST_WORDS_S` is aborted, because cancelling alone does not free a framework's shielded send; so is one whose
    goodbye is cancelled.
    """
    said = False
    over = trio.Event()

    async def say() -> None:
        nonlocal said
        try:
            await link.close(code, reason)
            said = True
        except LinkClosed:
            said = False
        finally:
            over.set()

    in_time = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(say)
        try:
            with trio.move_on_after(LAST_WORDS_S):
                await over.wait()
            in_time = over.is_set()
        finally:
            if not over.is_set():
                link.abort()
            nursery.cancel_scope.cancel()
    return said and in_time
