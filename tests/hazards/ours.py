"""Our stack: the listener of the gateway, with the gateway's own WebSocket class under Quart-Trio."""

import signal
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any, cast

import trio
from quart import request

from skygw.auth.networks import client_address
from skygw.routers.quart_socket import use_direct_sockets
from skygw.routers.ws import current_websocket
from skygw.serving import EXTENSION, BodyLimit, ConnectionHandle, Listener, ListenerConfig, NoMetrics
from skygw.websocket import LinkClosed, WebSocket
from tests.hazards.application import Talk, application, with_slow_upload
from tests.hazards.limits import Limits
from tests.hazards.told import Told


class OurTalk:
    """The link itself, as a session has it: its verbs end with `LinkClosed` and the peer's code."""

    def __init__(self, link: WebSocket) -> None:
        self._link = link

    async def receive(self) -> str | bytes:
        return await self._link.receive_one()

    async def send(self, message: str | bytes) -> None:
        await self._link.send((message,))

    async def until_gone(self) -> None:
        await self._link.ended.wait()
        raise LinkClosed(self._link.close_code, self._link.close_reason)


class Ours:
    def talk(self) -> Talk:
        scope: dict[str, Any] = cast("dict[str, Any]", current_websocket().scope)
        handle: ConnectionHandle = scope["extensions"][EXTENSION]
        if handle.websocket is None:
            raise LinkClosed(None)
        return OurTalk(handle.websocket)

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
    use_direct_sockets(app)
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
