"""Hands a node what it follows of others: the next only when the last is out, so that the newest is what is sent."""

from collections.abc import Callable
from typing import Protocol

import trio

from skygw.errors import LinkLost
from skygw.nodes.outbox import Lane, Parcel


class News(Protocol):
    """Of `ports.Following` what is relayed."""

    async def next(self) -> list[str]:
        """The messages to write now, at least one. Cancelling loses nothing."""
        ...

    def close(self) -> None: ...


async def relay(following: News, put: Callable[[Lane, str], Parcel]) -> None:
    """Until cancelled; when the session ends it waits to be. `put` queues a text in a lane."""
    try:
        while True:
            parcels = [put(Lane.SAFETY, message) for message in await following.next()]
            await parcels[-1].settled()
    except LinkLost:
        await trio.sleep_forever()
    finally:
        following.close()
