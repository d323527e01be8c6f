"""What one node is shown of other installations: as its graph lets it see, each value with its age (contract §5)."""

from collections.abc import Callable, Collection
from json.encoder import encode_basestring
from typing import Protocol
from uuid import UUID

import trio

from skygw.errors import Invalid
from skygw.ids import InstallId
from skygw.protocol.codec import encode
from skygw.protocol.gateway_frames import FOLLOWED
from skygw.protocol.node_frames import NodeType
from skygw.protocol.streams import EndReason, EventLive, EventSubscriptionEnded, StaleReason, SubscribeStream
from skygw.telemetry.audience import About
from skygw.telemetry.hub import StreamHub
from skygw.telemetry.log import LogEvent
from skygw.telemetry.outlet import SubscriberOutlet
from skygw.telemetry.value import Value, utc

MAX_FOLLOWED = 64
"""Subscriptions of one node: a roof, the weather, interlocks, each for a handful of telescopes."""


class NodeSight:
    """What a node may see: of its own observatory, what all share and what its own telescopes are and have; and all of
    it, if it is the observatory's own node, because a roof has to know the mounts under it.
    """

    def __init__(self, *, node_type: NodeType, observatory_uid: UUID, telescopes: Collection[UUID]) -> None:
        self._sees_all = node_type is NodeType.OBSERVATORY
        self.observatory_uid = observatory_uid
        self._telescopes = frozenset(telescopes)

    def may_see(self, about: About) -> bool:
        return about.observatory_uid == self.observatory_uid and (
            self._sees_all or about.telescope_uid is None or about.telescope_uid in self._telescopes
        )


class NodeDialect:
    """`event_<stream>` with `age_ms` at `t_ms`; what became stale is said again with its age. Nodes follow the present:
    they are told of no gaps.
    """

    def __init__(self, t_ms: Callable[[], int]) -> None:
        self._t_ms = t_ms

    def value(
        self,
        subscription: str,
        value: Value,
        *,
        position: str,  # noqa: ARG002 - nodes do not resume
        prev: str | None,  # noqa: ARG002
        fields: tuple[str, ...] | None,  # noqa: ARG002 - `NodeFollowing` takes none
    ) -> str | None:
        age_ms = max(0, int((trio.current_time() - value.heard_at) * 1_000))
        silence = "" if value.max_silence_s is None else f',"max_silence_s":{float(value.max_silence_s)!r}'
        stale = "" if value.stale is None else f',"stale":"{value.stale.value}"'
        return (
            f'{{"kind":"event_{value.stream.value}","subscription_id":{encode_basestring(subscription)},'
            f'"uid":"{value.uid}","observed_at":"{utc(value.observed_at)}","age_ms":{age_ms},"t_ms":{self._t_ms()}'
            f'{silence}{stale},"data":{value.data}}}'
        )

    def stale(
        self,
        subscription: str,
        value: Value,
        *,
        position: str,
        prev: str | None,
        reason: StaleReason,  # noqa: ARG002 - the value says it
    ) -> str | None:
        return self.value(subscription, value, position=position, prev=prev, fields=None)

    def live(self, subscription: str, *, position: str, prev: str | None) -> str | None:
        return encode(EventLive(subscription_id=subscription, position=position, prev=prev))

    def ended(self, subscription: str, *, position: str | None, reason: EndReason, message: str) -> str | None:
        return encode(
            EventSubscriptionEnded(subscription_id=subscription, reason=reason, position=position, message=message)
        )

    def gap(
        self,
        subscription: str,  # noqa: ARG002
        *,
        position: str,  # noqa: ARG002
        prev: str | None,  # noqa: ARG002
        missing: int | None,  # noqa: ARG002
        reason: str,  # noqa: ARG002
        event: LogEvent | None = None,  # noqa: ARG002
    ) -> str | None:
        return None

    def event(
        self,
        subscription: str,  # noqa: ARG002
        event: LogEvent,  # noqa: ARG002
        *,
        position: str,  # noqa: ARG002
        prev: str | None,  # noqa: ARG002
    ) -> str | None:
        return None


class Follower(Protocol):
    """Who follows."""

    @property
    def install_id(self) -> InstallId: ...
    @property
    def node_type(self) -> NodeType: ...
    @property
    def observatory_uid(self) -> UUID: ...
    @property
    def telescopes(self) -> Collection[UUID]: ...


class NodeStreams:
    """Lets sessions follow. One per process."""

    def __init__(self, hub: StreamHub) -> None:
        self._hub = hub

    def follow(self, binding: Follower, *, t_ms: Callable[[], int]) -> "NodeFollowing":
        sight = NodeSight(
            node_type=binding.node_type, observatory_uid=binding.observatory_uid, telescopes=binding.telescopes
        )
        return NodeFollowing(self._hub, sight, owner=str(binding.install_id), t_ms=t_ms)


class NodeFollowing:
    """The subscriptions of one session. `next` is for its relay; everything else never waits."""

    def __init__(self, hub: StreamHub, sight: NodeSight, *, owner: str, t_ms: Callable[[], int]) -> None:
        self._hub = hub
        self._sight = sight
        self._outlet = SubscriberOutlet(NodeDialect(t_ms), owner=owner, max_subscriptions=MAX_FOLLOWED)

    def subscribe(self, asked: SubscribeStream) -> None:
        """Raises `Invalid` for a stream that no node follows or a filter that does not hold, `Busy`."""
        if asked.stream not in FOLLOWED:
            named = ", ".join(sorted(FOLLOWED))
            raise Invalid(f"A node cannot follow {asked.stream.value}; it can follow {named}.")
        options = asked.asked_options()
        if options.fields is not None or options.after is not None:
            raise Invalid("options: a node is told the present and the whole of it, without `after` and `fields`.")
        self._hub.subscribe(self._outlet, asked, sight=self._sight)

    def unsubscribe(self, subscription_id: str) -> bool:
        """Whether there was one."""
        return self._outlet.remove(subscription_id)

    async def next(self) -> list[str]:
        """What to write now. Cancelling loses nothing."""
        return await self._outlet.next_texts()

    def close(self) -> None:
        self._outlet.close()
