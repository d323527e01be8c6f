"""The echo on FastAPI under uvicorn with uvloop and httptools; the argument is uvicorn's `ws` implementation."""

import sys
from typing import Any, cast

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import PlainTextResponse

from tests.benchmarks.servers.listening import BACKLOG, listening, say_ready

app = FastAPI()


@app.get("/hello", response_class=PlainTextResponse)
async def hello() -> str:
    return "hello"


@app.websocket("/echo")
async def echo(socket: WebSocket) -> None:
    await socket.accept()
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except WebSocketDisconnect:
        return


def fastest(served: FastAPI, *, ws: str) -> uvicorn.Server:
    """uvicorn in its best configuration: uvloop, httptools, no compression, no log line and no proxy per request."""
    return uvicorn.Server(
        uvicorn.Config(
            served,
            loop="uvloop",
            http="httptools",
            ws=cast("Any", ws),
            ws_per_message_deflate=False,
            access_log=False,
            proxy_headers=False,
            log_level="warning",
            backlog=BACKLOG,
        )
    )


def main() -> None:
    sock = listening()
    say_ready(sock.getsockname()[1])
    fastest(app, ws=sys.argv[1]).run(sockets=[sock])


if __name__ == "__main__":
    main()
