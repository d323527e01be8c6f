"""What the gateway is compared with: stock Hypercorn and Quart-Trio that echo, and nothing else."""

import json
import socket
import sys

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart import request, websocket
from quart_trio import QuartTrio

app = QuartTrio(__name__)


@app.post("/echo")
async def echo() -> bytes:
    data = await request.get_data(as_text=False)
    assert isinstance(data, bytes)
    return data


@app.websocket("/echo")
async def echo_messages() -> None:
    while True:
        await websocket.send(await websocket.receive())


def main() -> None:
    """Listens on a free port, says so in one line, and serves until it is ended."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(1_024)
    config = Config()
    config.bind = [f"fd://{listening.fileno()}"]
    sys.stdout.write(json.dumps({"port": listening.getsockname()[1]}) + "\n")
    sys.stdout.flush()
    config.errorlog = None
    config.keep_alive_max_requests = sys.maxsize  # as on the gateway: reconnecting is measured by itself
    trio.run(serve, app, config)


if __name__ == "__main__":
    main()
