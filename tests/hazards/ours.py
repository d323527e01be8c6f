"""Our stack: the listener of the gateway, with the gateway's own WebSocket class under Quart-Trio."""

import signal
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any, cast

import trio
from quart import request

from skygw.auth.networks import client_address
from skygw.nodes.link import LinkClosed
from skygw.routers.ws import NodeWebsocketConnection, QuartLink, current_websocket
from skygw.serving import EXTENSION, BodyLimit, ConnectionHandle, Listener, ListenerConfig, NoMetrics
from tests.hazards.application import Talk, application, with_slow_upload
from tests.hazards.limits import Limits
from tests.hazards.told import Told

LOOK_EVERY_S = 0.05


class OurTalk(QuartLink):
    async def until_gone(self) -> None:
        while self._handle.is_open:  # noqa: ASYNC110 - a handle has no event to wait for
            await trio.sleep(LOOK_EVERY_S)
        raise LinkClosed(self._goodbye.code, self._goodbye.reason)


class Ours:
    def talk(self) -> Talk:
        socket = current_websocket()
        scope: dict[str, Any] = cast("dict[str, Any]", socket.scope)
        handle: ConnectionHandle = scope["extensions"][EXTENSION]
        return OurTalk(socket, handle, scope["skygw.goodbye"])

    def caller(self) -> str:
        scope: dict[str, Any] = cast("dict[str, Any]", request.scope)
        forwarded = [value.decode() for name, value in scope["headers"] if name == b"x-forwarded-for"]
        return str(client_address(scope["client"][0], forwarded, trusted_proxies=()))


def our_config(limits: Limits) -> ListenerConfig:
    known = {field.name for field in fields(ListenerConfig)}
    told = {name: value for name, value in asdict(limits).items() if name in known}
    return ListenerConfig(name="hazards", host="127.0.0.1", port=0, linger_s=0.2, **told)


async def serve(limits: Limits, ready: Callable[[int], None]) -> None:
    told = Told()
    app = application(Ours(), told, limits)
    app.asgi_websocket_class = NodeWebsocketConnection
    bounded = BodyLimit(
        with_slow_upload(cast("Any", app), told),
        max_bytes=limits.max_body_bytes,
        takes_large_body=lambda _method, path: path.startswith("/upload/"),
    )
    listener = Listener.bind(our_config(limits), metrics=NoMetrics())
    async with trio.open_nursery() as nursery:
        await nursery.start(listener.run, bounded)
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            ready(listener.address[1])
            async for _ in signals:
                break
        await listener.end_connections(within_s=limits.drain_s)
        nursery.cancel_scope.cancel()
