"""Notices a peer that is gone: pings it, and ends the session when nothing comes, or nothing is taken, for too long."""

import logging
from collections.abc import Callable
from math import inf
from typing import Protocol

import trio

from skygw.nodes.link import NodeLink
from skygw.nodes.outbox import Lane, Outbox
from skygw.protocol.close_codes import CloseCode
from skygw.protocol.frame import Frame
from skygw.protocol.node_frames import Ping, Pong

log = logging.getLogger("skygw.nodes")


class Ends(Protocol):
    """A session's `end`: synchronous, idempotent."""

    def __call__(self, code: int, reason: str) -> None: ...


class Heartbeat:
    """One per session. Any received byte is life; `writing_since` is set by the writer around each write."""

    def __init__(
        self,
        *,
        link: NodeLink,
        outbox: Outbox,
        every_s: float,
        dead_after_s: float,
        t_ms: Callable[[], int],
        say: Callable[[Frame], None],
        end: Ends,
    ) -> None:
        self.round_trip_s: float | None = None
        self.writing_since = inf
        self._link = link
        self._outbox = outbox
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
            stuck_at = self.writing_since + self._patience_s
            await trio.sleep_until(min(silent_at, stuck_at, next_beat))
            now = trio.current_time()
            if now >= self._link.last_received_at + self._patience_s:
                self._end(CloseCode.SILENT, f"nothing came for {now - self._link.last_received_at:.0f} s")
                return
            if now >= self.writing_since + self._patience_s:
                self._cut_slow_peer(now - self.writing_since)
                return
            if now >= next_beat:
                beats += 1
                self._pinged = (str(beats), now)
                self._say(Ping(id=str(beats), t_ms=self._t_ms()))
                next_beat = now + self._every_s

    def _cut_slow_peer(self, waited_s: float) -> None:
        queued = sum(self._outbox.queued_bytes(lane) for lane in Lane)
        log.warning("node does not read", extra={"waited_s": round(waited_s, 1), "queued_bytes": queued})
        self._end(CloseCode.SLOW_CONSUMER, f"the node took nothing for {waited_s:.0f} s; {queued} bytes wait")
