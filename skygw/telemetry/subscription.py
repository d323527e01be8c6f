"""One subscription: a place in a stream, beats, an end; asked for messages by its outlet when there is room."""

from abc import ABC, abstractmethod
from math import inf
from typing import TYPE_CHECKING, Protocol

import trio

from skygw.protocol.streams import EndReason, StreamName
from skygw.telemetry.audience import Want
from skygw.telemetry.dialects import Dialect
from skygw.telemetry.metrics import UNCOUNTED, StreamMetrics

if TYPE_CHECKING:
    from collections.abc import Callable

BEAT_S = 10.0
"""How often a subscription that has nothing to say says so: then a loss is noticed in this time."""


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

    def told(self, count: int) -> None:
        """So many of its messages go out together."""
        self.metrics.delivered(self.stream, count)

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
