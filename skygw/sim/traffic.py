"""One way of a line while it is used: its capacity, shared by all connections in turn, and what is switched on now."""

from dataclasses import dataclass
from math import inf

import trio

from skygw.sim.line import Course

LATE_S = 0.05
"""A timer that fires late on a busy machine must not cost the line its rate; what is later than this is lost time."""


class Gate:
    """Open, or shut until a moment or until released."""

    def __init__(self) -> None:
        self._shut_until = -inf
        self._changed = trio.Event()

    def shut(self, seconds: float = inf) -> None:
        """At least so long from now on."""
        self._set(max(self._shut_until, trio.current_time() + seconds))

    def open(self) -> None:
        self._set(-inf)

    def _set(self, until: float) -> None:
        self._shut_until = until
        self._changed.set()
        self._changed = trio.Event()

    async def wait_open(self) -> None:
        """Returns at once when it is open."""
        while (left_s := self._shut_until - trio.current_time()) > 0:
            with trio.move_on_after(left_s):
                await self._changed.wait()


class Bottleneck:
    """Where the line is narrowest. Whoever has something to send asks for one turn at a time: turns are in order."""

    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._turns = trio.Lock()
        self._free_at = -inf

    async def carry(self, size: int, *, waiting_since: float) -> float:
        """Waits for a turn. The moment the last of `size` bytes has left, which may lie ahead.

        `waiting_since` is when the sender had something to send: between two of its turns the line was not idle.
        """
        async with self._turns:
            await trio.sleep_until(self._free_at)
            now = trio.current_time()
            begins = max(self._free_at, waiting_since, now - LATE_S)
            self._free_at = begins + size / self._bytes_per_s
            return self._free_at


@dataclass
class Counts:
    """What has happened on a line so far."""

    connections: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    """What was delivered."""
    stalls: int = 0
    cuts: int = 0
    resets: int = 0
    half_opens: int = 0
    losses: int = 0
    flips: int = 0


class Traffic:
    """One way of one line, and all its connections."""

    def __init__(self, course: Course, counts: Counts) -> None:
        self.course = course
        self.counts = counts
        self.gate = Gate()
        self.bottleneck = Bottleneck(course.bytes_per_s)
        self.connections = 0
        self.read_bytes_per_s = inf
        """How fast the proxy reads from each connection's sender."""
        self.flip_at: set[int] = set()
        """Places in the stream still to be changed, each once, in the first connection that comes so far."""

    @property
    def queue_share(self) -> int:
        """Bytes of one connection that may wait for their turn."""
        return max(self.course.turn_bytes, self.course.queue_bytes // max(1, self.connections))
