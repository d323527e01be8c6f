"""The seam between a session and its socket: four verbs, so that a session can be run without one."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

import trio

from skygw.websocket import LinkClosed, Sent

LAST_WORDS_S = 1.0
"""How long a session that ends may go on writing what is urgent, and then how long its close frame may take."""


class NodeLink(Protocol):
    """One socket. One task receives, one task sends. `skygw.websocket.WebSocket` is the one with a wire."""

    async def receive(self) -> Sequence[str | bytes]:
        """The messages that have come, at least one and not many. Raises `LinkClosed`. Always a checkpoint."""
        ...

    async def receive_one(self) -> str | bytes:
        """The next message; what came with it is still there. Raises `LinkClosed`."""
        ...

    async def send(self, messages: Sequence[str | bytes], sent: Sent) -> None:
        """Hands messages over as one write, and fills in `sent` however that ends. Raises `LinkClosed`.

        Cancelled in the middle of a message, the link has ended.
        """
        ...

    async def close(self, code: int, reason: str) -> None:
        """Says goodbye with a close frame. Raises `LinkClosed`. May take as long as the peer lets it: bound it."""
        ...

    def abort(self) -> None:
        """Drops the connection now, without a word. Idempotent."""
        ...

    @property
    def last_received_at(self) -> float:
        """When the last bytes came, on trio's clock: any received byte is life."""
        ...


async def say_goodbye(link: NodeLink, code: int, reason: str) -> None:
    """Closes with a close frame. A link that does not take it within `LAST_WORDS_S` is aborted; one that has ended by
    itself is left alone, since its own last frame may still be on its way.
    """
    with trio.move_on_after(LAST_WORDS_S) as patience, suppress(LinkClosed):
        await link.close(code, reason)
    if patience.cancelled_caught:
        link.abort()
