"""Hands a node what it follows of others: the next only when the last is out, so that the newest is what is sent."""

from collections.abc import Callable

import trio

from skygw.errors import LinkLost
from skygw.nodes.outbox import Lane, Parcel
from skygw.nodes.ports import Following


async def relay(following: Following, put: Callable[[Lane, str], Parcel]) -> None:
    """Until cancelled; when the session ends it waits to be. `put` queues a text in a lane."""
    try:
        while True:
            parcels = [put(Lane.SAFETY, message) for message in await following.next()]
            await parcels[-1].settled()
    except LinkLost:
        await trio.sleep_forever()
    finally:
        following.close()
