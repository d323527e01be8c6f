"""The gateway as a node's followings see it: one session in memory, on trio's clock."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import trio
from trio.testing import wait_all_tasks_blocked

from skygw.client.arrival import Arrivals
from skygw.client.following import Followings
from skygw.ids import Epoch
from skygw.protocol.codec import BadFrame, from_node
from skygw.protocol.gateway_frames import EventDeviceSnapshot
from skygw.protocol.json_text import Opaque
from skygw.protocol.streams import SubscribeStream, UnsubscribeStream


def own_ms() -> float:
    """The node's monotonic clock."""
    return trio.current_time() * 1000


def told(
    subscription_id: str, *, uid: UUID, t_ms: int, age_ms: int = 0, state: str = "safe", **more: Any
) -> EventDeviceSnapshot:
    """What a gateway says of a device."""
    return EventDeviceSnapshot(
        subscription_id=subscription_id,
        uid=uid,
        data=Opaque.of({"uid": str(uid), "state": state}),
        observed_at=datetime(2026, 1, 1, tzinfo=UTC),
        age_ms=age_ms,
        t_ms=t_ms,
        **more,
    )


class FollowingHub:
    """One session, from its welcome to `end`. Its clock begins at zero."""

    def __init__(self, nursery: trio.Nursery, followings: Followings) -> None:
        self.said: list[SubscribeStream | UnsubscribeStream] = []
        self.arrivals = Arrivals(highest_epoch=Epoch(1), now_ms=own_ms)
        self._followings = followings
        self._scope = trio.CancelScope()
        self._began_ms = own_ms()
        self.arrivals.measure(0)
        nursery.start_soon(self._keep)

    async def _keep(self) -> None:
        with self._scope:
            await self._followings.keep(self._hear)

    def _hear(self, text: str) -> None:
        (read,) = from_node.decode(text)
        assert not isinstance(read, BadFrame)
        assert isinstance(read.frame, SubscribeStream | UnsubscribeStream)
        self.said.append(read.frame)

    @property
    def t_ms(self) -> int:
        return int(own_ms() - self._began_ms)

    async def asked(self) -> list[SubscribeStream]:
        """Everything that was subscribed to so far."""
        await wait_all_tasks_blocked()
        return [frame for frame in self.said if isinstance(frame, SubscribeStream)]

    async def tell(self, uid: UUID, *, late_ms: int = 0, **frame: Any) -> None:
        """A snapshot under the newest subscription, written `late_ms` ago."""
        subscription_id = (await self.asked())[-1].subscription_id
        self._followings.take(told(subscription_id, uid=uid, t_ms=self.t_ms - late_ms, **frame), self.arrivals)

    async def end(self) -> None:
        """The link is gone."""
        self._scope.cancel()
        await wait_all_tasks_blocked()
