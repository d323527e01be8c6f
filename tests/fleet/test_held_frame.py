"""What was held on the way comes late, and late is noticed: by the node, on its own clock, before anything moves."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import trio

from skygw.client.commands import Command, CommandOutcome
from skygw.client.direct import DirectCall
from skygw.client.node import NodeClient, NodeConfig
from skygw.ids import InstallId
from skygw.protocol.node_frames import NodeType
from skygw.sim.fault_proxy import FaultProxy
from skygw.sim.line import Way
from tests.fakes.gateway_process import GatewayProcess, gateway_process
from tests.fleet.callers import Service
from tests.fleet.fleet import installations, make_known, until

HOLD_S = float(os.environ.get("SKYGW_TEST_HOLD_S", "2.5"))
"""How long the link is held; `nox -s fleet` holds it for 30 s."""

DEADLINE_S = HOLD_S / 2.5
"""What the callers of the held frames give them: over when they arrive."""

PATIENT_BEATS = {"heartbeat_s": HOLD_S, "dead_after_s": 3 * HOLD_S}
"""The session must outlive the silence, or the frames would be lost with it and nothing would be late."""


@dataclass
class Site:
    """A node that does nothing but write down what it was made to do."""

    done: list[str] = field(default_factory=list)

    async def read(self, call: DirectCall) -> None:
        self.done.append(call.operation)
        await call.start("text/plain")
        await call.send(b"as asked")

    async def act(self, command: Command) -> CommandOutcome:
        self.done.append(command.type)
        return CommandOutcome.completed()


@asynccontextmanager
async def held_line(gateway: GatewayProcess) -> AsyncIterator[tuple[FaultProxy, str]]:
    """A line to the gateway that can be held, and the socket's address behind it."""
    target = urlsplit(gateway.socket_url)
    proxy = FaultProxy(target.hostname or "", target.port or 80)
    async with trio.open_nursery() as nursery:
        port: int = await nursery.start(proxy.run)
        yield proxy, target._replace(netloc=f"127.0.0.1:{port}").geturl()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def node_behind(url: str, gateway: GatewayProcess, install_id: InstallId, state_dir: Path) -> AsyncIterator[Site]:
    """A node client as SkyNode embeds it, connected through what listens at `url`."""

    async def token() -> str:
        return gateway.node_token(install_id)

    site = Site()
    config = NodeConfig(
        url=url,
        install_id=install_id,
        node_type=NodeType.TELESCOPE,
        software_version="1.0",
        token=token,
        state_dir=state_dir,
    )
    client = NodeClient(config)
    client.operation("device.read", effects="none")(site.read)
    client.command_handler(site.act)
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        await client.wait_connected()
        yield site
        nursery.cancel_scope.cancel()


async def test_frames_held_beyond_their_deadline_are_refused_by_the_node_and_a_stop_is_run(tmp_path: Path) -> None:
    async with (
        gateway_process(tmp_path / "hub", **PATIENT_BEATS) as gateway,
        held_line(gateway) as (proxy, url),
    ):
        caller = Service(gateway)
        [install_id] = installations(seed=30, count=1)
        [telescope_uid] = await make_known(gateway, [install_id])
        lease = await caller.post("/internal/leases", {"telescopeUid": str(telescope_uid), "durationS": 600})
        read = {"operation": "device.read", "params": {}, "timeoutS": DEADLINE_S}
        order = {"telescopeUid": str(telescope_uid), "timeoutS": DEADLINE_S}
        slew_id, stop_id = str(uuid4()), str(uuid4())
        slew = {
            **order,
            "commandId": slew_id,
            "command": {"command_type": "mount.point", "target": {}},
            "leaseUid": lease.json()["leaseUid"],
        }
        stop = {**order, "commandId": stop_id, "command": {"command_type": "mount.stop"}}

        async with node_behind(url, gateway, install_id, tmp_path / "node") as site:
            in_time = await caller.post(f"/internal/nodes/{install_id}/direct", {**read, "timeoutS": 30})
            done_in_time = list(site.done)
            proxy.hold(Way.DOWN)
            answers: dict[str, Any] = {}

            async def ask(name: str, path: str, body: dict[str, Any]) -> None:
                answers[name] = await caller.post(path, body)

            async def slew_then_stop() -> None:
                await ask("slew", "/internal/commands", slew)
                # A stop that came before the slew was written would take it back, and nothing would be held.
                await until(partial(command_is_in, caller, slew_id, {"written"}))
                await ask("stop", "/internal/commands", stop)

            async with trio.open_nursery() as asking:
                asking.start_soon(ask, "read", f"/internal/nodes/{install_id}/direct", read)
                asking.start_soon(slew_then_stop)
            # Every one of them has been sent by now; from here they are held for longer than they had to live.
            await trio.sleep(HOLD_S - DEADLINE_S)
            done_while_held = list(site.done)
            proxy.release(Way.DOWN)

            ended = {"completed", "rejected", "failed", "canceled"}
            await until(partial(command_is_in, caller, stop_id, ended))
            await until(partial(command_is_in, caller, slew_id, ended))
            slew_record = await caller.get(f"/internal/commands/{slew_id}")
            stop_record = await caller.get(f"/internal/commands/{stop_id}")
            again = await caller.post(f"/internal/nodes/{install_id}/direct", {**read, "timeoutS": 30})
            node = await caller.get(f"/internal/nodes/{install_id}")

    assert (in_time.status, in_time.body, done_in_time) == (200, b"as asked", ["device.read"])
    assert answers["read"].status == 504
    assert answers["read"].json()["outcome"] == "unknown"
    assert done_while_held == ["device.read"]
    assert site.done == ["device.read", "mount.stop", "device.read"]
    assert (slew_record["state"], slew_record["error"]["reason"]) == ("rejected", "deadline_exceeded")
    assert stop_record["state"] == "completed"
    assert (again.status, node["epoch"]) == (200, 1)
    assert gateway.complaints() == []


async def command_is_in(caller: Service, command_id: str, states: set[str]) -> bool:
    record = await caller.get(f"/internal/commands/{command_id}")
    return record["state"] in states
