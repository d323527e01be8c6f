"""The work on one file of the disk: calls follow one another."""

from collections.abc import Callable
from typing import TypeVar

import trio

from skygw.client.disk_work import DiskWork

T = TypeVar("T")

CLOSE_S = 5.0


class DiskThread:
    """A call that was cancelled while it was going on has still happened."""

    def __init__(self, disk: DiskWork) -> None:
        self._disk = disk
        self._one_at_a_time = trio.Lock()

    async def run(self, work: Callable[[], T], *, then: Callable[[], None]) -> T:
        """Has `work` done, and calls `then` here before the next call begins, whatever `work` raised."""
        async with self._one_at_a_time:
            try:
                return await self._disk(work)
            finally:
                then()

    async def close(self, close: Callable[[], None]) -> None:
        """Waits for the call that is going on, cancelled or not: at most `CLOSE_S`."""
        with trio.move_on_after(CLOSE_S, shield=True):
            async with self._one_at_a_time:
                await self._disk(close)
