"""How much one installation may send: so much a second, and ten seconds' worth at once, whatever socket it comes on."""

from collections import OrderedDict

import trio

from skygw.ids import InstallId
from skygw.protocol.limits import BURST_S

REMEMBERED_INSTALLATIONS = 10_000
"""× some 500 bytes, the one that came longest ago forgotten first."""


class _Bucket:
    """Fills at `per_s` up to `BURST_S` of it, and is never below empty: whoever comes back is heard again at once."""

    __slots__ = ("_at", "_full", "_left", "_per_s", "_since", "_spent")

    def __init__(self, per_s: float, now: float) -> None:
        self._per_s = per_s
        self._full = self._left = per_s * BURST_S
        self._at = self._since = now
        self._spent = 0

    def take(self, amount: int, now: float) -> bool:
        """Whether there was as much in it."""
        left = min(self._full, self._left + (now - self._at) * self._per_s)
        self._at = now
        if left == self._full:
            self._since, self._spent = now, 0
        self._spent += amount
        self._left = max(0.0, left - amount)
        return amount <= left

    def said(self, of_what: str) -> str:
        """What came since it was full, and how much may."""
        return f"{self._spent} {of_what} in {self._at - self._since:.1f} s, and {self._per_s:g} a second is the limit"


class InboundRate:
    """What one installation may send. It outlives the socket, so that to come back is no way around it."""

    def __init__(self, *, frames_per_s: float, bytes_per_s: float) -> None:
        now = trio.current_time()
        self._frames = _Bucket(frames_per_s, now)
        self._bytes = _Bucket(bytes_per_s, now)

    def charge(self, *, frames: int, size: int) -> str | None:
        """Counts what has come. When it was too much, says so with what to do about it."""
        now = trio.current_time()
        few, little = self._frames.take(frames, now), self._bytes.take(size, now)
        if not few:
            return f"{self._frames.said('frames')}: publish less often, or only what changed"
        if not little:
            return f"{self._bytes.said('bytes')}: publish less often, or less at a time"
        return None


class InboundRates:
    """The rates of all installations that come to this process."""

    def __init__(self, *, frames_per_s: float, bytes_per_s: float) -> None:
        self._frames_per_s = frames_per_s
        self._bytes_per_s = bytes_per_s
        self._of: OrderedDict[InstallId, InboundRate] = OrderedDict()

    def of(self, install_id: InstallId) -> InboundRate:
        """The one it had before, if it was here lately."""
        rate = self._of.get(install_id)
        if rate is None:
            rate = InboundRate(frames_per_s=self._frames_per_s, bytes_per_s=self._bytes_per_s)
            self._of[install_id] = rate
        self._of.move_to_end(install_id)
        while len(self._of) > REMEMBERED_INSTALLATIONS:
            self._of.popitem(last=False)
        return rate
