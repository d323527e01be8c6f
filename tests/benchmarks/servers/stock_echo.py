"""The echo on stock Hypercorn and Quart-Trio, as one writes it from their documentation."""

import sys

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart import websocket
from quart_trio import QuartTrio

from tests.benchmarks.servers.listening import listening, say_ready

app = QuartTrio(__name__)


@app.get("/hello")
async def hello() -> str:
    return "hello"


@app.websocket("/echo")
async def echo() -> None:
    while True:
        await websocket.send(await websocket.receive())


def main() -> None:
    sock = listening()
    config = Config()
    config.bind = [f"fd://{sock.fileno()}"]
    config.errorlog = None
    config.keep_alive_max_requests = sys.maxsize  # as in the gateway: connects are measured by themselves
    say_ready(sock.getsockname()[1])
    trio.run(serve, app, config)


if __name__ == "__main__":
    main()
