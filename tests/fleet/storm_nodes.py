"""The nodes of a storm, in a process of their own: they come back at once and all together, which no real node does.

Takes jobs as lines of JSON on stdin, answers each with one line. A node here costs a fraction of a real one, so that
2,000 of them leave the gateway a core; what it says is what a real one says.
"""

import json
import socket
import struct
import sys
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import trio

from tests.benchmarks.loads.nodes import text
from tests.benchmarks.raw_websocket import RawWebSocket, WebSocketEnded
from tests.benchmarks.wire import upgrade

AT_ONCE_BEFORE = 16
"""Nodes that connect at the same time before there is a storm."""
RETRY_S = 0.5
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass
class StormNode:
    """One installation. Times are those of the machine's monotonic clock, which the other processes read, too."""

    install_id: str
    url: str
    head: bytes
    uids: dict[str, str] = field(default_factory=lambda: {uid: str(uuid4()) for uid in ("instance_uid", "outbox_uid")})
    epoch: int = 0
    welcomed_at: float = 0.0
    tries: int = 0
    troubles: list[str] = field(default_factory=list)
    _socket: socket.socket | None = None
    _asked: bool = False
    _link: trio.CancelScope = field(default_factory=trio.CancelScope)

    def begin(self) -> None:
        """A new connection, as far as it goes without waiting: on one machine that is the request to upgrade."""
        parts = urlsplit(self.url)
        self.tries += 1
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._socket.connect_ex((parts.hostname, parts.port))
        try:
            self._asked = self._socket.send(self.head) == len(self.head)
        except OSError:  # the gateway's queue is full
            self._asked = False

    def cut(self) -> None:
        """Resets the connection, as if the way to the gateway had broken."""
        if self._socket is not None:
            self._socket.close()
        self._link.cancel()

    async def keep_alive(self) -> None:
        """Lives on the connection that was begun, and on others when it ends by itself, until the node is cut."""
        with trio.CancelScope() as self._link:
            while True:
                assert self._socket is not None
                stream = trio.SocketStream(trio.socket.from_stdlib_socket(self._socket))
                try:
                    await self._live(stream)
                except (WebSocketEnded, trio.BrokenResourceError, trio.ClosedResourceError, OSError) as ended:
                    self.troubles.append(str(ended))
                finally:
                    stream.socket.close()
                await trio.sleep(RETRY_S)
                self.begin()

    async def _live(self, stream: trio.SocketStream) -> None:
        if not self._asked:
            await trio.lowlevel.wait_writable(stream.socket)
            await stream.send_all(self.head)
        websocket = RawWebSocket(stream)
        await websocket.upgraded()
        hello = {"install_id": self.install_id, "node_type": "telescope", "software_version": "1", **self.uids}
        await websocket.send(text({"kind": "hello", "boot_id": str(uuid4()), "last_epoch": self.epoch, **hello}))
        while True:
            frame = json.loads(await websocket.receive())
            match frame["kind"]:
                case "welcome":
                    self.epoch, self.welcomed_at = frame["epoch"], time.monotonic()
                case "ping":
                    await websocket.send(text({"kind": "pong", "id": frame["id"]}))


class Crowd:
    """All nodes of this process."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nodes: list[StormNode] = []
        self._nursery = nursery

    async def connect(self, job: dict[str, Any]) -> dict[str, Any]:
        """Makes the nodes and connects them, a few at a time."""
        began = time.monotonic()
        self.nodes = [
            StormNode(install_id, job["url"], upgrade(urlsplit(job["url"]).path, token=token))
            for install_id, token in job["nodes"]
        ]
        for first in range(0, len(self.nodes), AT_ONCE_BEFORE):
            few = self.nodes[first : first + AT_ONCE_BEFORE]
            for node in few:
                node.begin()
                self._nursery.start_soon(node.keep_alive)
            await self._all_welcomed(few, since=began)
        return {"epochs": [node.epoch for node in self.nodes]}

    async def cut(self) -> dict[str, Any]:
        """Cuts all of them at once, lets them come back at once and in order, and waits until all are welcomed."""
        for node in self.nodes:
            node.cut()
            node.tries = 0
            node.troubles.clear()
        began = time.monotonic()
        for node in self.nodes:
            node.begin()
            self._nursery.start_soon(node.keep_alive)
        return await self.back({"since": began})

    async def back(self, job: dict[str, Any]) -> dict[str, Any]:
        """Waits until all have been welcomed since a moment. The waits are counted from it, and in the nodes' order."""
        await self._all_welcomed(self.nodes, since=job["since"])
        return {
            "waits": [node.welcomed_at - job["since"] for node in self.nodes],
            "tries": sum(node.tries for node in self.nodes),
            "troubles": sorted({trouble for node in self.nodes for trouble in node.troubles}),
            "epochs": [node.epoch for node in self.nodes],
        }

    @staticmethod
    async def _all_welcomed(nodes: list[StormNode], *, since: float) -> None:
        while any(node.welcomed_at < since for node in nodes):  # noqa: ASYNC110 - an event would cost each node
            await trio.sleep(0.02)


async def main() -> None:
    """Until stdin ends."""
    async with trio.open_nursery() as nursery:
        crowd = Crowd(nursery)
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            job = json.loads(line)
            match job["do"]:
                case "connect":
                    answer = await crowd.connect(job)
                case "cut":
                    answer = await crowd.cut()
                case "back":
                    answer = await crowd.back(job)
                case other:
                    raise ValueError(f"no such job: {other}")
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
