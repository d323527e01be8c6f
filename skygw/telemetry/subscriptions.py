"""One subscription: what it has been told, what it has not, and the messages that tell it (contract §6).

A subscription is asked for messages by its outlet when the socket has room. Until then a retained stream costs a
reference per resource, whatever happens; a logged one keeps its events, up to a limit.
"""

import heapq
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import count
from math import inf
from typing import Protocol

import trio

from skygw.errors import RoutingUnavailable
from skygw.protocol.streams import EndReason, StreamName, StreamOptions
from skygw.telemetry.audience import Want
from skygw.telemetry.dialects import Dialect
from skygw.telemetry.log import EventLog, LogEvent, LogKind
from skygw.telemetry.metrics import UNCOUNTED, StreamMetrics
from skygw.telemetry.positions import Versions, era_of, logged_position, retained_position
from skygw.telemetry.retained import Value

BEAT_S = 10.0
"""How often a subscription that has nothing to say says so: then a loss is noticed in this time."""

MAX_WAITING_BYTES = 1024 * 1024
"""Of one logged subscription that does not read: 1 MiB is a thousand lines of the usual size, or 16 of the largest."""

EVENT_OVERHEAD = 256
"""Counted with each event, so that many small ones are bounded too."""

CHARACTERS_PARSED_AS_ONE = 8
"""A payload has to be parsed for `fields`, 64 KiB of it in some milliseconds: others have their turn in between."""

RETRY_S = 1.0

RESUMED, GATEWAY_RESTARTED = "resumed", "gateway_restarted"

log = logging.getLogger("skygw.telemetry")


class Outlet(Protocol):
    """Where messages go. Never waits."""

    @property
    def dialect(self) -> Dialect: ...
    @property
    def owner(self) -> str: ...
    @property
    def replays(self) -> trio.Semaphore:
        """Taken for each look into the past."""
        ...

    def ready(self, subscription: "Subscription") -> None:
        """It has something to say now."""
        ...

    def later(self, subscription: "Subscription", at: float) -> None:
        """It is to be asked again then, on trio's clock."""
        ...


class Subscription(ABC):
    """What both kinds share: an id, a last position, beats, an end."""

    metrics: StreamMetrics = UNCOUNTED
    effort = 0
    """What the last message has cost to make, in characters of messages that are only written."""

    def __init__(self, subscription_id: str, stream: StreamName, want: Want, outlet: Outlet) -> None:
        self.id = subscription_id
        self.stream = stream
        self.want = want
        self.prev: str | None = None
        """The last position told."""
        self.is_over = False
        self.left: Callable[[], None] = _on_no_list
        """Takes it off the list of listeners."""
        self._outlet = outlet
        self._dialect = outlet.dialect
        self._last_words: str | None = None
        self._beat_at = inf
        self._beat_asked_for = inf

    def end(self, reason: EndReason, message: str) -> None:
        """The subscriber is told why and where to resume; nothing comes after that. Idempotent, never waits."""
        if not self.is_over:
            self.drop()
            self.metrics.subscription_ended(reason.value)
            self._last_words = self._dialect.ended(
                self.id, position=self._resume_from(), reason=reason, message=message
            )
            self._outlet.ready(self)

    def drop(self) -> None:
        """Its owner has left, or wants no more of it."""
        self.is_over = True
        self.left()

    def take(self, now: float) -> str | None:
        """The next message at this time, on trio's clock, or nothing for now. What is taken counts as told: if it is
        not, the socket has ended.
        """
        if self.is_over:
            said, self._last_words = self._last_words, None
            return said
        said = self._next(now)
        if said is None:
            if now < self._beat_at:
                return None
            said = self._live()
        if said is not None and self._beat_at < inf:
            self._beat_at = now + BEAT_S
        return said

    def on_time(self, at: float) -> bool:
        """The time it asked for has come: whether it may have something to say."""
        if self.is_over:
            return False
        if at == self._beat_asked_for:
            now = trio.current_time()
            is_due = now >= self._beat_at
            self._beat_asked_for = now + BEAT_S if is_due else self._beat_at
            self._outlet.later(self, self._beat_asked_for)
            return is_due
        return True

    def _begin_beats(self) -> None:
        """From now on it says every `BEAT_S` that there is nothing to say."""
        self._beat_at = self._beat_asked_for = trio.current_time() + BEAT_S
        self._outlet.later(self, self._beat_at)

    def _live(self) -> str | None:
        position = self._position()
        said = self._dialect.live(self.id, position=position, prev=self.prev)
        if said is not None:
            self.prev = position
        return said

    def _resume_from(self) -> str | None:
        """`after` for whoever wants to go on."""
        return self.prev

    @abstractmethod
    def _next(self, now: float) -> str | None:
        """The next message but for beats."""

    @abstractmethod
    def _position(self) -> str:
        """Up to where everything has been told."""


def _on_no_list() -> None:
    """Where nobody keeps a list."""


class RetainedSubscription(Subscription):
    """Of values: remembers which it has not told the newest of, oldest change first."""

    def __init__(
        self,
        subscription_id: str,
        stream: StreamName,
        want: Want,
        outlet: Outlet,
        *,
        options: StreamOptions,
        versions: Versions,
    ) -> None:
        super().__init__(subscription_id, stream, want, outlet)
        self._versions = versions
        self._fields = options.fields
        self._include_unchanged = options.include_unchanged
        self._every_s = None if options.max_rate_hz is None else 1 / options.max_rate_hz
        self._untold: dict[Value, int] = {}
        """With the version of the oldest change not told, in that order: the first of them bounds what is certain."""
        self._told: dict[Value, int] = {}
        """Which data was told last, by the version it came with."""
        self._told_at: dict[Value, float] = {}
        """And when, where there is a rate."""
        self._due: deque[Value] = deque()
        self._held: list[tuple[float, int, Value]] = []
        """Untold, and not due before that time because of `max_rate_hz`; as far as `_held_until` says so too."""
        self._held_until: dict[Value, float] = {}
        self._tie = count()
        self._certain = 0
        self._passed_over = 0
        self._said_slow = False
        self._resumes: str | None = None
        """Why there is a gap between what an earlier subscription was told and this one."""
        self._live_from: int | None = versions.last

    def begin(self, existing: Sequence[Value], *, after: int | None = None) -> None:
        """Takes what there is, in the order it changed, as not told yet. `after` is how far an earlier subscription
        had come: only what changed since is told, after one gap. What nobody here ever said is as good as nothing.
        A gateway that was restarted may have lost what it told last: the gap is said also where nothing is left of it.
        """
        if after is not None and after <= self._versions.last:
            self.prev = retained_position(after)
            self._certain = after
            existing = [value for value in existing if value.version > after]
        if after is not None and era_of(after) != self._versions.era:
            self._resumes = GATEWAY_RESTARTED
        elif after is not None and existing:
            self._resumes = RESUMED
        for value in existing:
            self._untold[value] = value.version
            self._due.append(value)
        self._outlet.ready(self)

    # What happens (never waits).

    def changed(self, value: Value) -> None:
        if value in self._untold:
            self._pass_over()
            if value.stale is not None and self._held_until.pop(value, None) is not None:
                self._schedule(value)
            return
        self._untold[value] = value.version
        self._schedule(value)

    def _pass_over(self) -> None:
        if self._passed_over == 0 and self._every_s is None and not self._said_slow:
            self._said_slow = True
            log.info(
                "subscriber is slower than what it follows: it is told the latest",
                extra={"service": self._outlet.owner, "stream": self.stream.value, "untold": len(self._untold)},
            )
        self._passed_over += 1

    def unchanged(self, value: Value) -> None:
        if self._include_unchanged and value not in self._untold:
            self._untold[value] = self._versions.last + 1
            self._schedule(value)

    def _schedule(self, value: Value) -> None:
        """That it is no longer the present waits for no rate: whoever looks seldom needs it most."""
        if self._every_s is not None and value.stale is None and value in self._told_at:
            at = self._told_at[value] + self._every_s
            if at > trio.current_time():
                self._held_until[value] = at
                heapq.heappush(self._held, (at, next(self._tie), value))
                if self._held[0][2] is value:
                    self._outlet.later(self, at)
                return
        self._due.append(value)
        self._outlet.ready(self)

    # What is told.

    def _next(self, now: float) -> str | None:
        if self._held and self._held[0][0] <= now:
            self._release(now)
        while self._resumes or self._due:
            said = self._gap() if self._resumes or self._passed_over else self._tell(self._due.popleft(), now)
            if said is not None:
                return said
        if self._live_from is not None and (not self._untold or self._oldest() > self._live_from):
            self._live_from = None
            self._begin_beats()
            return self._live()
        return None

    def _release(self, now: float) -> None:
        while self._held and self._held[0][0] <= now:
            at, _, value = heapq.heappop(self._held)
            if self._held_until.get(value) == at:
                del self._held_until[value]
                self._due.append(value)
        if self._held:
            self._outlet.later(self, self._held[0][0])

    def _gap(self) -> str | None:
        reason = self._resumes or "conflated"
        missing = None if self._resumes else self._passed_over
        self.metrics.conflated(self.stream, self._passed_over)
        self._resumes, self._passed_over = None, 0
        position = self._position()
        said = self._dialect.gap(self.id, position=position, prev=self.prev, missing=missing, reason=reason)
        if said is not None:
            self.prev = position
        return said

    def _tell(self, value: Value, now: float) -> str | None:
        del self._untold[value]
        position = self._position()
        if value.stale is not None and self._told.get(value) == value.data_version:
            said = self._dialect.stale(self.id, value, position=position, prev=self.prev, reason=value.stale)
        else:
            said = self._dialect.value(self.id, value, position=position, prev=self.prev, fields=self._fields)
            if self._fields is not None:
                self.effort = len(value.data) // CHARACTERS_PARSED_AS_ONE
        if value.is_gone:  # nothing will come of it, and nothing of it is kept
            self._told.pop(value, None)
            self._told_at.pop(value, None)
        else:
            self._told[value] = value.data_version
            if self._every_s is not None:
                self._told_at[value] = now
        if said is not None:
            self.prev = position
        return said

    def _oldest(self) -> int:
        return next(iter(self._untold.values()))

    def _position(self) -> str:
        upto = self._oldest() - 1 if self._untold else self._versions.last
        if upto > self._certain:
            self._certain = upto
        return retained_position(self._certain)


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
