"""A TCP proxy that can hold what flows to the nodes, as a stalled link does, and let it go later."""

from collections.abc import Awaitable, Callable
from functools import partial

import trio

PIECE_BYTES = 64 * 1024


class StallingProxy:
    """Forwards both ways. While it holds, nothing reaches whoever dialled in; nothing is lost either.

    What is held waits in the kernel's buffers and in one piece per connection here.
    """

    def __init__(self, host: str, port: int) -> None:
        """`host` and `port` are where connections are forwarded to."""
        self._host = host
        self._port = port
        self._flows = trio.Event()
        self._flows.set()

    def hold(self) -> None:
        """From now on nothing passes towards the node."""
        self._flows = trio.Event()

    def release(self) -> None:
        """Everything held goes out, in order."""
        self._flows.set()

    async def run(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Listens on a free loopback port, which is what it is started with; until cancelled."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port: int = listeners[0].socket.getsockname()[1]
        task_status.started(port)
        await trio.serve_listeners(self._forward, listeners)

    async def _forward(self, dialled: trio.SocketStream) -> None:
        try:
            gateway = await trio.open_tcp_stream(self._host, self._port)
        except OSError:
            await trio.aclose_forcefully(dialled)
            return
        async with gateway, trio.open_nursery() as nursery:
            nursery.start_soon(_copy, dialled, gateway.send_all, nursery.cancel_scope)
            nursery.start_soon(_copy, gateway, partial(self._when_it_flows, dialled.send_all), nursery.cancel_scope)

    async def _when_it_flows(self, send: Callable[[bytes], Awaitable[None]], piece: bytes) -> None:
        while not self._flows.is_set():
            await self._flows.wait()
        await send(piece)


async def _copy(source: trio.SocketStream, send: Callable[[bytes], Awaitable[None]], both: trio.CancelScope) -> None:
    """Until one end closes; then the connection is over in both directions."""
    try:
        while piece := await source.receive_some(PIECE_BYTES):
            await send(bytes(piece))
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # an end that is gone is an end
    both.cancel()
