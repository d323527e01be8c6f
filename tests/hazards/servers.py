"""The two servers, each in a process of its own, so that what happens to it can be seen from outside."""

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from uuid import uuid4

import trio

from tests.fakes.process_memory import ProcessMemory
from tests.hazards import ours, stock
from tests.hazards.limits import Limits
from tests.hazards.peers import Op, WebSocketPeer, upgrade
from tests.serving.served import Peer

READY_WITHIN_S = 30.0


class Kind(StrEnum):
    OURS = "ours"
    STOCK = "stock"


PATIENCE_S = {Kind.OURS: 15.0, Kind.STOCK: 0.7}
"""How long a good answer is waited for. The stock stack is expected to give none, so that this is what it costs."""

SERVE: dict[Kind, Callable[[Limits, Callable[[int], None]], Coroutine[Any, Any, None]]] = {
    Kind.OURS: ours.serve,
    Kind.STOCK: stock.serve,
}

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.hazards.servers"])  # importing it all takes longer than most of the tests


def _run(kind: Kind, limits: Limits, log: Path, told: Connection) -> None:
    """The server's process. What it prints is in `log`; its port goes to `told`."""
    with log.open("wb") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    trio.run(SERVE[kind], limits, told.send)


@dataclass
class Server:
    """One that is ready. Every wait on it is bounded by `patience`."""

    kind: Kind
    port: int
    process: Any
    log: Path
    limits: Limits
    memory: ProcessMemory
    fails_on_purpose: bool = False
    """The test makes it print a fault of its own."""

    def patience(self) -> Any:
        """Raises `TooSlowError` when what is awaited inside does not come."""
        return trio.fail_after(PATIENCE_S[self.kind])

    @property
    def is_alive(self) -> bool:
        return bool(self.process.is_alive())

    @asynccontextmanager
    async def peer(self, *, receive_buffer: int | None = None) -> AsyncIterator[Peer]:
        """A TCP connection; dropped when the block is left."""
        sock = trio.socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer)
        try:
            await sock.connect(("127.0.0.1", self.port))
            transport = trio.SocketStream(sock)
            yield Peer(transport, transport)
        finally:
            sock.close()

    @asynccontextmanager
    async def websocket(
        self, path: str, *lines: str, receive_buffer: int | None = None
    ) -> AsyncIterator[WebSocketPeer]:
        """A connection that was upgraded at `path`; `lines` go into the request's head."""
        async with self.peer(receive_buffer=receive_buffer) as peer:
            await peer.send(upgrade(path, *lines))
            head = await peer.read_until(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 101 "):
                raise RuntimeError(f"the upgrade was refused: {head!r}")
            yield WebSocketPeer(peer, head)

    async def told(self, key: str) -> dict[str, Any]:
        """What the handler noted under `key`; waits for it."""
        async with self.peer() as peer:
            with self.patience():
                status, body = await peer.ask(f"/told/{key}")
        if status != 200:
            raise RuntimeError(f"the server answered {status}: {body!r}")
        found: dict[str, Any] = json.loads(body)
        return found

    async def open_gate(self, key: str) -> None:
        async with self.peer() as peer:
            with self.patience():
                await peer.ask(f"/open/{key}", method="POST")

    async def has_ended(self) -> int:
        """Wait for the end of the process; its exit code, negative for a signal."""
        if self.process.is_alive():
            await trio.lowlevel.wait_readable(self.process.sentinel)
        self.process.join()
        return int(self.process.exitcode)

    def terminate(self) -> None:
        os.kill(self.process.pid, signal.SIGTERM)

    def complaints(self) -> list[str]:
        """What it printed that speaks of a fault of its own."""
        lines = self.log.read_text().splitlines()
        return [line for line in lines if "Traceback" in line or "ERROR" in line]


@contextmanager
def server_process(kind: Kind, limits: Limits, log: Path) -> Iterator[Server]:
    """Runs one until the block is left. Raises `RuntimeError` if it does not get ready."""
    ours_end, theirs = _forks.Pipe(duplex=False)
    process = _forks.Process(target=_run, args=(kind, limits, log, theirs))
    process.start()
    theirs.close()
    try:
        port = ours_end.recv() if ours_end.poll(READY_WITHIN_S) else None
    except EOFError:
        port = None
    assert process.pid is not None
    try:
        if port is None:
            raise RuntimeError(f"the {kind} server did not get ready: {log.read_text()}")
        yield Server(kind, port, process, log, limits, ProcessMemory(process.pid))
    finally:
        ours_end.close()
        process.kill()
        process.join()
        process.close()


class Bystander:
    """A connection that does nothing wrong, on HTTP and on a WebSocket, from before whatever happens to others."""

    def __init__(self, server: Server, peer: Peer, socket: WebSocketPeer) -> None:
        self._server = server
        self._peer = peer
        self._socket = socket

    async def is_served(self, within_s: float | None = None) -> bool:
        """Both connections still answer, within the patience."""
        try:
            with trio.fail_after(PATIENCE_S[self._server.kind] if within_s is None else within_s):
                await self._socket.send(Op.TEXT, b"still here")
                found = await self._socket.next_of(Op.TEXT)
                return found is not None and await self._peer.ask("/hello") == (200, b"hello")
        except (trio.TooSlowError, trio.BrokenResourceError):
            return False


@asynccontextmanager
async def bystander(server: Server) -> AsyncIterator[Bystander]:
    async with server.peer() as peer, server.websocket(f"/ws/echo/{new_key()}") as socket:
        beside = Bystander(server, peer, socket)
        if not await beside.is_served(READY_WITHIN_S):
            raise RuntimeError("nobody is served, and nothing has happened yet")
        yield beside


def new_key() -> str:
    return uuid4().hex
