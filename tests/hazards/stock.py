"""The stack as it comes: `hypercorn.trio.serve` and Quart-Trio, as their documentation puts them together."""

import signal
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import trio
from hypercorn.config import Config
from hypercorn.middleware import ProxyFixMiddleware
from hypercorn.trio import serve as hypercorn_serve
from quart import request, websocket

from tests.hazards.application import Talk, application
from tests.hazards.limits import Limits
from tests.hazards.told import Told


class PlainTalk:
    async def receive(self) -> str | bytes:
        return await websocket.receive()

    async def send(self, message: str | bytes) -> None:
        await websocket.send(message)

    async def until_gone(self) -> None:
        await trio.sleep_forever()  # the framework cancels a handler whose peer has left


class Stock:
    def talk(self) -> Talk:
        return PlainTalk()

    def caller(self) -> str:
        return cast("str", request.remote_addr)


def their_config(limits: Limits) -> Config:
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.accesslog = None
    config.read_timeout = cast("int | None", limits.read_timeout_s)
    config.graceful_timeout = limits.drain_s
    config.websocket_max_message_size = limits.websocket_max_message_bytes
    config.websocket_ping_interval = limits.websocket_ping_after_s
    return config


async def _until_sigterm() -> None:
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async for _ in signals:
            return


async def serve(limits: Limits, ready: Callable[[int], None]) -> None:
    app = ProxyFixMiddleware(cast("Any", application(Stock(), Told(), limits)), mode="legacy", trusted_hops=1)
    trigger = _until_sigterm if limits.told_of_signals else None
    async with trio.open_nursery() as nursery:
        binds: list[str] = await nursery.start(
            partial(hypercorn_serve, cast("Any", app), their_config(limits), shutdown_trigger=trigger)
        )
        ready(int(binds[0].rpartition(":")[2]))
