"""`skygw serve` as a process ends in time, whatever its peers do. What it says when it cannot start: `tests/cli`."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from skygw.auth.development import load_or_make, mint
from skygw.protocol.codec import BadFrame, encode, from_gateway
from skygw.protocol.frame import Frame
from skygw.protocol.gateway_frames import Goaway, Welcome
from skygw.protocol.node_frames import Hello, Ping
from tests.fakes.postgres import PostgresServer
from tests.gateway.world import INSTANCE, PATIENCE_S, Site, bearer

DRAIN_S = 10.0
"""What the contract allows a drain, and the process around it, to take."""

PONGS_NOT_READ = 1_500
"""× about 300 bytes: more than the kernel holds for a peer with a small window, less than the outbox."""


@dataclass
class Served:
    """The process and where it listens."""

    process: trio.Process
    node_port: int
    internal_port: int
    data_dir: Path

    @asynccontextmanager
    async def node(self, site: Site, *, receive_buffer: int | None = None) -> AsyncIterator["Node"]:
        """A welcomed node. With a small receive buffer it soon takes nothing more, once it stops reading."""
        key = load_or_make(self.data_dir)
        token = mint(
            key,
            subject=str(site.install_id),
            audience="sky-node-gateway",
            scopes=["node"],
            lifetime_s=600,
            now=time.time(),
        )
        sock = trio.socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer)
        await sock.connect(("127.0.0.1", self.node_port))
        try:
            async with trio.open_nursery() as nursery:
                websocket = await wrap_client_stream(
                    nursery,
                    trio.SocketStream(sock),
                    "127.0.0.1",
                    "/v1/ws/node",
                    subprotocols=["skynet.node.v1"],
                    extra_headers=bearer(token),
                )
                hello = Hello.model_validate(
                    {
                        "install_id": site.install_id,
                        "instance_uid": INSTANCE,
                        "node_type": "telescope",
                        "software_version": "1",
                        "boot_id": INSTANCE,
                        "outbox_uid": INSTANCE,
                    }
                )
                await websocket.send_message(encode(hello))
                node = Node(websocket)
                assert isinstance(await node.hears(), Welcome)
                yield node
                nursery.cancel_scope.cancel()
        finally:
            sock.close()


class Node:
    def __init__(self, websocket: WebSocketConnection) -> None:
        self.websocket = websocket

    async def hears(self) -> Frame | int | None:
        """The next frame, or the close code."""
        try:
            with trio.fail_after(PATIENCE_S):
                message = await self.websocket.get_message()
        except ConnectionClosed as closed:
            return None if closed.reason is None else closed.reason.code
        assert isinstance(message, str)
        [item] = from_gateway.decode(message)
        assert not isinstance(item, BadFrame)
        return item.frame


def command_line(data_dir: Path, **settings: object) -> list[str]:
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    return [sys.executable, "-m", "skygw.cli.main", "serve", f"--data-dir={data_dir}", *flags]


@asynccontextmanager
async def served(postgres: PostgresServer, data_dir: Path) -> AsyncIterator[Served]:
    start = partial(
        trio.lowlevel.open_process,
        command_line(data_dir, node_port=0, internal_port=0),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"SKYGW_DATABASE_URL": postgres.gateway_url, "PATH": "/usr/bin:/bin"},
    )
    process = await start()
    try:
        assert process.stdout is not None
        printed = b""
        with trio.fail_after(PATIENCE_S):
            while not printed.endswith(b"\n"):
                more = await process.stdout.receive_some()
                assert more, "it ended before it was ready"
                printed += more
        ready = json.loads(printed)
        ports = [int(ready[name].rpartition(":")[2]) for name in ("node", "internal")]
        yield Served(process, ports[0], ports[1], data_dir)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
        if process.stdout is not None:
            await trio.aclose_forcefully(process.stdout)


async def test_sigterm_says_goodbye_and_ends(postgres: PostgresServer, tmp_path: Path) -> None:
    site = Site()
    await site.provision(postgres.owner_url)
    async with served(postgres, tmp_path) as gateway, gateway.node(site) as node:
        gateway.process.send_signal(signal.SIGTERM)
        goaway = await node.hears()
        assert isinstance(goaway, Goaway)
        assert goaway.reconnect_after_ms > 0
        assert await node.hears() == 4001
        with trio.fail_after(DRAIN_S):
            assert await gateway.process.wait() == 0


async def test_sigterm_ends_in_time_whatever_peers_do(postgres: PostgresServer, tmp_path: Path) -> None:
    site = Site()
    await site.provision(postgres.owner_url)
    async with served(postgres, tmp_path) as gateway, gateway.node(site, receive_buffer=4_096) as node:
        # The node reads nothing from here on, and what it asked for stays in the gateway's writer.
        for _ in range(PONGS_NOT_READ):
            await node.websocket.send_message(encode(Ping(id="x" * 250)))
        # These two rest, one of them in the middle of a request.
        idle = await trio.open_tcp_stream("127.0.0.1", gateway.internal_port)
        half_open = await trio.open_tcp_stream("127.0.0.1", gateway.internal_port)
        await idle.send_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        with trio.fail_after(PATIENCE_S):
            assert (await idle.receive_some()).startswith(b"HTTP/1.1 200")
        await half_open.send_all(b"POST /internal/commands HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
        gateway.process.send_signal(signal.SIGTERM)
        with trio.fail_after(DRAIN_S):
            assert await gateway.process.wait() == 0
        for stream in (idle, half_open):
            stream.socket.close()
