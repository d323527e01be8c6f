"""The echo on our serving stack: the gateway's listener and WebSocket under a Quart-Trio app, in a process like its."""

import trio
from quart_trio import QuartTrio

from skygw.cli.process import collect_in_calm, collections_by_hand
from skygw.routers.quart_socket import use_direct_sockets
from skygw.routers.ws import current_websocket
from skygw.serving.config import ListenerConfig
from skygw.serving.listener import Listener
from skygw.serving.metrics import NoMetrics
from tests.benchmarks.servers.listening import say_ready

app = QuartTrio(__name__, static_folder=None)
use_direct_sockets(app)


@app.get("/hello")
async def hello() -> str:
    return "hello"


@app.websocket("/echo")
async def echo() -> None:
    socket = current_websocket()
    await socket.accept()
    while True:
        await socket.send(await socket.receive())


async def serve(listener: Listener) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(collect_in_calm)
        nursery.start_soon(listener.run, app)


def main() -> None:
    config = ListenerConfig(name="node", host="127.0.0.1", port=0, max_connections_per_address=None)
    listener = Listener.bind(config, metrics=NoMetrics())
    say_ready(listener.address[1])
    with collections_by_hand():  # as `skygw serve` does
        trio.run(serve, listener)


if __name__ == "__main__":
    main()
