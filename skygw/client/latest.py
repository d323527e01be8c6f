"""The newest value of each resource, and whether it can still be taken for the present, by this end's own clock."""

from dataclasses import dataclass
from uuid import UUID

import trio

from skygw.client.stream_items import Changed, Item, Stale, Unreadable
from skygw.client.subscription import Subscription
from skygw.client.uids import as_uid
from skygw.protocol.streams import RETAINED_STREAMS


@dataclass(frozen=True, slots=True)
class Latest:
    """`heard_at` is on trio's clock, see `Changed.heard_at`; `stale` is why it is not the present, if it is not."""

    value: Changed
    heard_at: float | None
    stale: str | None

    def age_s(self) -> float | None:
        """How long ago the gateway heard of it, rather too much than too little; `None` where nobody knows."""
        return None if self.heard_at is None else trio.current_time() - self.heard_at


class LatestValues:
    """Of one retained subscription: `follow` reads it, or whoever reads it hands each item to `take`.

    The age of a value is what it had at the gateway when it came, by the gateway's clock, and what has passed since on
    trio's clock. The clocks of nodes are asked nothing. What is assumed of the gateway's: see `GatewayClock`.
    The system's sleep is not counted by trio's clock on Linux: a machine that follows telescopes does not sleep.
    """

    def __init__(self, subscription: Subscription) -> None:
        """Raises `ValueError` for a subscription that is not told when a value is said again unchanged: by its ages
        nothing could be judged.
        """
        if subscription.stream not in RETAINED_STREAMS or not subscription.options.include_unchanged:
            raise ValueError(
                "The latest values are those of a retained stream, subscribed with include_unchanged=True."
            )
        self._subscription = subscription
        self._latest: dict[UUID, Latest] = {}

    async def follow(self) -> None:
        """Reads the subscription to its end: `Ended`, or its block was left."""
        async for item in self._subscription:
            self.take(item)

    def take(self, item: Item) -> None:
        """Raises `Unreadable` for a payload that is no JSON object with the uid of a resource."""
        if isinstance(item, Changed):
            if item.uid is None:
                raise Unreadable("a value of a resource without a uid")
            self._latest[item.uid] = Latest(item, item.heard_at, item.stale)
        elif isinstance(item, Stale):
            known = self._latest.get(item.uid)
            if known is not None:
                self._latest[item.uid] = Latest(known.value, known.heard_at, item.reason)

    def newest(self, uid: UUID | str) -> Latest | None:
        """Whatever was said last, however old. Raises as `as_uid` does."""
        return self._latest.get(as_uid(uid))

    def fresh_or_none(self, uid: UUID | str, max_age_s: float) -> Changed | None:
        """The newest value, if it is not stale and at most that old. `None` also where its age is not known. Raises as
        `as_uid` does.
        """
        known = self._latest.get(as_uid(uid))
        if known is None or known.stale is not None:
            return None
        age_s = known.age_s()
        return known.value if age_s is not None and age_s <= max_age_s else None

    def __len__(self) -> int:
        return len(self._latest)
