"""Whether an acting frame may still be acted on: not late, and not of a superseded session (contract §5)."""

from collections.abc import Callable
from dataclasses import dataclass

from skygw.ids import Epoch
from skygw.protocol.transit import TransitClock

MonotonicMs = Callable[[], float]
"""Milliseconds of a clock that never jumps; its zero means nothing."""


@dataclass(frozen=True, slots=True)
class TooLate:
    """The frame must not be acted on. `reason` is the contract's word."""

    reason: str
    message: str


class Arrivals:
    """One per session: measures each frame that carries `t_ms`, and judges the acting ones."""

    def __init__(self, *, highest_epoch: Epoch, now_ms: MonotonicMs) -> None:
        self._highest_epoch = highest_epoch
        self._now_ms = now_ms
        self._transit = TransitClock()

    def measure(self, t_ms: int) -> float:
        """Milliseconds this frame, read now, was on its way beyond the fastest one seen."""
        return self._transit.age_ms(own_ms=self._now_ms(), sent_ms=float(t_ms))

    def since_ms(self, t_ms: int) -> float:
        """Milliseconds since the gateway's clock stood at `t_ms`, also when the session is over. After `measure`."""
        return self._transit.since_ms(own_ms=self._now_ms(), sent_ms=float(t_ms))

    def judge(self, *, t_ms: int, epoch: Epoch, deadline_ms: int | None) -> float | TooLate | None:
        """The seconds that remain (`None`: no deadline), or why the frame is refused. Safing is not asked here."""
        age_ms = self.measure(t_ms)
        if epoch < self._highest_epoch:
            return TooLate(
                "stale_epoch", f"Sent under epoch {epoch}, and this installation has been at {self._highest_epoch}."
            )
        if deadline_ms is None:
            return None
        if age_ms >= deadline_ms:
            return TooLate(
                "deadline_exceeded",
                f"Arrived {age_ms / 1000:.1f} s after it was sent, with {deadline_ms / 1000:.1f} s to live.",
            )
        return (deadline_ms - age_ms) / 1000
