"""Stream sockets in memory: the client's end is a `Link`, the other is a script's or a real session's."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from math import inf
from typing import Any

import trio

from skygw.protocol.codec import BadFrame, encode, from_subscriber
from skygw.protocol.frame import Frame
from skygw.protocol.json_text import compact
from skygw.protocol.streams import SubscribeStream
from skygw.protocol.subscriber_frames import SubscriberFrame
from skygw.websocket import LinkClosed, Sent

PATIENCE_S = 1_000.0
"""Of the test's own clock."""


class StreamLink:
    """The client's end. Whoever sends to it waits when `capacity` messages have not been read."""

    def __init__(self, *, token: str, capacity: float) -> None:
        self.token = token
        self._inbound, self._from_gateway = trio.open_memory_channel[str | bytes](capacity)
        self._outbound, self._from_client = trio.open_memory_channel[str | bytes](inf)
        self._closed = LinkClosed(None)
        self.ended = trio.Event()
        self.last_received_at = trio.current_time()

    async def receive_one(self) -> str | bytes:
        try:
            message = await self._from_gateway.receive()
        except trio.EndOfChannel:
            raise self._closed from None
        self.last_received_at = trio.current_time()
        return message

    async def receive(self) -> Sequence[str | bytes]:
        return [await self.receive_one()]

    async def send(self, messages: Sequence[str | bytes]) -> None:
        await trio.lowlevel.checkpoint()
        for message in messages:
            if self.ended.is_set():
                raise self._closed
            self._outbound.send_nowait(message)

    async def keep(self) -> None:
        await self.ended.wait()


class GatewayEnd:
    """What a script says and hears, and what a `ServiceSession` needs of its link."""

    def __init__(self, link: StreamLink) -> None:
        self._link = link
        self.token = link.token

    @property
    def unread(self) -> int:
        return self._link._from_gateway.statistics().current_buffer_used

    @property
    def left(self) -> trio.Event:
        """The client has left this socket, or was left."""
        return self._link.ended

    def say(self, message: dict[str, Any] | str | Frame) -> None:
        if isinstance(message, dict):
            message = compact.encode(message)
        self._link._inbound.send_nowait(encode(message) if isinstance(message, Frame) else message)

    def hang_up(self, code: int | None = None, reason: str = "") -> None:
        self._link._closed = LinkClosed(code, reason)
        self._link.ended.set()
        self._link._inbound.close()
        self._link._outbound.close()

    async def hear(self) -> SubscriberFrame:
        """The next frame of the client."""
        with trio.fail_after(PATIENCE_S):
            message = await self._link._from_client.receive()
        assert isinstance(message, str)
        (item,) = from_subscriber.decode(message)
        assert not isinstance(item, BadFrame), item
        return item.frame

    async def asked(self) -> "Served":
        """The next subscription, acknowledged."""
        frame = await self.hear()
        assert isinstance(frame, SubscribeStream), frame
        self.say({"kind": "ack", "subscription_id": frame.subscription_id})
        return Served(self, frame)

    # For a session.

    async def receive(self) -> Sequence[str | bytes]:
        try:
            return [await self._link._from_client.receive()]
        except trio.EndOfChannel:
            raise LinkClosed(None) from None

    async def send(self, messages: Sequence[str | bytes], sent: Sent) -> None:
        try:
            for message in messages:
                await self._link._inbound.send(message)
                sent.whole += 1
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise LinkClosed(None) from None

    async def close(self, code: int, reason: str) -> None:
        await trio.lowlevel.checkpoint()
        self.hang_up(code, reason)

    def abort(self) -> None:
        self.hang_up()


class Served:
    """One subscription of a script, which keeps the chain unless told otherwise."""

    def __init__(self, end: GatewayEnd, frame: SubscribeStream) -> None:
        self.gateway_end = end
        self.frame = frame
        self.options: dict[str, Any] = frame.options.value if frame.options is not None else {}
        self.prev: str | None = self.options.get("after")

    def say(self, kind: str, position: str, **members: Any) -> None:
        """One message of it. `prev=…` breaks the chain."""
        self.gateway_end.say(
            {"kind": kind, "subscription_id": self.frame.subscription_id, "position": position, "prev": self.prev}
            | members
        )
        self.prev = position

    def event(
        self, position: str, *, data: object = None, received_at: str = "2026-07-01T03:00:00Z", **members: Any
    ) -> None:
        self.say(
            f"event_{self.frame.stream.value}",
            position,
            **{"install_id": None, "observed_at": None, "received_at": received_at, **members},
            data=data or {"at": position},
        )

    def live(self, position: str) -> None:
        self.say("event_live", position)

    def end(self, reason: str, *, position: str | None = None) -> None:
        self.gateway_end.say(
            {
                "kind": "event_subscription_ended",
                "subscription_id": self.frame.subscription_id,
                "reason": reason,
                "position": position or self.prev,
                "message": "It ended.",
            }
        )


class StreamDoor:
    """Where the client connects: a `Connector`, and the test's look at what came of it."""

    def __init__(self, *, capacity: float = inf) -> None:
        self.refusals: list[Exception] = []
        self.tokens: list[str] = []
        self._capacity = capacity
        self._opened, self._accepted = trio.open_memory_channel[GatewayEnd](inf)

    @asynccontextmanager
    async def connect(self, token: str) -> AsyncIterator[StreamLink]:
        await trio.lowlevel.checkpoint()
        self.tokens.append(token)
        if self.refusals:
            raise self.refusals.pop(0)
        link = StreamLink(token=token, capacity=self._capacity)
        end = GatewayEnd(link)
        self._opened.send_nowait(end)
        try:
            yield link
        finally:
            end.hang_up()

    async def accept(self) -> GatewayEnd:
        """The next socket."""
        with trio.fail_after(PATIENCE_S):
            return await self._accepted.receive()
