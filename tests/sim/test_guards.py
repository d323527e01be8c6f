"""What stands in the way of commands at a real gateway with a simulated site: it says so, and no stop minds."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
import trio

from skygw.ids import TaskUid
from skygw.sim.journal import movers_of
from skygw.sim.station import Station
from skygw.testing.gateway import TestGateway, open_installation
from tests.sim.hub import UNPARK, control, order, send

PATIENCE_S = 20.0
PARK = {"command_type": "mount.park"}
OPEN = {"command_type": "enclosure.open"}
CLOSE = {"command_type": "enclosure.close"}
STOP = {"command_type": "mount.stop"}

INSERT_INSTRUMENT_AND_TASK = """
    WITH imager AS (
        INSERT INTO instrument (uid, name, instrument_type, telescope_id)
        SELECT %s, 'imager', 'optical_imager', id FROM telescope WHERE uid = %s
        RETURNING id
    )
    INSERT INTO observation_task (uid, task_type, status, instrument_id)
    SELECT %s, 'optical_imaging', 'active', id FROM imager
"""
END_TASK = "UPDATE observation_task SET status = 'interrupted' WHERE uid = %s"


@pytest.fixture
async def station(gateway: TestGateway, tmp_path: Path) -> AsyncIterator[Station]:
    async with open_installation(gateway, directory=tmp_path, time_scale=200.0) as opened:
        yield opened


@pytest.fixture
async def hub(gateway: TestGateway) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway.client() as client:
        yield client


async def until(found: Callable[[], Awaitable[bool]]) -> None:
    with trio.fail_after(PATIENCE_S):
        while not await found():  # noqa: ASYNC110 - what was published is asked for over HTTP
            await trio.sleep(0.05)


async def refusals(hub: httpx.AsyncClient, station: Station, command: dict[str, Any], **more: Any) -> list[str]:
    """All that would refuse a command now."""
    answer = await hub.post("/internal/commands", json=order(station, command, validateOnly=True, **more))
    assert answer.status_code == 200, answer.text
    return [refusal["code"] for refusal in answer.json()["refusals"]]


async def until_refused(
    hub: httpx.AsyncClient, station: Station, expected: list[str], command: dict[str, Any] = UNPARK, **more: Any
) -> None:
    async def are_as_expected() -> bool:
        return await refusals(hub, station, command, **more) == expected

    await until(are_as_expected)


def problem(answer: httpx.Response) -> tuple[int, str, str, str, bool]:
    body = answer.json()
    return answer.status_code, body["code"], body["outcome"], body["retry"], "retry-after" in answer.headers


def on_roof(station: Station) -> dict[str, Any]:
    return {"telescopeUid": None, "deviceUid": str(station.site.enclosure.uid)}


async def test_rain_refuses_what_would_open_and_unpark_and_neither_parking_closing_nor_a_stop(
    station: Station, hub: httpx.AsyncClient
) -> None:
    await control(hub, station)
    station.site.weather_sensor.begin_rain()
    await until_refused(hub, station, ["interlock_active"])
    refused = await hub.post("/internal/commands", json=order(station, UNPARK))
    assert problem(refused) == (409, "interlock_active", "not_sent", "after", True)
    assert refused.json()["details"] == {"uid": str(station.site.telescopes[0].uid), "reasons": ["weather_unsafe"]}
    on = on_roof(station)
    assert await refusals(hub, station, OPEN, **on) == ["interlock_active"]
    for command, where in ((PARK, {}), (STOP, {}), (CLOSE, on)):
        record = await send(hub, station, command, **where)
        assert record["outcome"] == "succeeded", str(record["error"])
    station.site.weather_sensor.end_rain()
    await until_refused(hub, station, [])
    assert (await send(hub, station, UNPARK))["outcome"] == "succeeded"


async def test_whoever_is_on_site_keeps_the_hub_out_until_they_leave(station: Station, hub: httpx.AsyncClient) -> None:
    await control(hub, station)
    station.site.local_control = True
    await until_refused(hub, station, ["local_control"])
    refused = await hub.post("/internal/commands", json=order(station, PARK))
    assert problem(refused) == (409, "local_control", "not_sent", "after", True)
    await until_refused(hub, station, ["local_control"], OPEN, **on_roof(station))
    stop = order(station, STOP)
    assert (await hub.post("/internal/commands", json=stop)).json()["outcome"] == "succeeded"
    station.site.local_control = False
    await until_refused(hub, station, [])
    wanted = order(station, UNPARK)
    assert (await hub.post("/internal/commands", json=wanted, timeout=30)).json()["outcome"] == "succeeded"
    assert movers_of(station.site.telescopes[0].mount.uid, station.journal.entries()) == [wanted["commandId"]]


@contextmanager
def running_task(gateway: TestGateway, station: Station) -> Iterator[TaskUid]:
    """The telescope observes, by the platform's records, until the block is left."""
    uid = TaskUid(uuid4())
    with psycopg.connect(gateway.owner_url) as connection:
        connection.execute(INSERT_INSTRUMENT_AND_TASK, [uuid4(), station.site.telescopes[0].uid, uid])
    yield uid
    with psycopg.connect(gateway.owner_url) as connection:
        connection.execute(END_TASK, [uid])


async def acquire(hub: httpx.AsyncClient, station: Station, while_task: str) -> httpx.Response:
    body = {"telescopeUid": str(station.site.telescopes[0].uid), "whileTask": while_task}
    return await hub.post("/internal/leases", json=body)


async def test_who_takes_control_of_a_telescope_that_observes_says_what_becomes_of_the_task(
    gateway: TestGateway, station: Station, hub: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="skygw.client")
    with running_task(gateway, station) as task:
        refused = await acquire(hub, station, "refuse")
        assert problem(refused) == (409, "task_active", "not_sent", "after", True)
        assert refused.json()["details"]["taskUid"] == str(task)
        lease = (await acquire(hub, station, "interrupt")).json()
        assert (lease["whileTask"], lease["waitingForTask"]) == ("interrupt", {"uid": str(task)})
        mine = {"leaseUid": lease["leaseUid"]}
        wanted = order(station, UNPARK, **mine)
        assert problem(await hub.post("/internal/commands", json=wanted)) == (
            409,
            "task_active",
            "not_sent",
            "after",
            True,
        )
        assert (await send(hub, station, STOP))["outcome"] == "succeeded"
        renewed = (await hub.post(f"/internal/leases/{lease['id']}/renew", json={**mine, "durationS": 900})).json()
        assert (renewed["whileTask"], renewed["waitingForTask"]) == ("interrupt", {"uid": str(task)})
    assert (await hub.post("/internal/commands", json=wanted, timeout=30)).json()["outcome"] == "succeeded"
    assert (await hub.get(f"/internal/leases/{lease['id']}")).json()["waitingForTask"] is None
    assert movers_of(station.site.telescopes[0].mount.uid, station.journal.entries()) == [wanted["commandId"]]
    assert f"the hub says of the task {task}: abort (lease)" in caplog.messages


async def test_a_dry_run_of_a_stranger_names_everything_at_once_in_its_order(
    gateway: TestGateway, station: Station, hub: httpx.AsyncClient
) -> None:
    station.site.local_control = True
    station.site.weather_sensor.begin_rain()
    await until_refused(hub, station, ["lease_required", "local_control", "interlock_active"])
    with running_task(gateway, station):
        await acquire(hub, station, "finish")
        async with gateway.client(service="stranger") as stranger:
            assert await refusals(stranger, station, UNPARK, leaseUid=None) == [
                "lease_held",
                "local_control",
                "interlock_active",
                "task_active",
            ]
    assert movers_of(station.site.telescopes[0].mount.uid, station.journal.entries()) == []
