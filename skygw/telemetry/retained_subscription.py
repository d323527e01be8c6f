"""A subscription to values: a reference per resource until there is room to tell the newest of it (contract §6)."""

import heapq
import logging
from collections import deque
from collections.abc import Sequence
from itertools import count

import trio

from skygw.protocol.streams import StreamName, StreamOptions
from skygw.telemetry.audience import Want
from skygw.telemetry.positions import Versions, era_of, retained_position
from skygw.telemetry.subscription import Outlet, Subscription
from skygw.telemetry.value import Value

CHARACTERS_PARSED_AS_ONE = 8
"""A payload has to be parsed for `fields`, 64 KiB of it in some milliseconds: others have their turn in between."""

RESUMED, GATEWAY_RESTARTED = "resumed", "gateway_restarted"

log = logging.getLogger("skygw.telemetry")


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
