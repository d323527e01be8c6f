"""How long an acting frame was on its way, told from monotonic clocks alone (contract §5, «Late is noticed»).

The difference between the two clocks is unknown, but a frame cannot arrive before it was sent: the smallest
(own − theirs) seen so far is the difference plus the fastest transit. What exceeds it is this frame's age.
Clocks drift apart, so the smallest may rise by `MAX_DRIFT` of the time passed: without that, a session of a day
would refuse commands in time as late (docs/adr/0003-transit-age.md).
"""

MAX_DRIFT = 200e-6
"""Twice what two poor crystals differ by (±50 ppm each)."""


class TransitClock:
    """One per session, on the receiving side. Pure: the caller brings its own monotonic clock, in milliseconds."""

    def __init__(self) -> None:
        self._smallest: float | None = None
        self._at = 0.0

    def age_ms(self, *, own_ms: float, sent_ms: float) -> float:
        """The age in transit, milliseconds, of a frame stamped `sent_ms` that is read at `own_ms`."""
        difference = own_ms - sent_ms
        if self._smallest is None:
            self._smallest = difference
        else:
            self._smallest += max(0.0, own_ms - self._at) * MAX_DRIFT
            self._smallest = min(self._smallest, difference)
        self._at = own_ms
        return difference - self._smallest

    def since_ms(self, *, own_ms: float, sent_ms: float) -> float:
        """Milliseconds from `sent_ms` of their clock until `own_ms`, by the fastest transit known *now*: when the first
        frame was a slow one, what came with it turns out to be older as soon as a faster one comes. After `age_ms`.
        """
        if self._smallest is None:
            raise ValueError("Nothing was measured yet.")
        return own_ms - sent_ms - self._smallest
