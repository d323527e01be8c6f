"""What befalls the bytes of one connection and direction, drawn from a seed and from places in the stream alone.

When the bytes came, and in which pieces, changes nothing: the same stream meets the same mishaps.
"""

from collections.abc import Iterator
from math import log1p
from random import Random

from skygw.sim.line import SEGMENT_BYTES, Course
from skygw.sim.seeds import chance_of


class Places:
    """Places in a stream, each byte with the same chance, in order."""

    def __init__(self, chance_per_byte: float, chance: Random) -> None:
        self._places = _drawn(chance_per_byte, chance)
        self._next = next(self._places, None)

    def within(self, begin: int, end: int) -> list[int]:
        """Those from `begin` up to `end`; ask in order, and for each part once."""
        found = []
        while self._next is not None and self._next < end:
            if self._next >= begin:
                found.append(self._next)
            self._next = next(self._places, None)
        return found


class Mishaps:
    """Of one direction of one connection."""

    def __init__(self, course: Course, *names: object) -> None:
        """`names` are what the seed is made of."""
        self._names = names
        self._jitter_s = course.jitter_s
        self._flips = Places(course.flip, chance_of(*names, "flip"))
        self._losses = Places(course.loss / SEGMENT_BYTES, chance_of(*names, "loss"))

    def flips(self, begin: int, end: int) -> list[int]:
        """Places of the bytes that are changed."""
        return self._flips.within(begin, end)

    def losses(self, begin: int, end: int) -> int:
        """How many segments of this part are lost."""
        return len(self._losses.within(begin, end))

    def jitter_s(self, begin: int) -> float:
        """What a piece that begins here takes beyond the latency."""
        return chance_of(*self._names, "jitter", begin).random() * self._jitter_s if self._jitter_s else 0.0

    def bit(self, place: int) -> int:
        """The bit that changes in the byte at this place, as a mask."""
        return 1 << chance_of(*self._names, "bit", place).randrange(8)


def _drawn(chance_per_byte: float, chance: Random) -> Iterator[int]:
    """The gaps between places that each have the same chance are distributed geometrically."""
    if chance_per_byte <= 0:
        return
    place = -1
    while True:
        certain = chance_per_byte >= 1
        place += 1 if certain else 1 + int(log1p(-chance.random()) / log1p(-chance_per_byte))
        yield place
