"""A command that waits in a line while its lease is broken moves nothing when the line carries again."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import trio

from skygw.ids import CommandId
from skygw.sim.blueprint import draw_site
from skygw.sim.fault_proxy import FaultProxy
from skygw.sim.journal import Order, effects_of, movers_of
from skygw.sim.line import Line, Way
from skygw.sim.station import Station, open_station
from skygw.testing.gateway import TestGateway

PATIENCE_S = 30.0
FILLER = "x" * 50_000
MOST_FILLERS = 200
"""10 MB: more than the sockets of a line and its kernel take."""
SLEW = {"command_type": "mount.point", "target": {"position_type": "horizontal", "alt_deg": 60.0, "az_deg": 180.0}}


@pytest.fixture
def gateway_settings() -> dict[str, object]:
    """The session outlives a line that is held."""
    return {"heartbeat_s": PATIENCE_S, "dead_after_s": 3 * PATIENCE_S}


@pytest.fixture
async def station(gateway: TestGateway, tmp_path: Path) -> AsyncIterator[Station]:
    """Each of its installations has a line of its own."""
    blueprint = draw_site(uuid4().hex, 1)
    await gateway.provision([blueprint])
    habits = replace(gateway.habits(), line=Line())
    with open_station(blueprint, directory=tmp_path, habits=habits, time_scale=50.0) as opened:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(opened.run)
            with trio.fail_after(PATIENCE_S):
                await opened.wait_connected()
            yield opened
            nursery.cancel_scope.cancel()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    with trio.fail_after(PATIENCE_S):
        while not await condition():  # noqa: ASYNC110 - the gateway has no event for us
            await trio.sleep(0.01)


class Hub:
    """Two people at one telescope, through one service."""

    def __init__(self, http: httpx.AsyncClient, station: Station) -> None:
        self._http = http
        self._station = station
        self._node = f"/internal/nodes/{station.telescope_node.install_id}"

    async def acquire(self, person: str) -> dict[str, Any]:
        body = {"telescopeUid": str(self._station.site.telescopes[0].uid), "actor": {"uid": person, "kind": "user"}}
        answer = await self._http.post("/internal/leases", json=body)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    async def break_off(self, lease: dict[str, Any]) -> None:
        answer = await self._http.post(f"/internal/leases/{lease['id']}/break", json={"reason": "the next one"})
        assert answer.json()["ended"] == "broken"

    async def slew(self, person: str, lease: dict[str, Any], **more: Any) -> dict[str, Any]:
        body = {
            "telescopeUid": lease["telescopeUid"],
            "commandId": str(uuid4()),
            "command": SLEW,
            "leaseUid": lease["leaseUid"],
            "actor": {"uid": person, "kind": "user"},
            "timeoutS": 300,
            **more,
        }
        return dict((await self._http.post("/internal/commands", json=body, timeout=PATIENCE_S)).json())

    async def record(self, command_id: str) -> dict[str, Any]:
        return dict((await self._http.get(f"/internal/commands/{command_id}")).json())

    async def fill_line(self, nursery: trio.Nursery) -> None:
        """Returns when more lies before the held line than the kernel takes: what comes now waits in the gateway."""
        body = {"operation": "log.tail", "params": {"filler": FILLER}, "timeoutS": PATIENCE_S}
        for _ in range(MOST_FILLERS):
            nursery.start_soon(self._ask, body)
            await trio.sleep(0.01)
            if (await self._http.get(self._node)).json()["queueBytes"]["data"] > len(FILLER):
                return
        raise AssertionError("the line is never full")

    async def _ask(self, body: dict[str, Any]) -> None:
        await self._http.post(f"{self._node}/direct", json=body, timeout=2 * PATIENCE_S)


async def test_a_command_that_waits_while_its_lease_is_broken_is_refused_as_stale_and_moves_nothing(
    gateway: TestGateway, station: Station
) -> None:
    mount = station.site.telescopes[0].mount
    line = station.telescope_node.proxy
    assert isinstance(line, FaultProxy)
    await mount.unpark(Order(cause="test"))
    stood_at = mount.place
    limits = httpx.Limits(max_connections=None)
    headers = {"authorization": f"Bearer {gateway.service_token()}"}
    async with (
        httpx.AsyncClient(base_url=gateway.internal_url, headers=headers, limits=limits, trust_env=False) as http,
        trio.open_nursery() as nursery,
    ):
        hub = Hub(http, station)
        anna = await hub.acquire("anna")
        line.hold(Way.DOWN)
        await hub.fill_line(nursery)
        held = await hub.slew("anna", anna, waitS=0)
        await hub.break_off(anna)
        bert = await hub.acquire("bert")
        waits = await hub.record(held["commandId"])
        line.release(Way.DOWN)

        async def has_ended() -> bool:
            return (await hub.record(held["commandId"]))["state"] not in ("received", "written")

        await until(has_ended)
        refused = await hub.record(held["commandId"])
        still_stands = mount.place == stood_at
        moved = await hub.slew("bert", bert, waitS=20)
        nursery.cancel_scope.cancel()
    journal = station.journal.entries()

    assert waits["state"] == "received"
    assert (refused["state"], refused["error"]["reason"]) == ("rejected", "stale_fence")
    assert (still_stands, effects_of(CommandId(held["commandId"]), journal)) == (True, [])
    assert moved["outcome"] == "succeeded"
    assert movers_of(mount.uid, journal) == ["test", moved["commandId"]]
