"""How much one installation may send: so much a second, and ten seconds' worth at once, whatever socket it comes on."""

from collections import OrderedDict

import trio

from skygw.ids import InstallId
from skygw.protocol.limits import BURST_S

REMEMBERED_INSTALLATIONS = 10_000
"""× some 500 bytes, the one that came longest ago forgotten first."""


class _Account:
    """Fills at `per_s` up to `BURST_S` of it, and is never below empty: whoever comes back is heard again at once.

    `spent` is what came since it was `full`, at `since`.
    """

    __slots__ = ("full", "left", "per_s", "since", "spent")

    def __init__(self, per_s: float, now: float) -> None:
        self.per_s = per_s
        self.full = self.left = per_s * BURST_S
        self.since = now
        self.spent = 0

    def said(self, of_what: str, now: float) -> str:
        """What came, and how much may."""
        return f"{self.spent} {of_what} in {now - self.since:.1f} s, and {self.per_s:g} a second is the limit"


class InboundRate:
    """What one installation may send. It outlives the socket, so that to come back is no way around it."""

    def __init__(self, *, frames_per_s: float, bytes_per_s: float) -> None:
        self._at = trio.current_time()
        self._frames = _Account(frames_per_s, self._at)
        self._bytes = _Account(bytes_per_s, self._at)

    def charge(self, *, frames: int, size: int) -> str | None:
        """Counts what has come. When it was too much, says so with what to do about it."""
        now = trio.current_time()
        passed_s = now - self._at
        self._at = now
        too_much = None
        # Both in one turn, and not a call each: this is done for every message.
        for account, amount in ((self._frames, frames), (self._bytes, size)):
            left = account.left + passed_s * account.per_s
            if left >= account.full:
                left = account.full
                account.since = now
                account.spent = 0
            account.spent += amount
            left -= amount
            if left < 0:
                left = 0.0
                too_much = too_much or account
            account.left = left
        if too_much is None:
            return None
        if too_much is self._frames:
            return f"{too_much.said('frames', now)}: publish less often, or only what changed"
        return f"{too_much.said('bytes', now)}: publish less often, or less at a time"


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
