"""Reads the log behind its head, for everybody who listens: what is told is what was committed."""

import logging
from math import inf

import trio

from skygw.errors import RoutingUnavailable
from skygw.protocol.streams import RETAINED_STREAMS, StreamName
from skygw.telemetry.audience import Audience
from skygw.telemetry.log import PAGE, EventLog, LogEvent, LogKind
from skygw.telemetry.logged_subscription import EVENT_OVERHEAD, MAX_WAITING_BYTES, LoggedSubscription

log = logging.getLogger("skygw.telemetry")

POLL_S = 1.0
"""How long an event of another process may go unnoticed; this one's own are told of by `poke`. How often at most it is
asked whether the log went back.
"""
RETRY_S = 1.0

FED_BYTES = MAX_WAITING_BYTES // 4
"""Read at once, with `EVENT_OVERHEAD`: a burst comes to those who listen in pieces that each of them has room for."""
BREATH_S = 0.25
"""How long those who have little room left are given before the next piece. Who reads at all has read by then, and who
does not has no room for the third: so much can one of them hold up the others, once, in a burst.
"""

LOGGED_STREAMS = tuple(stream for stream in StreamName if stream not in RETAINED_STREAMS)


class LogFeed:
    """One per process. `head` is the position up to which listeners have been told."""

    def __init__(self, source: EventLog) -> None:
        self.head = 0
        self.behind = 0
        """How many events it has found and not told yet, at most as many as it reads at once."""
        self._caught_up_at: float | None = None
        self._sure_until = -inf
        self._source = source
        self._audiences: dict[StreamName, Audience[LoggedSubscription]] = {
            stream: Audience() for stream in LOGGED_STREAMS
        }
        self._wake = trio.Event()

    def position(self) -> int:
        """`head`, for those who ask again and again."""
        return self.head

    def lag_s(self) -> float:
        """How long ago it last found less to tell than it reads at once: about `POLL_S` at most, while it keeps up."""
        return 0.0 if self._caught_up_at is None else trio.current_time() - self._caught_up_at

    def subscriptions(self) -> dict[str, int]:
        """How many there are of each stream now."""
        return {stream.value: len(audience) for stream, audience in self._audiences.items()}

    def poke(self) -> None:
        """Something was committed. Never waits."""
        self._wake.set()

    def listen(self, subscription: LoggedSubscription) -> None:
        """From now on it is told of what happens; it leaves by its own `left`."""
        audience = self._audiences[subscription.stream]
        audience.add(subscription, subscription.want)
        subscription.left = lambda: audience.remove(subscription)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Feeds until cancelled, from the head as it is now; started when it is known. Waits out a database that is
        away: then nobody is told anything, and nothing is passed over.
        """
        is_begun = False
        is_away = False
        while True:
            try:
                if is_begun:
                    await self._feed()
                else:
                    self.head = await self._source.head()
                    is_begun = True
                    task_status.started()
                is_away = False
            except RoutingUnavailable as error:
                if not is_away:
                    log.warning("the log cannot be read: %s", error.message)
                is_away = True
                await trio.sleep(error.retry_after_s or RETRY_S)

    async def _feed(self) -> None:
        self._wake = trio.Event()
        asked_at = trio.current_time()
        events = await self._source.tail(self.head, max_bytes=FED_BYTES)
        self.behind = len(events)
        size = sum(len(event.data) + EVENT_OVERHEAD for event in events)
        has_more = size >= FED_BYTES or len(events) >= PAGE
        if not has_more:
            self._caught_up_at = asked_at
        for event in events:
            self._tell(event)
            self.head = event.position
        if events:
            for audience in self._audiences.values():
                for subscription in audience:
                    subscription.caught_up_to(self.head)
            if size >= FED_BYTES // 2:
                await self._let_read()
        elif asked_at >= self._sure_until:
            await self._go_on_above_the_head()
            self._sure_until = asked_at + POLL_S
        if not has_more:
            self.behind = 0
            with trio.move_on_after(POLL_S):
                await self._wake.wait()  # set, if something was committed since it was asked

    async def _let_read(self) -> None:
        with trio.move_on_after(BREATH_S):
            for audience in self._audiences.values():
                for subscription in audience:
                    await subscription.has_room()

    async def _go_on_above_the_head(self) -> None:
        """A log that was restored from a backup, under a gateway that runs, would give positions again that listeners
        have, and nobody would be told of what happens at them. What was committed there already is said to be missing.
        """
        head = await self._source.head()
        if head >= self.head:
            return
        log.error("the log went back: it goes on above what was told", extra={"from": self.head, "to": head})
        await self._source.lift(self.head + 1)
        self.poke()

    def _tell(self, event: LogEvent) -> None:
        if event.kind is LogKind.EVENT:
            if event.stream in self._audiences:
                for subscription in self._audiences[event.stream].of(event):
                    subscription.happened(event)
            return
        for stream in LOGGED_STREAMS if event.stream is None else (event.stream,):
            audience = self._audiences[stream]
            for subscription in audience if event.install_id is None else audience.of_gap(event):
                subscription.happened(event)
