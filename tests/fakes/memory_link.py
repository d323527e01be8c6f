"""A pair of link ends in memory: what a session sees of a socket, and what a test plays the node with."""

from collections.abc import Sequence

import trio

from skygw.protocol.codec import BadFrame, encode, from_gateway
from skygw.protocol.frame import Frame
from skygw.protocol.gateway_frames import GatewayFrame
from skygw.websocket import Fault, LinkClosed, Sent

CAPACITY = 10_000
PATIENCE_S = 10.0


class MemoryLink:
    """The gateway's end. `stall()` makes sends wait in the middle of their first message, as a peer that does not read
    does: cancelled, aborted, or given up there after `PATIENCE_S`, the link has ended and that message is in doubt.
    """

    def __init__(self) -> None:
        self._to_gateway, self._from_node = trio.open_memory_channel[str | bytes](CAPACITY)
        self._to_node, self.sent = trio.open_memory_channel[str | bytes](CAPACITY)
        self._flowing = trio.Event()
        self._flowing.set()
        self.closed_with: tuple[int, str] | None = None
        self.aborted = trio.Event()
        self._peer_closed: LinkClosed | None = None
        self._last_received_at = trio.current_time()

    # What the session calls.

    async def receive(self) -> list[str | bytes]:
        return [await self.receive_one()]

    async def receive_one(self) -> str | bytes:
        try:
            message = await self._from_node.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise self._peer_closed or LinkClosed(1006) from None
        self._last_received_at = trio.current_time()
        return message

    async def send(self, messages: Sequence[str | bytes], sent: Sent) -> None:
        await trio.lowlevel.checkpoint()
        if not self._flowing.is_set():
            sent.doubtful = 1
            await self._taken()
        for message in messages:
            try:
                self._to_node.send_nowait(message)
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                raise LinkClosed(1006) from None
            sent.whole += 1
            sent.doubtful = 0

    async def close(self, code: int, reason: str) -> None:
        await self._taken()
        if self._peer_closed is not None:
            raise self._peer_closed
        if self.aborted.is_set():
            raise LinkClosed(1006)
        self.closed_with = (code, reason)
        self._drop()

    def abort(self) -> None:
        self.aborted.set()
        self._flowing.set()
        self._drop()

    def _drop(self) -> None:
        self._to_node.close()
        self._to_gateway.close()

    async def _taken(self) -> None:
        try:
            with trio.fail_after(PATIENCE_S):
                await self._flowing.wait()
        except trio.TooSlowError:
            self.abort()
            raise LinkClosed(None, "took nothing", Fault.DOES_NOT_READ) from None
        except trio.Cancelled:
            self.abort()
            raise

    @property
    def last_received_at(self) -> float:
        return self._last_received_at

    # What a test calls.

    def stall(self) -> None:
        if self._flowing.is_set() and not self.aborted.is_set():
            self._flowing = trio.Event()

    def flow(self) -> None:
        self._flowing.set()

    def say(self, message: str | bytes | Frame) -> None:
        """Sends as the node; a frame is encoded."""
        self._to_gateway.send_nowait(encode(message) if isinstance(message, Frame) else message)

    def hang_up(self, code: int | None = 1006, reason: str = "") -> None:
        """Ends the connection from the node's side."""
        self._peer_closed = LinkClosed(code, reason)
        self._to_gateway.close()
        self._to_node.close()

    async def hear(self) -> GatewayFrame:
        """The next frame the gateway sent."""
        message = await self.sent.receive()
        assert isinstance(message, str)
        (item,) = from_gateway.decode(message)
        assert not isinstance(item, BadFrame), item
        return item.frame
