"""Notices a peer that is gone: pings it, and ends the session when nothing comes for too long."""

from collections.abc import Callable
from typing import Protocol

import trio

from skygw.nodes.link import NodeLink
from skygw.protocol.close_codes import CloseCode
from skygw.protocol.frame import Frame
from skygw.protocol.node_frames import Ping, Pong

TURNS_TO_READ = 3
"""In which bytes that lie in the kernel reach the session."""


class Ends(Protocol):
    """A session's `end`: synchronous, idempotent."""

    def __call__(self, code: int, reason: str) -> None: ...


class Heartbeat:
    """One per session. Any received byte is life; who does not read is the link's affair."""

    def __init__(
        self,
        *,
        link: NodeLink,
        every_s: float,
        dead_after_s: float,
        t_ms: Callable[[], int],
        say: Callable[[Frame], None],
        end: Ends,
    ) -> None:
        self.round_trip_s: float | None = None
        self._link = link
        self._every_s = every_s
        self._patience_s = dead_after_s
        self._t_ms = t_ms
        self._say = say
        self._end = end
        self._pinged: tuple[str, float] | None = None

    def take_pong(self, pong: Pong) -> None:
        """Only the answer to the last ping tells the round trip."""
        if self._pinged is not None and pong.id == self._pinged[0]:
            self.round_trip_s = trio.current_time() - self._pinged[1]
            self._pinged = None

    async def run(self) -> None:
        """Until cancelled, or until it has ended the session."""
        beats = 0
        next_beat = trio.current_time() + self._every_s
        while True:
            silent_at = self._link.last_received_at + self._patience_s
            await trio.sleep_until(min(silent_at, next_beat))
            if trio.current_time() >= silent_at:
                # The process itself may have stood still: what has come meanwhile is read before anybody is blamed.
                for _ in range(TURNS_TO_READ):
                    await trio.lowlevel.checkpoint()
            now = trio.current_time()
            if now >= self._link.last_received_at + self._patience_s:
                self._end(CloseCode.SILENT, f"nothing came for {now - self._link.last_received_at:.0f} s")
                return
            if now >= next_beat:
                beats += 1
                self._pinged = (str(beats), now)
                self._say(Ping(id=str(beats), t_ms=self._t_ms()))
                next_beat = now + self._every_s
