"""The load generator, in a process of its own: takes jobs as lines of JSON on stdin, answers each with one line."""

import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from statistics import quantiles
from typing import Any

import trio

from tests.benchmarks.echo_node import hello
from tests.benchmarks.plan import PAYLOAD_BYTES
from tests.benchmarks.raw_websocket import TEXT, RawWebSocket, message, raw_websocket
from tests.fakes.http_connection import HttpConnection, http_connection

CONNECTING_AT_ONCE = 16
WARM_UP = 0.2
"""The part of each load whose round trips are not counted."""

MESSAGE = message(TEXT, b"x" * PAYLOAD_BYTES)

Node = tuple[str, str] | None
"""Installation and token of a socket; `None` for the bare server's."""


@dataclass
class Load:
    """Callers that ask again as soon as they are answered, until the time is over."""

    seconds: float

    async def run(self, callers: Sequence[Callable[[], Awaitable[None]]]) -> dict[str, float]:
        """Round trips per second of all callers together; median and 99th percentile in milliseconds."""
        began = time.perf_counter()
        counted_from, until = began + WARM_UP * self.seconds, began + self.seconds
        taken: list[float] = []

        async def ask(round_trip: Callable[[], Awaitable[None]]) -> None:
            sent = time.perf_counter()
            while sent < until:
                await round_trip()
                done = time.perf_counter()
                if sent >= counted_from:
                    taken.append(done - sent)
                sent = done

        async with trio.open_nursery() as nursery:
            for caller in callers:
                nursery.start_soon(ask, caller)
        cuts = quantiles(taken, n=100) if len(taken) > 1 else [0.0] * 99
        per_second = len(taken) / (time.perf_counter() - counted_from)
        return {"per_s": per_second, "p50_ms": cuts[49] * 1_000, "p99_ms": cuts[98] * 1_000}


async def http(job: dict[str, Any]) -> dict[str, float]:
    body = job["body"].encode()
    async with AsyncExitStack() as stack:
        connections = [
            await stack.enter_async_context(http_connection(job["url"], token=job["token"]))
            for _ in range(job["callers"])
        ]
        return await Load(job["seconds"]).run(
            [partial(post, connection, job["path"], body) for connection in connections]
        )


async def post(connection: HttpConnection, path: str, body: bytes) -> None:
    answer = await connection.request("POST", path, body)
    if answer.status != 200 or len(answer.body) != PAYLOAD_BYTES:
        raise RuntimeError(f"not the answer that is measured: {answer}")


async def websocket(job: dict[str, Any]) -> dict[str, float]:
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(raw_websocket(job["url"])) for _ in range(job["callers"])]
        return await Load(job["seconds"]).run([partial(echo, socket) for socket in sockets])


async def echo(socket: RawWebSocket) -> None:
    await socket.send(MESSAGE)
    if len(await socket.receive()) != PAYLOAD_BYTES:
        raise RuntimeError("the echo is not what was sent")


async def connect(url: str, node: Node, stack: AsyncExitStack) -> None:
    """A socket that is of use: welcomed by the gateway, or echoed to by the bare server."""
    install_id, token = node or ("", None)
    socket = await stack.enter_async_context(raw_websocket(url, token=token))
    if token is None:
        await echo(socket)
        return
    await socket.send(hello(install_id))
    if b'"welcome"' not in await socket.receive():
        raise RuntimeError("the gateway did not say welcome first")


async def connects(job: dict[str, Any], stack: AsyncExitStack) -> dict[str, float]:
    """Connects all of them, a few at a time, and leaves them open in `stack`."""
    waiting = iter(job["nodes"])

    async def some() -> None:
        for node in waiting:
            await connect(job["url"], node, stack)

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(CONNECTING_AT_ONCE):
            nursery.start_soon(some)
    return {"per_s": len(job["nodes"]) / (time.perf_counter() - began)}


async def main() -> None:
    """Until stdin ends. `connect` holds its sockets open until `release`."""
    async with AsyncExitStack() as held:
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            job = json.loads(line)
            match job["do"]:
                case "http":
                    answer = await http(job)
                case "websocket":
                    answer = await websocket(job)
                case "connect":
                    answer = await connects(job, held)
                case "release":
                    await held.aclose()
                    answer = {}
                case other:
                    raise ValueError(f"no such job: {other}")
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    trio.run(main)
