"""A subscription to events: each once and in order, kept up to a limit until there is room to tell it (contract §6)."""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import trio

from skygw.errors import RoutingUnavailable
from skygw.protocol.streams import EndReason, StreamName
from skygw.telemetry.audience import Want
from skygw.telemetry.log import EventLog, LogEvent, LogKind
from skygw.telemetry.positions import logged_position
from skygw.telemetry.subscription import Outlet, Subscription

MAX_WAITING_BYTES = 1024 * 1024
"""Of one logged subscription that does not read: 1 MiB is a thousand lines of the usual size, or 16 of the largest."""

EVENT_OVERHEAD = 256
"""Counted with each event, so that many small ones are bounded too."""

RETRY_S = 1.0

log = logging.getLogger("skygw.telemetry")


class LoggedSubscription(Subscription):
    """Of events: each once and in order, from where it began."""

    def __init__(self, subscription_id: str, stream: StreamName, want: Want, outlet: Outlet, *, after: int) -> None:
        super().__init__(subscription_id, stream, want, outlet)
        self._after = after
        self._waiting: deque[LogEvent | int] = deque()
        """Events, and a number where the replay ended: everything up to this position has been told."""
        self._bytes = 0
        self._waiting_since = 0.0
        self._is_fed = False
        self._replay = trio.CancelScope()
        self._room = trio.Event()
        self._certain = after

    @property
    def waiting_bytes(self) -> int:
        """What waits to be told, with `EVENT_OVERHEAD` for each event."""
        return self._bytes

    async def run(self, log: EventLog, head: Callable[[], int]) -> None:
        """Reads what has happened since `after`, until it has caught up with the feed, whose position is `head`.

        Returns when it is fed, or over. A database that is away is waited for: until `event_live` nobody takes
        this for the present. The subscriptions of an outlet read in turn. Cancelling leaves it as far as it had come.
        """
        with self._replay:
            while not self._is_fed:
                try:
                    await self._read_page(log, upto=head())
                except RoutingUnavailable as error:
                    await trio.sleep(error.retry_after_s or RETRY_S)
                else:
                    if head() <= self._after:  # nothing came in between, and nothing can: the feed speaks from here on
                        self._is_fed = True
                        self._waiting.append(self._after)
                        self._outlet.ready(self)

    async def _read_page(self, log: EventLog, *, upto: int) -> None:
        async with self._outlet.replays:
            events: Sequence[LogEvent] = ()
            if self._after < upto:
                events = await log.page(self.stream, self._after, upto=upto, wanted=self.want.wanted)
            floor = await log.floor()  # asked last: what was dropped meanwhile is not in the page
        if self._after < floor:
            await self._put(_missing_up_to(floor))
            self._after = floor
            return
        for event in events:
            if self.want.sight is None or self.want.sight.may_see(event):
                await self._put(event)
            self._after = event.position
        if not events:
            self._after = max(self._after, upto)

    async def _put(self, event: LogEvent) -> None:
        """For the replay, which waits for its reader."""
        await self._has_room()
        self._append(event)

    async def has_room(self) -> None:
        """For the feed: returns when half of what may wait has been read, and at once while this is a replay's."""
        if self._is_fed:
            await self._has_room()

    async def _has_room(self) -> None:
        while self._bytes > MAX_WAITING_BYTES // 2 and not self.is_over:
            self._room = trio.Event()
            await self._room.wait()

    def happened(self, event: LogEvent) -> None:
        """The feed has come to an event that is wanted. Never waits; what is before `event_live` is the replay's."""
        if not self._is_fed or self.is_over:
            return
        if self._bytes + len(event.data) + EVENT_OVERHEAD > MAX_WAITING_BYTES:
            self._waiting.clear()
            log.warning(
                "subscriber does not keep up",
                extra={
                    "service": self._outlet.owner,
                    "stream": self.stream.value,
                    "waiting_bytes": self._bytes,
                    "for_s": round(trio.current_time() - self._waiting_since, 1),
                },
            )
            self.end(
                EndReason.SLOW_CONSUMER,
                f"{self._bytes} bytes waited for this subscription, and {MAX_WAITING_BYTES} is the limit: read faster, "
                "and resume from the position.",
            )
            return
        self._append(event)

    def _resume_from(self) -> str:
        """Where it began, if it was told nothing: what has happened since was to come."""
        return self.prev or self._position()

    def drop(self) -> None:
        super().drop()
        self._replay.cancel()
        self._room.set()

    def _append(self, event: LogEvent) -> None:
        if not self._waiting:
            self._waiting_since = trio.current_time()
        self._waiting.append(event)
        self._bytes += len(event.data) + EVENT_OVERHEAD
        self._outlet.ready(self)

    def _next(self, now: float) -> str | None:  # noqa: ARG002 - nothing here waits for its time
        while self._waiting:
            event = self._waiting.popleft()
            if isinstance(event, int):
                self._certain = event
                self._begin_beats()
                said = self._live()
            else:
                self._bytes -= len(event.data) + EVENT_OVERHEAD
                self._certain = event.position
                said = self._tell(event)
            if self._bytes <= MAX_WAITING_BYTES // 2:
                self._room.set()
            if said is not None:
                return said
        return None

    def _tell(self, event: LogEvent) -> str | None:
        position = logged_position(event.position)
        if event.kind is LogKind.GAP:
            said = self._dialect.gap(
                self.id, position=position, prev=self.prev, missing=event.missing, reason=_why(event), event=event
            )
        else:
            said = self._dialect.event(self.id, event, position=position, prev=self.prev)
        if said is not None:
            self.prev = position
        return said

    def _position(self) -> str:
        return logged_position(self._certain)

    def caught_up_to(self, position: int) -> None:
        """The feed has looked at everything up to here: a quiet subscriber resumes from here."""
        if self._is_fed and not self._waiting:
            self._certain = max(self._certain, position)


def _missing_up_to(position: int) -> LogEvent:
    """What the log has lost, of everybody."""
    return LogEvent(position, LogKind.GAP, None, None, None, None, None, None, datetime.now(UTC), "{}")


def _why(gap: LogEvent) -> str:
    if gap.install_id is None:
        return "no_longer_kept"
    return "declared_by_node" if gap.nacked is None else "never_taken"
