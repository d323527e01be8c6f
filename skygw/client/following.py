"""What a node follows of other installations: the newest value of each resource, and how old it is on our own clock."""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import trio

from skygw.client.arrival import Arrivals
from skygw.client.uids import as_uid
from skygw.protocol.codec import encode
from skygw.protocol.gateway_frames import FOLLOWED, FollowedSnapshot
from skygw.protocol.json_text import Opaque
from skygw.protocol.streams import (
    EventLive,
    EventSubscriptionEnded,
    StaleReason,
    StreamFilter,
    StreamName,
    StreamOptions,
    SubscribeStream,
    UnsubscribeStream,
)

log = logging.getLogger("skygw.client")

ASK_AGAIN_S = 15.0
"""After a subscription was refused or ended: whatever the reason was, it may pass, and nothing else would notice."""

MAX_RESOURCES = 4_096
"""Values that one subscription keeps, the oldest gives way: 64 KiB each at most, a KiB in practice. What a node may see
is an observatory's few dozen devices."""


@dataclass(frozen=True, slots=True)
class Followed:
    """The newest that is known of a resource. `data` must not be changed."""

    uid: UUID
    data: Mapping[str, Any]
    age_s: float
    """When it was asked for: by the gateway's monotonic clock, the way here, and ours; no clock time is in it."""
    observed_at: datetime
    """By the clock of the node that published it: for people."""
    stale: StaleReason | None
    """The gateway's newest word on why this is not the present. To be shown: what decides is the age."""


@dataclass(frozen=True, slots=True)
class _Held:
    frame: FollowedSnapshot
    arrivals: Arrivals
    """Of the session it came in."""
    stale: StaleReason | None

    @property
    def age_ms(self) -> float:
        return self.arrivals.since_ms(self.frame.t_ms - self.frame.age_ms)


class Following:
    """One stream that is followed, across all links; made by `NodeClient.follow`."""

    def __init__(self, ask: SubscribeStream, *, close: Callable[["Following"], None]) -> None:
        self._ask = ask
        self._close = close
        self._values: dict[UUID, _Held] = {}
        self._changed = trio.Event()
        self.news = 0
        """Grows with everything that comes."""
        self.live = False
        """Whether this session has said everything there is."""
        self.problem: str | None = None
        """Why the gateway tells nothing of this stream, a sentence; it is asked again every `ASK_AGAIN_S`."""

    @property
    def uids(self) -> tuple[UUID, ...]:
        """The resources of which something is known, however old."""
        return tuple(self._values)

    def fresh_or_none(self, uid: UUID | str, max_age_s: float) -> Followed | None:
        """The newest value, if it is not older than `max_age_s` now; `None` when it is, or nothing is known.

        With or without a link: a value that cannot be renewed grows old. May be called from any thread. Raises as
        `as_uid` does.
        """
        uid = as_uid(uid)
        held = self._values.get(uid)
        if held is None:
            return None
        age_s = held.age_ms / 1000
        if not age_s <= max_age_s:
            return None
        return Followed(uid, held.frame.data.value, age_s, held.frame.observed_at, held.stale)

    async def changed(self, since: int | None = None) -> None:
        """Returns at the next news, or at once if `news` is beyond `since` already. That a value grows old is no news:
        put a deadline around it.
        """
        since = self.news if since is None else since
        while self.news <= since:
            await self._changed.wait()

    def close(self) -> None:
        """Ends the subscription and forgets what is known. May be called again."""
        self._values.clear()
        self._close(self)

    # What the session tells.

    def asked_as(self, subscription_id: str) -> SubscribeStream:
        return self._ask.model_copy(update={"subscription_id": subscription_id})

    def take(self, frame: FollowedSnapshot, arrivals: Arrivals) -> None:
        """Within a session the order of the frames counts; a new session may know less than the last one did (a gateway
        that was restarted), so that an older value replaces no younger one there.
        """
        taken = _Held(frame, arrivals, frame.stale)
        held = self._values.get(frame.uid)
        if held is None and len(self._values) >= MAX_RESOURCES:
            del self._values[max(self._values, key=lambda uid: self._values[uid].age_ms)]
        if held is not None and held.arrivals is not arrivals and held.age_ms < taken.age_ms:
            taken = replace(held, stale=frame.stale)
        self._values[frame.uid] = taken
        self._tell()

    def became_live(self) -> None:
        self.live = True
        self.problem = None
        self._tell()

    def troubled(self, problem: str) -> None:
        self.problem = problem
        self._tell()

    def lost(self) -> None:
        """The session is over, or the subscription is."""
        if self.live:
            self.live = False
            self._tell()

    def _tell(self) -> None:
        self.news += 1
        self._changed.set()
        self._changed = trio.Event()


class Followings:
    """All that a client follows; belongs to the client, and each session subscribes to it anew."""

    def __init__(self) -> None:
        self._ask_at: dict[Following, float] = {}
        """When to subscribe, on trio's clock; infinite for what stands."""
        self._standing: dict[str, Following] = {}
        self._given_up: list[str] = []
        self._wake = trio.Event()
        self._asked = 0

    def add(self, stream: StreamName, wanted: StreamFilter, *, max_rate_hz: float | None) -> Following:
        """Raises `ValueError` for a stream that no node may follow, and for a rate that is none."""
        if stream not in FOLLOWED:
            raise ValueError(f"A node cannot follow {stream.value}; it can follow {', '.join(FOLLOWED)}.")
        # Said again with the same bytes a value is younger, and that is what counts here.
        options = StreamOptions(include_unchanged=True, max_rate_hz=max_rate_hz)
        following = Following(
            SubscribeStream(
                subscription_id="none",
                stream=stream,
                filter=Opaque.of(wanted.model_dump(mode="json", exclude_none=True)),
                options=Opaque.of(options.model_dump(mode="json", exclude_defaults=True)),
            ),
            close=self._remove,
        )
        self._ask_at[following] = -math.inf
        self._wake.set()
        return following

    def _remove(self, following: Following) -> None:
        self._ask_at.pop(following, None)
        for subscription_id, standing in list(self._standing.items()):
            if standing is following:
                del self._standing[subscription_id]
                self._given_up.append(subscription_id)
        following.lost()
        self._wake.set()

    async def keep(self, say: Callable[[str], None]) -> None:
        """Subscribes to everything, for as long as a session lasts; `say` sends a frame. Never returns."""
        try:
            while True:
                self._wake = trio.Event()
                self._unsubscribe(say)
                self._subscribe(say)
                with trio.move_on_at(min(self._ask_at.values(), default=math.inf)):
                    await self._wake.wait()
        finally:
            self._standing.clear()
            self._given_up.clear()
            for following in self._ask_at:
                self._ask_at[following] = -math.inf
                following.lost()

    def _unsubscribe(self, say: Callable[[str], None]) -> None:
        while self._given_up:
            say(encode(UnsubscribeStream(subscription_id=self._given_up.pop())))

    def _subscribe(self, say: Callable[[str], None]) -> None:
        now = trio.current_time()
        for following, ask_at in self._ask_at.items():
            if ask_at > now:
                continue
            self._ask_at[following] = math.inf
            self._asked += 1
            subscription_id = f"follow-{self._asked}"  # never used twice: what is late for an old one finds nobody
            self._standing[subscription_id] = following
            say(encode(following.asked_as(subscription_id)))

    # What the session hears.

    def take(self, frame: FollowedSnapshot, arrivals: Arrivals) -> None:
        arrivals.measure(frame.t_ms)
        following = self._standing.get(frame.subscription_id)
        if following is not None:
            following.take(frame, arrivals)

    def became_live(self, frame: EventLive) -> None:
        following = self._standing.get(frame.subscription_id)
        if following is not None:
            following.became_live()

    def ended(self, frame: EventSubscriptionEnded) -> None:
        log.warning("no longer told of what is followed: %s", frame.message, extra={"reason": frame.reason.value})
        self.refused(frame.subscription_id, frame.message)

    def refused(self, subscription_id: str, message: str) -> None:
        """Whatever it is the id of: an error may be about something else."""
        following = self._standing.pop(subscription_id, None)
        if following is None:
            return
        self._ask_at[following] = trio.current_time() + ASK_AGAIN_S
        following.lost()
        following.troubled(message)
        self._wake.set()
