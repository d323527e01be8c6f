"""Behind 1 Mbit/s and 300 ms with eight uploads running, a stop gets through, its proof comes back, and nobody is
taken for dead. Uploads are four answers to `asset.read` on the node's socket, and four HTTP bodies on the same line to
another server, because the gateway has no route yet that takes a large body.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
import trio

from skygw.client.commands import Command, CommandOutcome
from skygw.client.direct import DirectCall
from skygw.client.node import NodeClient, NodeConfig
from skygw.ids import InstallId
from skygw.protocol.node_frames import NodeType, SnapshotStream
from skygw.sim.fault_proxy import FaultProxy
from skygw.sim.line import Course, Line
from tests.fakes.gateway_process import GatewayProcess, gateway_process
from tests.fleet.fleet import installations, make_known

LONG_S = float(os.environ.get("SKYGW_TEST_LINE_S", "0"))
"""How long it is kept up; `nox -s line` keeps it up for 30 minutes. Zero is a few stops only."""

STOPS = 3
PAUSE_S = 1.0 if LONG_S else 0.2
UPLOADS = 4
ASSET_BYTES = 1_000_000
WARM_UP_BYTES = 250_000
"""By then every queue on the way is full."""

ONE_WAY_S = 0.3
"""The harder reading of 300 ms: there, and again back."""
LINE = Line(
    up=Course(bits_per_s=1_000_000, latency_s=ONE_WAY_S, jitter_s=0.02),
    down=Course(bits_per_s=1_000_000, latency_s=ONE_WAY_S, jitter_s=0.02),
)

AT_NODE_S, PROOF_S = 1.0, 2.0
"""After the caller's request."""
GENEROUS = 4
"""A machine with other work to do is not the line: asserted is so many times as long, and what is seen is printed."""
PATIENCE_S = 60.0
"""The bound of every wait here."""


@dataclass
class Site:
    """A node that stops at once and proves it, sends what it is asked for, and tells how it is every second."""

    client: NodeClient
    stopped_at: dict[str, float] = field(default_factory=dict)

    async def stop(self, command: Command) -> CommandOutcome:
        self.stopped_at[str(command.id)] = trio.current_time()
        return CommandOutcome.completed(proof={"devices": []})

    async def read(self, call: DirectCall) -> None:
        await call.start("application/octet-stream", total_size=ASSET_BYTES)
        await call.send(bytes(ASSET_BYTES))

    async def tell(self) -> None:
        for number in count():
            self.client.publish_snapshot(SnapshotStream.DEVICE_SNAPSHOT, {"uid": str(uuid4()), "number": number})
            await trio.sleep(1)


@asynccontextmanager
async def site_behind(
    proxy: FaultProxy, gateway: GatewayProcess, install_id: InstallId, state: Path
) -> AsyncIterator[Site]:
    async with trio.open_nursery() as nursery:
        port: int = await nursery.start(proxy.run)

        async def token() -> str:
            return gateway.node_token(install_id)

        config = NodeConfig(
            url=urlsplit(gateway.socket_url)._replace(netloc=f"127.0.0.1:{port}").geturl(),
            install_id=install_id,
            node_type=NodeType.TELESCOPE,
            software_version="1.0",
            token=token,
            state_dir=state,
        )
        site = Site(NodeClient(config))
        site.client.operation("asset.read", effects="transfer")(site.read)
        site.client.command_handler(site.stop)
        await nursery.start(site.client.run)
        await site.client.wait_connected()
        nursery.start_soon(site.tell)
        await upload_elsewhere(proxy, nursery)
        yield site
        nursery.cancel_scope.cancel()


async def upload_elsewhere(proxy: FaultProxy, nursery: trio.Nursery) -> None:
    """Bodies without an end over the same line, to a server that takes them all."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, take_all, [listener])
    port: int = await nursery.start(proxy.carry_to, "127.0.0.1", listener.socket.getsockname()[1])
    for _ in range(UPLOADS):
        nursery.start_soon(put_body, port)


async def put_body(port: int) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"PUT /frame HTTP/1.1\r\nHost: store\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await stream.send_all(b"4000\r\n" + bytes(0x4000) + b"\r\n")


async def take_all(stream: trio.SocketStream) -> None:
    while await stream.receive_some():
        pass


async def read_assets(caller: httpx.AsyncClient, install_id: InstallId) -> None:
    """One after the other."""
    body = {"operation": "asset.read", "params": {"asset_uid": str(uuid4())}, "timeoutS": 600}
    while True:
        async with caller.stream("POST", f"/internal/nodes/{install_id}/direct", json=body) as answer:
            assert answer.status_code == 200, await answer.aread()
            size = 0
            async for piece in answer.aiter_raw():
                size += len(piece)
            assert size == ASSET_BYTES


async def test_a_stop_gets_through_a_full_line_and_nobody_is_taken_for_dead(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at_node: list[float] = []
    proven: list[float] = []
    async with gateway_process(tmp_path / "hub") as gateway:
        [install_id] = installations(seed=31, count=1)
        [telescope_uid] = await make_known(gateway, [install_id])
        proxy = FaultProxy("127.0.0.1", urlsplit(gateway.node_url).port or 0, line=LINE)
        token = {"Authorization": f"Bearer {gateway.service_token()}"}
        async with (
            httpx.AsyncClient(base_url=gateway.internal_url, headers=token, timeout=600, trust_env=False) as caller,
            site_behind(proxy, gateway, install_id, tmp_path / "node") as site,
            trio.open_nursery() as nursery,
        ):
            for _ in range(UPLOADS):
                nursery.start_soon(read_assets, caller, install_id)
            with trio.fail_after(PATIENCE_S):
                while proxy.counts.bytes_up < WARM_UP_BYTES:  # noqa: ASYNC110 - bytes have no event
                    await trio.sleep(0.1)
            ends_at = trio.current_time() + LONG_S
            while len(proven) < STOPS or trio.current_time() < ends_at:
                command_id = str(uuid4())
                order = {
                    "telescopeUid": str(telescope_uid),
                    "commandId": command_id,
                    "command": {"command_type": "mount.stop"},
                    "waitS": PATIENCE_S,
                }
                began = trio.current_time()
                answer = await caller.post("/internal/commands", json=order)
                proven.append(trio.current_time() - began)
                assert answer.json()["outcome"] == "succeeded", answer.json()
                at_node.append(site.stopped_at[command_id] - began)
                await trio.sleep(PAUSE_S)
            node = (await caller.get(f"/internal/nodes/{install_id}")).json()
            nursery.cancel_scope.cancel()
    if LONG_S:
        with capsys.disabled():
            print(f"\n{len(proven)} stops over {LONG_S:.0f} s behind {proxy.counts}")  # noqa: T201
            print(f"at the node: {told(at_node)}; proven to the caller: {told(proven)}")  # noqa: T201
    assert max(at_node) <= AT_NODE_S * GENEROUS
    assert max(proven) <= PROOF_S * GENEROUS
    assert (node["connected"], node["epoch"], site.client.last_end) == (True, 1, None)
    assert gateway.complaints() == []


def told(times: list[float]) -> str:
    ordered = sorted(times)
    median, p99 = (ordered[len(ordered) * part // 100] for part in (50, 99))
    return f"median {median:.2f} s, p99 {p99:.2f} s, worst {ordered[-1]:.2f} s"
