"""A TCP link that can be held: bytes towards the node wait, as behind a radio that is out of sight, and come late."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import urlsplit

import trio

RECEIVE_BYTES = 64 * 1024


class StallingProxy:
    """Carries connections to `target`. While held, what the gateway sends stays on the way; nothing is lost."""

    def __init__(self, *, url: str, target: str) -> None:
        self.url = url
        self._target = urlsplit(target)
        self._flowing = trio.Event()
        self._flowing.set()

    def hold(self) -> None:
        self._flowing = trio.Event()

    def let_go(self) -> None:
        self._flowing.set()

    async def carry(self, node: trio.SocketStream) -> None:
        """One connection, until either end closes it."""
        gateway = await trio.open_tcp_stream(self._target.hostname or "", self._target.port or 80)
        async with gateway, trio.open_nursery() as nursery:
            nursery.start_soon(self._up, node, gateway, nursery.cancel_scope)
            await self._down(gateway, node)
            nursery.cancel_scope.cancel()

    async def _up(self, node: trio.SocketStream, gateway: trio.SocketStream, both: trio.CancelScope) -> None:
        try:
            while data := await node.receive_some(RECEIVE_BYTES):
                await gateway.send_all(data)
        except trio.BrokenResourceError:
            pass  # one end is gone, and the other is told by the close below
        both.cancel()

    async def _down(self, gateway: trio.SocketStream, node: trio.SocketStream) -> None:
        try:
            while data := await gateway.receive_some(RECEIVE_BYTES):
                if not self._flowing.is_set():
                    await self._hold_back(gateway, bytearray(data), node)
                else:
                    await node.send_all(data)
        except trio.BrokenResourceError:
            return

    async def _hold_back(self, gateway: trio.SocketStream, held: bytearray, node: trio.SocketStream) -> None:
        """Goes on taking what the gateway sends, as the buffers of a long way do, and delivers it when let go."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._take_in, gateway, held)
            await self._flowing.wait()
            nursery.cancel_scope.cancel()
        await node.send_all(held)

    async def _take_in(self, gateway: trio.SocketStream, held: bytearray) -> None:
        while data := await gateway.receive_some(RECEIVE_BYTES):
            held += data


@asynccontextmanager
async def stalling_proxy(target: str) -> AsyncIterator[StallingProxy]:
    """Listens on a free port of the loopback, until the block is left."""
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        path = urlsplit(target).path
        proxy = StallingProxy(url=f"ws://127.0.0.1:{port}{path}", target=target)
        nursery.start_soon(partial(trio.serve_listeners, proxy.carry, [listener]))
        yield proxy
        nursery.cancel_scope.cancel()
