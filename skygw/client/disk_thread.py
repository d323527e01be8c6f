"""A thread for one file on the disk: calls follow one another, and no driver that fills trio's threads delays them."""

from collections.abc import Callable
from typing import TypeVar

import trio

T = TypeVar("T")

CLOSE_S = 5.0


class DiskThread:
    """A call that was cancelled while its thread ran has still happened."""

    def __init__(self) -> None:
        self._one_at_a_time = trio.Lock()
        # Its own thread budget: a driver that fills trio's must not delay the report of a stop.
        self._threads = trio.CapacityLimiter(1)

    async def run(self, work: Callable[[], T], *, then: Callable[[], None]) -> T:
        """Calls `work` in the thread, and `then` here before the next call begins, whatever `work` raised."""
        async with self._one_at_a_time:
            try:
                return await trio.to_thread.run_sync(work, limiter=self._threads)
            finally:
                then()

    async def close(self, close: Callable[[], None]) -> None:
        """Waits for the call that is going on, cancelled or not: at most `CLOSE_S`."""
        with trio.move_on_after(CLOSE_S, shield=True):
            async with self._one_at_a_time:
                await trio.to_thread.run_sync(close, limiter=self._threads)
