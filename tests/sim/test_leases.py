"""Who has control moves the telescope and nobody else; when control ends the node acts alone. Judged by the journal."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import trio

from skygw.client.control_lease import ControlLease
from skygw.errors import LeaseRequired
from skygw.ids import CommandId
from skygw.sim.journal import Action, Entry, Order, movers_of
from skygw.sim.sky import M13
from skygw.sim.station import Station
from skygw.testing.gateway import TestGateway, open_installation
from tests.sim.hub import UNPARK

ON_SITE = Order(cause="test")
PATIENCE_S = 20.0
PARK = {"command_type": "mount.park"}


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - a device journal has no event for a test
            await trio.sleep(0.01)


@pytest.fixture
async def station(gateway: TestGateway, tmp_path: Path) -> AsyncIterator[Station]:
    """Two telescopes under one roof."""
    async with open_installation(gateway, directory=tmp_path, telescopes=2, time_scale=200.0) as opened:
        yield opened


@pytest.fixture
async def hub(gateway: TestGateway) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway.client() as client:
        yield client


async def acquire(hub: httpx.AsyncClient, person: str, /, **body: Any) -> dict[str, Any]:
    answer = await hub.post("/internal/leases", json={"actor": {"uid": person, "kind": "user"}, **body})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def command(target: dict[str, Any], body: dict[str, Any], person: str, lease_uid: str | None) -> dict[str, Any]:
    actor = {"uid": person, "kind": "user"}
    return {**target, "commandId": str(uuid4()), "command": body, "actor": actor, "leaseUid": lease_uid, "waitS": 10}


def on_telescope(station: Station) -> dict[str, Any]:
    return {"telescopeUid": str(station.site.telescopes[0].uid)}


def on_roof(station: Station) -> dict[str, Any]:
    return {"deviceUid": str(station.site.enclosure.uid)}


def by_policy(station: Station) -> list[Entry]:
    return [entry for entry in station.journal.entries() if (entry.cause or "").startswith("policy: lease")]


async def knows(station: Station, fence: int) -> None:
    """Waits until the node of the first telescope has heard of this fence."""
    await until(lambda: any(lease.fence == fence for lease in station.telescope_node.client.leases))


async def test_a_telescope_whose_lease_ends_without_a_link_stops_by_itself(
    gateway: TestGateway, station: Station, hub: httpx.AsyncClient
) -> None:
    mount = station.site.telescopes[0].mount
    await mount.unpark(ON_SITE)
    await mount.track(ON_SITE, M13)
    lease = await acquire(hub, "anna", **on_telescope(station), durationS=1.0, onExpiry="stop")
    await knows(station, lease["fence"])
    gateway.running.start_drain()
    await until(lambda: bool(by_policy(station)))
    stopped = by_policy(station)[0]
    assert (stopped.device_uid, stopped.action) == (str(mount.uid), Action.TRACKING_STOPPED)
    assert stopped.cause == "policy: lease expired, stop"
    assert not mount.is_parked


async def test_a_silent_holder_leaves_a_telescope_that_parks_before_its_roof_closes(
    gateway: TestGateway, station: Station, hub: httpx.AsyncClient
) -> None:
    first, second = (telescope.mount for telescope in station.site.telescopes)
    await station.site.enclosure.open(ON_SITE)
    await first.unpark(ON_SITE)
    lease = await acquire(hub, "anna", **on_telescope(station), durationS=600.0, deadmanS=1.0)
    await knows(station, lease["fence"])
    gateway.running.start_drain()
    await until(lambda: Action.ROOF_CLOSED in {entry.action for entry in by_policy(station)})
    done = [entry.action for entry in by_policy(station)]
    assert done.index(Action.PARK_REACHED) < done.index(Action.ROOF_CLOSED)
    assert {entry.cause for entry in by_policy(station)} == {"policy: lease silent, safe_shutdown"}
    assert second.is_parked


async def test_whoever_lost_control_moves_nothing_after_who_got_it(
    gateway: TestGateway, station: Station, hub: httpx.AsyncClient
) -> None:
    """Breaks come in the middle of a stream of commands, some of them on the wire already."""
    target = on_telescope(station)
    order: dict[str, str] = {}
    answers: list[httpx.Response] = []

    async def keep_moving(person: str, lease_uid: str) -> None:
        while True:
            for body in (UNPARK, PARK):
                wanted = command(target, body, person, lease_uid)
                order[wanted["commandId"]] = person
                answers.append(await hub.post("/internal/commands", json=wanted, timeout=30))

    people = ["anna", "bert", "cleo"]
    for person in people:
        lease = await acquire(hub, person, **target)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(keep_moving, person, lease["leaseUid"])
            moved = movers_of(station.site.telescopes[0].mount.uid, station.journal.entries())
            await until(
                lambda moved=moved: (
                    len(movers_of(station.site.telescopes[0].mount.uid, station.journal.entries()))  # type: ignore[misc]
                    > len(moved) + 3
                )
            )
            broken = await hub.post(f"/internal/leases/{lease['id']}/break", json={"reason": "the next one"})
            assert broken.json()["ended"] == "broken"
            nursery.cancel_scope.cancel()
    movers = [order[mover] for mover in movers_of(station.site.telescopes[0].mount.uid, station.journal.entries())]
    turns = [mover for at, mover in enumerate(movers) if at == 0 or movers[at - 1] != mover]
    assert turns == people
    assert {answer.status_code for answer in answers} <= {200, 202, 409}


async def test_two_operators_never_move_one_roof(station: Station, hub: httpx.AsyncClient) -> None:
    """One has a telescope, the other the roof, and then one has both telescopes: each time one of them moves it."""
    first, second = (str(telescope.uid) for telescope in station.site.telescopes)
    roof = on_roof(station)
    people: dict[str, str] = {}

    async def moves(person: str, lease: dict[str, Any], kind: str) -> int:
        wanted = command(roof, {"command_type": kind}, person, lease["leaseUid"])
        people[wanted["commandId"]] = person
        return (await hub.post("/internal/commands", json=wanted, timeout=30)).status_code

    one = await acquire(hub, "anna", telescopeUid=first)
    assert await moves("anna", one, "enclosure.open") == 409
    own = await acquire(hub, "bert", **roof)
    assert await moves("bert", own, "enclosure.open") == 200
    other = await acquire(hub, "anna", telescopeUid=second)
    assert await moves("anna", other, "enclosure.close") == 409
    released = await hub.post(
        f"/internal/leases/{own['id']}/release",
        json={"leaseUid": own["leaseUid"], "actor": {"uid": "bert", "kind": "user"}},
    )
    assert released.status_code == 200
    assert await moves("bert", own, "enclosure.close") == 409
    assert await moves("anna", other, "enclosure.close") == 200
    movers = movers_of(station.site.enclosure.uid, station.journal.entries())
    assert [people[mover] for mover in movers] == ["bert", "anna"]


async def test_a_service_moves_a_shared_roof_by_its_own_lease_or_by_those_of_all_telescopes_under_it(
    gateway: TestGateway, station: Station
) -> None:
    roof, telescopes = station.site.enclosure, [telescope.uid for telescope in station.site.telescopes]
    async with gateway.caller() as caller:

        async def moves(kind: str, lease: ControlLease) -> object:
            record = await caller.command(
                {"command_type": kind}, command_id=CommandId(uuid4()), device_uid=roof.uid, wait_s=10, lease=lease
            )
            return record["outcome"]

        async with caller.lease(device_uid=roof.uid) as own:
            opened = await moves("enclosure.open", own)
        async with caller.lease(telescope_uid=telescopes[0]) as one:
            with pytest.raises(LeaseRequired, match="does not reach"):
                await moves("enclosure.close", one)
            async with caller.lease(telescope_uid=telescopes[1]):
                closed = await moves("enclosure.close", one)
    assert (opened, closed) == ("succeeded", "succeeded")
    assert len(movers_of(roof.uid, station.journal.entries())) == 2


async def test_a_node_that_was_away_is_told_who_has_control_when_it_comes(
    station: Station, hub: httpx.AsyncClient
) -> None:
    node = station.telescope_node
    links = node.counts.links
    await hub.post(f"/internal/nodes/{node.install_id}/disconnect")
    lease = await acquire(hub, "anna", **on_telescope(station))
    await until(lambda: node.counts.links > links)
    await knows(station, lease["fence"])
    [held] = node.client.leases
    assert held.holder.value == {"service": "tests", "actor": {"uid": "anna", "kind": "user"}}
    assert held.uid == UUID(lease["telescopeUid"])


async def test_a_stop_needs_no_lease_and_waits_for_none(station: Station, hub: httpx.AsyncClient) -> None:
    await acquire(hub, "anna", **on_telescope(station))
    stop = command(on_telescope(station), {"command_type": "mount.stop"}, "bert", str(uuid4()))
    answer = await hub.post("/internal/commands", json=stop, timeout=30)
    assert (answer.status_code, answer.json()["outcome"]) == (200, "succeeded")
    entries = [entry for entry in station.journal.entries() if entry.command_id == stop["commandId"]]
    assert [entry.action for entry in entries] == [Action.STOP_RECEIVED]
