"""Where work on the node's disk is done: beside the loop in a thread, or in it where there may be no threads."""

from collections.abc import Callable
from typing import Protocol, TypeVar

import trio

T = TypeVar("T")


class DiskWork(Protocol):
    """Does blocking work and returns what it returns. Cancelled meanwhile, the work is still done."""

    async def __call__(self, work: Callable[[], T], /) -> T: ...


def in_a_thread() -> DiskWork:
    """One call at a time, in a thread budget of its own: a driver that fills trio's must not delay the report of a
    stop.
    """
    threads = trio.CapacityLimiter(1)

    async def do(work: Callable[[], T], /) -> T:
        return await trio.to_thread.run_sync(work, limiter=threads)

    return do
