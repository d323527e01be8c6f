"""The echo on our serving stack: the gateway's listener and the gateway's WebSocket under a Quart-Trio app."""

import trio
from quart_trio import QuartTrio

from skygw.routers.ws import NodeWebsocketConnection, current_websocket
from skygw.serving.config import ListenerConfig
from skygw.serving.listener import Listener
from skygw.serving.metrics import NoMetrics
from tests.benchmarks.servers.listening import say_ready

app = QuartTrio(__name__, static_folder=None)
app.asgi_websocket_class = NodeWebsocketConnection


@app.get("/hello")
async def hello() -> str:
    return "hello"


@app.websocket("/echo")
async def echo() -> None:
    socket = current_websocket()
    await socket.accept()
    try:
        while True:
            await socket.send(await socket.receive())
    except trio.EndOfChannel:
        return


def main() -> None:
    config = ListenerConfig(name="node", host="127.0.0.1", port=0, max_connections_per_address=None)
    listener = Listener.bind(config, metrics=NoMetrics())
    say_ready(listener.address[1])
    trio.run(listener.run, app)


if __name__ == "__main__":
    main()
