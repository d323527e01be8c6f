"""How fast files go up: as fast as the line is, slower as soon as the socket's round trip grows (after RFC 6817)."""

from collections.abc import Callable

import trio

from skygw.client.round_trip import RoundTrip
from skygw.protocol.limits import KIB, MIB

LEAST_SLICE, MOST_SLICE = KIB, 16 * KIB
"""What is handed over at once: on a slow line a ping would wait for a large one longer than is meant to be added."""

SLOWEST = 8.0 * KIB
"""Bytes a second. Well above what the gateway gives a body up for, and it can always be afforded: 64 kbit/s."""

FASTEST = 1024.0 * MIB
FIRST = 64.0 * KIB
QUICK, CAREFUL = 0.5, 0.05
"""How much faster per look at most, when nothing is added to the round trip. At first, and where nothing has been added
for long, quickly: from 64 KiB/s to 10 MiB/s in 4 s. Where the line's end was found, carefully: or it would swing."""

BOLDER = 1.02
"""By how much carefulness is given up with each look that finds the line free."""

DOWN = 0.35
"""How much slower at most, when twice the target is added or more. Then one look is passed over: what waits drains."""

LOOK_S = 0.3
"""How often the round trip is asked for while there is something to send."""

LONGEST_LOOK_S = 5.0
"""A question without an answer is waited for longer each time: what it says is said already."""


class UploadPace:
    """All files together. `keep` looks after the round trip and runs beside; `turn` is for whoever sends."""

    def __init__(self, round_trip: RoundTrip, *, target_s: float, most_per_s: float | None) -> None:
        """`target_s` is what uploads may add to the socket's round trip; `most_per_s` bytes a second are never
        exceeded, and are the pace where there is no socket to be considerate of.
        """
        self._round_trip = round_trip
        self._target_s = target_s
        self._most = FASTEST if most_per_s is None else max(SLOWEST, most_per_s)
        self._due = trio.current_time()
        self._sent = 0
        self._up = QUICK
        self._drains = False
        """It was just made slower, and what waits on the line is still of before."""
        self._busy = trio.Event()
        self.bytes_per_s = min(FIRST, self._most)

    @property
    def slice_bytes(self) -> int:
        """How much to ask a turn for: a quarter of what may be added."""
        if not self._round_trip.linked:
            return MOST_SLICE
        return int(min(max(self.bytes_per_s * self._target_s / 4, LEAST_SLICE), MOST_SLICE))

    async def turn(self, size: int) -> None:
        """Returns when `size` bytes may go."""
        now = trio.current_time()
        self._due = max(self._due, now) + size / (self.bytes_per_s if self._round_trip.linked else self._most)
        self._sent += size
        self._busy.set()
        await trio.sleep_until(self._due)

    async def keep(self, say: Callable[[str], None]) -> None:
        """For the life of one link: asks for the round trip while something is sent, and once at its beginning, when
        nothing has been added to it yet. `say` must not wait.
        """
        self._round_trip.begin()
        wait_s = LOOK_S
        try:
            while True:
                began = trio.current_time()
                moved = self._round_trip.moved
                ping = self._round_trip.ask()
                if ping is not None:
                    say(ping)
                with trio.move_on_after(wait_s):
                    await moved.wait()
                wait_s = LOOK_S if moved.is_set() else min(2 * wait_s, LONGEST_LOOK_S)
                await trio.sleep_until(began + LOOK_S)
                if self._sent == 0 and moved.is_set():
                    self._busy = trio.Event()
                    await self._busy.wait()
                else:
                    self._look(trio.current_time() - began, answered=moved.is_set())
        finally:
            self._round_trip.end()

    def _look(self, passed_s: float, *, answered: bool) -> None:
        """Adapts to what the round trip has become in the last `passed_s`."""
        used = self._sent >= self.bytes_per_s * passed_s / 2
        self._sent = 0
        added_s = self._round_trip.added_s()
        if added_s is None:
            return
        off = max(-1.0, min(1.0, 1.0 - added_s / self._target_s))
        if off > 0 and used:  # a pace that nobody goes at says nothing about the line
            self.bytes_per_s *= 1 + self._up * off
            self._up = min(self._up * BOLDER, QUICK)
        elif off < 0 and self._drains and answered:
            self._drains = False
        elif off < 0:
            self.bytes_per_s *= 1 + DOWN * off
            self._up = CAREFUL
            self._drains = True
        self.bytes_per_s = min(max(self.bytes_per_s, SLOWEST), self._most)
