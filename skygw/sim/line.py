"""What a bad line between a site and the gateway is like, in numbers: both ways of it, and what befalls it in time."""

from dataclasses import dataclass, field
from enum import StrEnum
from math import inf

SEGMENT_BYTES = 1_400
"""What a real line carries at once: an Ethernet frame less its headers. Losses are counted in these."""

LONGEST_TURN_BYTES = 64 * 1024
TURN_S = 0.005
"""A connection has a fast line to itself for so long; on a slow one for one segment."""

UNLIMITED_QUEUE_BYTES = 256 * 1024
UNLIMITED_FLIGHT_BYTES = 1024 * 1024
"""What may be on its way on a line without a rate."""

SHORTEST_RETRANSMIT_S = 0.2
"""Linux's least retransmission timeout (TCP_RTO_MIN)."""


class Way(StrEnum):
    """Seen from who dialled in: the site."""

    UP = "up"
    DOWN = "down"


BOTH = (Way.UP, Way.DOWN)


@dataclass(frozen=True, kw_only=True)
class Course:
    """One way of a line. As made, nothing is in the way of anything."""

    bits_per_s: float = inf
    """Shared by all connections of the line."""

    latency_s: float = 0.0
    """One way."""

    jitter_s: float = 0.0
    """Up to so much is added to the latency of each piece; nothing overtakes."""

    queue_s: float = 0.2
    """What may wait for its turn on the line, all connections together, as the time the line takes for it."""

    loss: float = 0.0
    """The part of all segments that is lost: it comes one retransmission later, and all behind it waits."""

    flip: float = 0.0
    """The chance of each byte to arrive with one bit changed."""

    @property
    def bytes_per_s(self) -> float:
        return self.bits_per_s / 8

    @property
    def turn_bytes(self) -> int:
        """What one connection may send before the next one's turn."""
        if self.bits_per_s == inf:
            return LONGEST_TURN_BYTES
        return int(min(max(SEGMENT_BYTES, self.bytes_per_s * TURN_S), LONGEST_TURN_BYTES))

    @property
    def queue_bytes(self) -> int:
        if self.bits_per_s == inf:
            return UNLIMITED_QUEUE_BYTES
        return max(SEGMENT_BYTES, int(self.bytes_per_s * self.queue_s))


@dataclass(frozen=True, kw_only=True)
class Troubles:
    """What befalls the line by itself. `…_every_s` is the mean time between two of a kind; infinite is never."""

    stall_every_s: float = inf
    stall_s: float = 1.0
    """The mean length of a stall: nothing moves, nothing is lost."""

    cut_every_s: float = inf
    reset_every_s: float = inf
    half_open_every_s: float = inf


@dataclass(frozen=True, kw_only=True)
class Line:
    """Both ways of a line, and its troubles."""

    up: Course = field(default_factory=Course)
    down: Course = field(default_factory=Course)
    troubles: Troubles = field(default_factory=Troubles)

    def course(self, way: Way) -> Course:
        return self.up if way is Way.UP else self.down

    @property
    def round_trip_s(self) -> float:
        """Without jitter and queues."""
        return self.up.latency_s + self.down.latency_s

    @property
    def retransmit_s(self) -> float:
        """How much later a lost segment comes."""
        return max(self.round_trip_s, SHORTEST_RETRANSMIT_S)

    def flight_bytes(self, way: Way) -> int:
        """What one connection may have on its way beyond the queue: what a line of this rate and length can hold."""
        course = self.course(way)
        if course.bits_per_s == inf:
            return UNLIMITED_FLIGHT_BYTES
        longest_s = course.latency_s + course.jitter_s + (self.retransmit_s if course.loss else 0.0)
        return int(course.bytes_per_s * longest_s) + 2 * course.turn_bytes
