"""The server under test: an echo in Quart-Trio on the stack that serves installations."""

import json
import logging
import sys
from typing import TYPE_CHECKING, cast

import trio
from quart import websocket
from quart_trio import QuartTrio

from skygw.protocol.limits import MIB
from skygw.routers.quart_socket import use_direct_sockets
from skygw.serving import Listener, ListenerConfig
from tests.serving.served import CountingMetrics

if TYPE_CHECKING:
    from skygw.serving.asgi import App

MAX_MESSAGE_BYTES = 16 * MIB
"""The largest message of the suite."""


def echo_app() -> QuartTrio:
    app = QuartTrio(__name__)
    use_direct_sockets(app)

    @app.websocket("/")
    async def echo() -> None:
        await websocket.accept()
        while True:
            await websocket.send(await websocket.receive())

    return app


async def main() -> None:
    """Says its address in one line and serves until it is ended."""
    config = ListenerConfig(
        name="echo",
        host="127.0.0.1",
        port=0,
        websocket_max_message_bytes=MAX_MESSAGE_BYTES,
    )
    listener = Listener.bind(config, metrics=CountingMetrics())
    host, port = listener.address
    async with trio.open_nursery() as nursery:
        await nursery.start(listener.run, cast("App", echo_app()))
        sys.stdout.write(json.dumps({"url": f"ws://{host}:{port}/"}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # every second case breaks a rule on purpose
    trio.run(main)
