"""Holds all deliveries while the hub is away, so that it is asked by one and not by a night's worth of them."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class Gate:
    """Shut for a time by whoever finds the hub away; open again by then, or by whoever knows better."""

    def __init__(self, places: int) -> None:
        """So many may be under way at once; behind a gate that was shut, one until it has come through."""
        self._places = trio.CapacityLimiter(places)
        self._all = places
        self._shut_until = 0.0
        self._moved = trio.Event()
        self.came_through_at = -math.inf
        """When the hub last took something, on trio's clock."""

    def shut(self, for_s: float) -> None:
        """Until then nobody passes, and after it one at a time."""
        self._shut_until = max(self._shut_until, trio.current_time() + for_s)
        self._places.total_tokens = 1
        self._move()

    def open(self) -> None:
        """The hub is there, as somebody has heard: what waits is tried now."""
        self._shut_until = 0.0
        self._move()

    def came_through(self) -> None:
        """The hub has taken something."""
        self.came_through_at = trio.current_time()
        self._places.total_tokens = self._all

    def _move(self) -> None:
        self._moved.set()
        self._moved = trio.Event()

    async def wait(self) -> None:
        """Returns when it is not shut."""
        while trio.current_time() < self._shut_until:
            with trio.move_on_at(self._shut_until):
                await self._moved.wait()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Waits for the gate and for a place, and holds it until the block is left."""
        while True:
            async with self._places:
                if trio.current_time() >= self._shut_until:
                    yield
                    return
            await self.wait()
