"""Hands a node what it follows of others: the next only when the last is out, so that the newest is what is sent."""

from collections.abc import Callable
from typing import Protocol

from skygw.errors import LinkLost
from skygw.nodes.outbox import Lane, Parcel
from skygw.protocol.streams import SubscribeStream


class Following(Protocol):
    """What one session follows. Only `next` waits."""

    def subscribe(self, asked: SubscribeStream) -> None:
        """Raises `Invalid`, `Busy`."""
        ...

    def unsubscribe(self, subscription_id: str) -> bool: ...

    async def next(self) -> list[str]: ...

    def close(self) -> None: ...


class Relay:
    """One per session; `put` queues a text in a lane."""

    def __init__(self, following: Following, put: Callable[[Lane, str], Parcel]) -> None:
        self._following = following
        self._put = put

    async def run(self) -> None:
        """Until cancelled, or until the session ends."""
        try:
            while True:
                parcels = [self._put(Lane.SAFETY, message) for message in await self._following.next()]
                await parcels[-1].settled()
        except LinkLost:
            return
        finally:
            self._following.close()
