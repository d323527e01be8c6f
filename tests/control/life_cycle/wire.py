"""A socket between a gateway's rooms and a node's client: slow, held, stuck, cut, or silent without an end."""

from collections import deque
from collections.abc import Callable, Sequence
from math import inf

import trio

from skygw.websocket import Fault, LinkClosed, Sent

PATIENCE_S = 10.0
"""How long a gateway waits for a peer that takes nothing."""

NOTICED_S = 30.0
"""By when a link that fell silent is given up, by both ends."""


class _Way:
    """Messages one way, in order, each `latency_s` on its way; none arrives while it is held."""

    def __init__(self, latency_s: float) -> None:
        self.latency_s = latency_s
        self.held_until = 0.0
        self.is_lossy = False
        self.closed: LinkClosed | None = None
        self.waiting: deque[tuple[float, int, str | bytes]] = deque()
        self._wake = trio.Event()

    def put(self, message: str | bytes, number: int) -> None:
        if not self.is_lossy and self.closed is None:
            self.waiting.append((trio.current_time(), number, message))
            self.wake()

    def wake(self) -> None:
        self._wake.set()

    def close(self, closed: LinkClosed, *, at_once: bool) -> None:
        """What waits still arrives, unless it is `at_once`."""
        if self.closed is None:
            self.closed = closed
        if at_once:
            self.waiting.clear()
        self.wake()

    async def take(self) -> tuple[float, int, str | bytes]:
        """The next message with when it was put. Raises `LinkClosed`."""
        await trio.lowlevel.checkpoint()
        while True:
            due = inf
            if self.waiting:
                due = max(self.waiting[0][0] + self.latency_s, self.held_until)
                if due <= trio.current_time():
                    return self.waiting.popleft()
            elif self.closed is not None:
                raise self.closed
            self._wake = trio.Event()
            with trio.move_on_at(due):
                await self._wake.wait()


class Wire:
    """One connection. `on_put` and `on_taken` see what goes down to the node."""

    def __init__(
        self, *, latency_s: float, on_put: Callable[[str], int], on_taken: Callable[[str, float, int], None]
    ) -> None:
        self.down, self.up = _Way(latency_s), _Way(latency_s)
        self.gateway_end, self.node_end = GatewayEnd(self), NodeEnd(self)
        self.on_put = on_put
        self.on_taken = on_taken
        self.stuck_until = 0.0
        self.unstuck = trio.Event()
        self._is_silent = False
        self._silent_at = -NOTICED_S

    def tell_node(self, closed: LinkClosed, *, at_once: bool) -> None:
        """It sees the end. What is on its way to it still arrives, unless `at_once`."""
        if not self._is_silent:
            self.down.close(closed, at_once=at_once)

    def tell_gateway(self, closed: LinkClosed, *, at_once: bool) -> None:
        """As `tell_node`; it puts nothing on the wire any more."""
        if not self._is_silent:
            self.up.close(closed, at_once=at_once)
            self.unstuck.set()

    def cut(self, *, in_flight: bool) -> None:
        """Both ends see it."""
        self.tell_node(LinkClosed(None), at_once=not in_flight)
        self.tell_gateway(LinkClosed(1006), at_once=not in_flight)

    @property
    def quiet_at(self) -> float:
        """When what was done to it is over, or noticed."""
        return max(self.stuck_until, self.down.held_until, self.up.held_until, self._silent_at + NOTICED_S)

    def fall_silent(self, *, in_flight: bool) -> None:
        """Nothing more arrives, and nobody is told. `in_flight`: but what is on its way does."""
        self._is_silent = True
        self._silent_at = trio.current_time()
        for way in (self.down, self.up):
            way.is_lossy = True
            if not in_flight:
                way.waiting.clear()

    def stick(self, for_s: float) -> None:
        """The node's kernel takes nothing."""
        self.stuck_until = trio.current_time() + for_s


class GatewayEnd:
    """`NodeLink`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._last_received_at = trio.current_time()
        self.is_dead = False
        """Its process was killed: nothing it still says leaves it."""

    async def receive(self) -> list[str | bytes]:
        return [await self.receive_one()]

    async def receive_one(self) -> str | bytes:
        _, _, message = await self._wire.up.take()
        self._last_received_at = trio.current_time()
        return message

    async def send(self, messages: Sequence[str | bytes], sent: Sent) -> None:
        await trio.lowlevel.checkpoint()
        wire = self._wire
        if wire.stuck_until > trio.current_time():
            sent.doubtful = 1
            with trio.move_on_at(min(wire.stuck_until, trio.current_time() + PATIENCE_S)):
                await wire.unstuck.wait()
            if wire.stuck_until > trio.current_time():
                raise LinkClosed(None, "took nothing", Fault.DOES_NOT_READ)
        for message in messages:
            if wire.up.closed is not None:
                raise wire.up.closed
            self._hand_over(message)
            sent.whole += 1
            sent.doubtful = 0

    def _hand_over(self, message: str | bytes) -> None:
        if not self.is_dead:
            number = self._wire.on_put(message) if isinstance(message, str) else 0
            self._wire.down.put(message, number)

    async def close(self, code: int, reason: str) -> None:
        await trio.lowlevel.checkpoint()
        if self._wire.up.closed is not None:
            raise self._wire.up.closed
        if not self.is_dead:
            self._wire.tell_node(LinkClosed(code, reason), at_once=False)
        self._wire.up.close(LinkClosed(code, reason), at_once=True)

    def abort(self) -> None:
        if not self.is_dead:
            self._wire.tell_node(LinkClosed(None), at_once=True)
        self._wire.up.close(LinkClosed(1006), at_once=True)
        self._wire.unstuck.set()

    @property
    def last_received_at(self) -> float:
        return self._last_received_at


class NodeEnd:
    """A client's `Link`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._last_received_at = trio.current_time()
        self.is_dead = False

    async def receive(self) -> list[str | bytes]:
        return [await self.receive_one()]

    async def receive_one(self) -> str | bytes:
        put_at, number, message = await self._wire.down.take()
        self._last_received_at = trio.current_time()
        if isinstance(message, str) and not self.is_dead:
            self._wire.on_taken(message, put_at, number)
        return message

    async def send(self, messages: Sequence[str | bytes]) -> None:
        await trio.lowlevel.checkpoint()
        for message in messages:
            if self._wire.down.closed is not None:
                raise self._wire.down.closed
            if not self.is_dead:
                self._wire.up.put(message, 0)

    async def keep(self) -> None:
        await trio.sleep_forever()

    def leave(self) -> None:
        """The program let go of the socket."""
        if not self.is_dead:
            self._wire.tell_gateway(LinkClosed(1000), at_once=False)
        self._wire.down.close(LinkClosed(1000), at_once=True)

    @property
    def last_received_at(self) -> float:
        return self._last_received_at
