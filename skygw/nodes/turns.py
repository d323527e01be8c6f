"""A queue in which callers take turns, one message each; what one of them sends stays in its order."""

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skygw.nodes.outbox import Parcel


class Turns:
    """What waits, by caller. True if something does. Each operation takes the same time however much waits."""

    __slots__ = ("_order", "_queues", "_used", "bytes")

    def __init__(self) -> None:
        self.bytes = 0
        self._queues: dict[str, deque[Parcel]] = {}
        self._order: deque[str] = deque()
        """Those of whom something waits, whose turn it is first."""
        self._used: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self._order)

    def __iter__(self) -> Iterator["Parcel"]:
        for queue in self._queues.values():
            yield from queue

    def used_by(self, caller: str) -> int:
        """Bytes of what waits of this caller."""
        return self._used.get(caller, 0)

    def append(self, parcel: "Parcel") -> None:
        caller = parcel.caller
        self.bytes += parcel.cost
        queue = self._queues.get(caller)
        if queue is None:
            self._queues[caller] = deque((parcel,))
            self._order.append(caller)
            self._used[caller] = parcel.cost
        else:
            queue.append(parcel)
            self._used[caller] += parcel.cost

    def first(self) -> "Parcel":
        """Of what waits the next. There must be something."""
        return self._queues[self._order[0]][0]

    def take(self, *, keep_turn: bool = False) -> None:
        """Takes the first away. It is the next caller's turn then, unless what was taken was no turn."""
        caller = self._order[0]
        queue = self._queues[caller]
        cost = queue.popleft().cost
        self.bytes -= cost
        if not queue:
            self._order.popleft()
            del self._queues[caller], self._used[caller]
            return
        self._used[caller] -= cost
        if not keep_turn and len(self._order) > 1:
            self._order.rotate(-1)

    def clear(self) -> None:
        self.bytes = 0
        self._queues.clear()
        self._order.clear()
        self._used.clear()
