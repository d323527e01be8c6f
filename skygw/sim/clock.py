"""The time a simulated site lives in: it runs `scale` times as fast as trio's, and may be set wrong."""

from datetime import UTC, datetime, timedelta

import trio


class SimClock:
    """Simulated time on top of trio's clock, so that it also jumps when a test's autojump clock does.

    Make it inside a running trio loop. `elapsed()` only grows and is what physics runs on; `now()` is what
    the site's computer believes, which `set_wrong_by` can falsify.
    """

    def __init__(self, *, scale: float = 1.0, start: datetime | None = None) -> None:
        """`scale` is simulated seconds per trio second; `start` the simulated date, now unless told."""
        if not scale > 0:
            raise ValueError(f"A time scale must be above zero, not {scale}.")
        self.scale = scale
        self._start = (start or datetime.now(UTC)).astimezone(UTC)
        self._began_at = trio.current_time()
        self.wrong_by_s = 0.0
        """How far the site's computer is ahead; simulated seconds."""

    def elapsed(self) -> float:
        """Simulated seconds since this clock was made."""
        return (trio.current_time() - self._began_at) * self.scale

    def now(self) -> datetime:
        """The simulated date and time in UTC as the site's computer shows it."""
        return self._start + timedelta(seconds=self.elapsed() + self.wrong_by_s)

    def set_wrong_by(self, seconds: float) -> None:
        """Let the site's computer be ahead (or behind, below zero) by this many simulated seconds."""
        self.wrong_by_s = seconds

    def trio_seconds(self, simulated_s: float) -> float:
        """How long `simulated_s` lasts on trio's clock."""
        return simulated_s / self.scale

    async def sleep(self, simulated_s: float) -> None:
        """Wait for simulated seconds; a checkpoint even at zero."""
        await trio.sleep(self.trio_seconds(max(0.0, simulated_s)))
