"""A simulated installation on a real gateway: it does what it is told, proves it, and breaks as it is asked to."""

import hashlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import trio

from skygw.ids import CommandId
from skygw.sim.blueprint import draw_site
from skygw.sim.journal import Action, effects_of
from skygw.sim.station import Station, open_station
from skygw.testing.gateway import TestGateway
from tests.sim.hub import LONG_SLOWNESS, TRACK_M13, UNPARK, ask, control, order, send

PATIENCE_S = 20.0


@pytest.fixture
async def hub(gateway: TestGateway, installation: Station) -> AsyncIterator[httpx.AsyncClient]:
    """Whoever has control of the installation's telescope."""
    async with gateway.client() as client:
        await control(client, installation)
        yield client


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - a gateway has no event for a test
            await trio.sleep(0.01)


def _states(record: dict[str, object]) -> list[str]:
    assert isinstance(record["transitions"], list)
    return [step["state"] for step in record["transitions"]]


async def test_a_command_is_carried_out_and_proved_by_reading_back(
    hub: httpx.AsyncClient, installation: Station
) -> None:
    await send(hub, installation, UNPARK)
    tracked = await send(hub, installation, TRACK_M13)

    assert tracked["outcome"] == "succeeded"
    (mount,) = tracked["proof"]["devices"]
    assert (mount["state"], mount["basis"]) == ("tracking", "read_back")
    command_id = CommandId(UUID(tracked["commandId"]))
    assert [entry.action for entry in effects_of(command_id, installation.journal.entries())] == [
        Action.SLEW_STARTED,
        Action.TRACKING_STARTED,
    ]


async def test_the_same_command_id_moves_the_hardware_once(hub: httpx.AsyncClient, installation: Station) -> None:
    body = order(installation, UNPARK)
    answers = [(await hub.post("/internal/commands", json=body)).json() for _ in range(2)]

    assert [answer["duplicate"] for answer in answers] == [False, True]
    assert len(effects_of(CommandId(UUID(body["commandId"])), installation.journal.entries())) == 1


@pytest.mark.parametrize("mode", ["graceful", "immediate"])
async def test_progress_of_a_slow_slew_is_told_and_a_cancel_stops_it(
    hub: httpx.AsyncClient, installation: Station, mode: str
) -> None:
    mount = installation.site.telescopes[0].mount
    await send(hub, installation, UNPARK)
    mount.faults.slow = LONG_SLOWNESS
    slewing = await send(hub, installation, TRACK_M13, waitS=0)
    path = f"/internal/commands/{slewing['commandId']}"
    with trio.fail_after(PATIENCE_S):
        while not (record := (await hub.get(path)).json())["progress"]:  # noqa: ASYNC110
            await trio.sleep(0.02)
    assert record["state"] == "running"

    receipt = (await hub.post(f"{path}/cancel", json={"mode": mode, "waitS": 10})).json()

    assert receipt["receipt"] == "interrupted"
    assert receipt["proof"]["devices"][0]["state"] == "stopped"
    assert not mount.is_moving


async def test_a_command_whose_time_runs_out_on_site_leaves_nothing_moving(
    hub: httpx.AsyncClient, installation: Station
) -> None:
    await send(hub, installation, UNPARK)
    mount = installation.site.telescopes[0].mount
    mount.faults.slow = LONG_SLOWNESS

    ended = await send(hub, installation, TRACK_M13, timeoutS=1)

    assert (ended["state"], ended["error"]["reason"]) == ("failed", "deadline_exceeded")
    assert not mount.is_moving


async def test_a_slew_that_takes_longer_than_it_was_given_asks_for_more_time_and_arrives(
    hub: httpx.AsyncClient, installation: Station
) -> None:
    await send(hub, installation, UNPARK)
    mount = installation.site.telescopes[0].mount
    mount.faults.slow = 3.0

    slewing = await send(hub, installation, TRACK_M13, timeoutS=1, maxTimeoutS=60, waitS=0)
    ended = await send(hub, installation, TRACK_M13, commandId=slewing["commandId"], waitS=20)

    assert ended["state"] == "completed", ended["error"]
    assert slewing["deadlineAt"] < ended["deadlineAt"] <= ended["deadlineMaxAt"] == slewing["deadlineMaxAt"]
    assert datetime.fromisoformat(ended["endedAt"]) > datetime.fromisoformat(slewing["deadlineAt"])


@pytest.mark.parametrize("by", ["cancel", "camera.exposure.abort", "telescope.stop"])
async def test_an_exposure_that_is_ended_says_that_its_readout_was_discarded(
    hub: httpx.AsyncClient, installation: Station, by: str
) -> None:
    camera = installation.site.telescopes[0].camera
    exposing = await send(hub, installation, {"command_type": "camera.exposure.start", "duration_s": 3600}, waitS=0)
    path = f"/internal/commands/{exposing['commandId']}"
    await until(lambda: camera.takes_a_frame)
    if by == "cancel":
        receipt = (await hub.post(f"{path}/cancel", json={"waitS": 10})).json()
        assert receipt["receipt"] == "interrupted"
    else:
        stop = await send(hub, installation, {"command_type": by})
        assert stop["result"] == ({"readout": "discarded"} if "abort" in by else None)
    ended = (await hub.post("/internal/commands", json={**_again(exposing), "waitS": 10})).json()

    assert (ended["state"], ended["result"]) == ("canceled", {"readout": "discarded"})
    assert not camera.takes_a_frame
    assert Action.FRAME_STORED not in [entry.action for entry in installation.journal.entries()]


async def test_an_abort_without_an_exposure_has_nothing_to_discard(
    hub: httpx.AsyncClient, installation: Station
) -> None:
    exposed = await send(hub, installation, {"command_type": "camera.exposure.start", "duration_s": 0})
    aborted = await send(hub, installation, {"command_type": "camera.exposure.abort"})
    assert (exposed["result"]["readout"], aborted["state"], aborted["result"]) == ("kept", "completed", None)


def _again(record: dict[str, Any]) -> dict[str, Any]:
    """The body that brings the same command again."""
    return {name: record[name] for name in ("telescopeUid", "commandId", "command")}


async def test_the_roof_obeys_the_telescope_below_it_and_the_observatory(
    hub: httpx.AsyncClient, installation: Station
) -> None:
    ended = await send(hub, installation, {"command_type": "enclosure.open"})
    assert ended["outcome"] == "succeeded"

    body = order(installation, {"command_type": "enclosure.close"})
    del body["telescopeUid"]
    closed = await hub.post(
        "/internal/commands", json={**body, "deviceUid": str(installation.site.enclosure.uid)}, timeout=30
    )
    assert UUID(closed.json()["installId"]) == installation.observatory_node.install_id
    assert closed.json()["outcome"] == "succeeded"


async def test_telescope_stop_stops_every_device_of_it(hub: httpx.AsyncClient, installation: Station) -> None:
    telescope = installation.site.telescopes[0]
    await send(hub, installation, UNPARK)
    for device in telescope.devices:
        device.faults.slow = LONG_SLOWNESS
    await send(hub, installation, TRACK_M13, waitS=0)
    await send(hub, installation, {"command_type": "camera.exposure.start", "duration_s": 60}, waitS=0)
    await until(lambda: telescope.mount.holder is not None and telescope.camera.holder is not None)

    stopped = await send(hub, installation, {"command_type": "telescope.stop"})

    assert stopped["outcome"] == "succeeded"
    assert {device["device_uid"] for device in stopped["proof"]["devices"]} == {str(d.uid) for d in telescope.devices}
    assert [device.holder for device in telescope.devices] == [None] * 4


async def test_a_frame_is_read_whole_and_in_parts(hub: httpx.AsyncClient, installation: Station) -> None:
    exposed = await send(hub, installation, {"command_type": "camera.exposure.start", "duration_s": 1})
    asset_uid, sha256 = exposed["result"]["asset_uid"], exposed["result"]["sha256"]
    kept = installation.frames.read(asset_uid)

    whole = await ask(hub, installation, "asset.read", params={"asset_uid": asset_uid})
    part = await ask(hub, installation, "asset.read", params={"asset_uid": asset_uid}, offset=2_880, length=1_000)
    by_params = await ask(
        hub, installation, "asset.read", params={"asset_uid": asset_uid, "offset": 2_880, "length": 1_000}
    )
    changed = await ask(hub, installation, "asset.read", params={"asset_uid": asset_uid}, ifDigest="0" * 64)
    picture = await ask(hub, installation, "camera.preview")

    assert hashlib.sha256(whole.content).hexdigest() == sha256 == hashlib.sha256(kept).hexdigest()
    assert part.content == by_params.content == kept[2_880:3_880]
    assert (changed.status_code, changed.json()["code"]) == (409, "node_refused")
    assert picture.headers["content-type"] == "image/png"
    assert picture.content.startswith(b"\x89PNG")


async def test_what_is_not_there_is_refused_in_words(hub: httpx.AsyncClient, installation: Station) -> None:
    asked: list[tuple[str, dict[str, object], int]] = [
        ("asset.read", {"asset_uid": "nothing"}, 404),
        ("asset.read", {}, 422),
        ("camera.preview", {}, 404),
        ("device.read", {"device_uid": "nothing"}, 404),
        ("device.read", {"device_uid": str(installation.site.enclosure.uid)}, 404),
        ("log.tail", {"lines": "all"}, 422),
        ("mount.point", {}, 404),
    ]
    answers = [(await ask(hub, installation, operation, params=params)) for operation, params, _ in asked]
    assert [answer.status_code for answer in answers] == [status for _, _, status in asked]
    assert {answer.json()["outcome"] for answer in answers} == {"refused"}


async def test_a_device_and_the_log_are_read(hub: httpx.AsyncClient, installation: Station) -> None:
    await send(hub, installation, UNPARK)
    mount = installation.site.telescopes[0].mount

    said = await ask(hub, installation, "device.read", params={"device_uid": str(mount.uid)})
    log = await ask(hub, installation, "log.tail", params={"lines": 1})

    assert (said.json()["state"], said.json()["is_parked"]) == ("stopped", False)
    assert log.text.count("\n") == 1
    assert "mount.unpark" in log.text


async def test_a_silent_node_answers_nothing_and_notices_that_nobody_waits(
    hub: httpx.AsyncClient, installation: Station
) -> None:
    node = installation.telescope_node
    node.faults.silent = True

    ended = await ask(hub, installation, "log.tail", timeoutS=0.5)

    assert (ended.status_code, ended.json()["code"]) == (504, "deadline_exceeded")
    await until(lambda: node.operations.begun == 1)


async def test_a_caller_that_hangs_up_is_known_at_the_node(hub: httpx.AsyncClient, installation: Station) -> None:
    node = installation.telescope_node
    node.faults.silent = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, hub, installation, "log.tail")
        await until(lambda: node.operations.begun == 1)
        nursery.cancel_scope.cancel()
    await until(lambda: node.operations.abandoned == ["log.tail"])


async def test_clocks_that_are_wrong_change_nothing(gateway: TestGateway, tmp_path: Path) -> None:
    blueprint = draw_site(uuid4().hex, 1)
    await gateway.provision([blueprint])
    habits = replace(gateway.habits(), monotonic_ahead_s=-1e7)
    with open_station(blueprint, directory=tmp_path, habits=habits, time_scale=20.0) as station:
        station.site.clock.set_wrong_by(400 * 86_400.0)
        async with trio.open_nursery() as nursery, gateway.client() as hub:
            nursery.start_soon(station.run)
            with trio.fail_after(PATIENCE_S):
                await station.wait_connected()
            await control(hub, station)
            unparked = await send(hub, station, UNPARK, timeoutS=5)
            nursery.cancel_scope.cancel()
    assert unparked["outcome"] == "succeeded"


async def test_a_full_disk_fails_the_exposure_and_says_so(hub: httpx.AsyncClient, installation: Station) -> None:
    installation.frames.full = True
    ended = await send(hub, installation, {"command_type": "camera.exposure.start", "duration_s": 1})
    assert (ended["outcome"], ended["error"]["details"]["reason"]) == ("failed", "device_fault")
    assert "disk is full" in ended["error"]["message"]


async def test_a_lie_shows_in_the_proof_and_the_journal_knows_better(
    hub: httpx.AsyncClient, installation: Station
) -> None:
    mount = installation.site.telescopes[0].mount
    await send(hub, installation, UNPARK)
    mount.faults.lies = {"state": "parked", "is_parked": True}
    read = await ask(hub, installation, "device.read", params={"device_uid": str(mount.uid)})
    assert json.loads(read.content)["is_parked"] is True
    assert installation.journal.entries()[-1].action is Action.UNPARKED


async def test_an_unknown_command_is_rejected_by_the_site(hub: httpx.AsyncClient, installation: Station) -> None:
    ended = await send(hub, installation, {"command_type": "dome.sing", "song": str(uuid4())})
    assert (ended["state"], ended["outcome"]) == ("rejected", "refused")
    assert "rejected" in _states(ended)
    assert installation.journal.entries() == []
