"""A cancel is said to have interrupted a device only if that does not move afterwards, whatever its driver says.

The whole way from the caller to the driver and back, judged by where the devices truly are. `nox -s commands` cancels a
thousand commands. `SKYGW_TEST_SEED` draws others, and the same ones again.
"""

import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import httpx
import pytest
import trio

from skygw.sim.devices.filter_wheel import FilterWheel
from skygw.sim.devices.focuser import Focuser
from skygw.sim.devices.mount import Mount
from skygw.sim.devices.mover import Mover
from skygw.sim.faults import Faults
from skygw.sim.journal import Order
from skygw.sim.seeds import chance_of
from skygw.sim.station import Station
from skygw.testing.gateway import TestGateway, open_installation
from tests.fleet.commands.lies import HONEST, LIES, Lie

SEED = os.environ.get("SKYGW_TEST_SEED", "1")
IS_LONG = os.environ.get("SKYGW_TEST_COMMANDS") == "long"
CANCELS = 1_000 if IS_LONG else 60
SITES = 4
"""Each has two telescopes with three devices that travel, under one roof: so many cancels go on at once."""

TIME_SCALE = 100.0
WATCHED_S = 60.0
"""Simulated seconds for which a device is watched after its receipt: longer than any of the lies takes."""
SLOW = 50.0
"""Whatever is sent on its way is still on it when that is over, and goes faster than its readings are fine."""
SLOW_ROOF = 500.0
"""It only opens, and is not open after a hundred times."""
PATIENCE_S = 30.0
ON_SITE = Order(cause="test")


@dataclass(frozen=True)
class Bench:
    """One device that commands make travel, under a lease."""

    station: Station
    device: Mover[Any]
    lease_uid: str


@dataclass(frozen=True)
class Verdict:
    """What the caller was told of one cancel, and whether the device moved after that."""

    lie: str
    device_type: str
    receipt: str
    canceled: str | None
    moved: bool
    why: str
    """What else the answer and the record say; for whoever looks into it."""


def far_away(device: Mover[Any]) -> dict[str, Any]:
    """A command that sends it to the other end of its travel."""
    match device:
        case Mount():
            azimuth = (device.truth()["az_deg"] + 180.0) % 360.0
            target = {"position_type": "horizontal", "alt_deg": 40.0, "az_deg": azimuth}
            return {"command_type": "mount.point", "target": target}
        case Focuser():
            return {"command_type": "focuser.move", "position": 0 if device.place > device.steps / 2 else device.steps}
        case FilterWheel():
            position = (round(device.place) + 2) % len(device.filters)
            return {"command_type": "filter_wheel.position.set", "position": position}
        case _:
            return {"command_type": "enclosure.open"}


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - a device has no event for us
            await trio.sleep(0.002)


@asynccontextmanager
async def benches(gateway: TestGateway, hub: httpx.AsyncClient, directory: Path) -> AsyncIterator[list[Bench]]:
    """Every device of some sites, each under a lease of its telescope or of the roof."""

    async def lease(**what: Any) -> str:
        answer = await hub.post("/internal/leases", json={**what, "durationS": 900.0})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["leaseUid"])

    found: list[Bench] = []
    async with AsyncExitStack() as stack:
        for number in range(SITES):
            station = await stack.enter_async_context(
                open_installation(gateway, directory=directory / str(number), telescopes=2, time_scale=TIME_SCALE)
            )
            for telescope in station.site.telescopes:
                await telescope.mount.unpark(ON_SITE)
                mine = await lease(telescopeUid=str(telescope.uid))
                devices = (telescope.mount, telescope.focuser, telescope.filter_wheel)
                found += [Bench(station, device, mine) for device in devices]
            roof = station.site.enclosure
            found.append(Bench(station, roof, await lease(deviceUid=str(roof.uid))))
        yield found


async def cancel_on(bench: Bench, lie: Lie, hub: httpx.AsyncClient, chance: Random) -> Verdict:
    """One command, canceled on its way by a driver that lies; then the device is watched, and put in order."""
    device, clock = bench.device, bench.station.site.clock
    device.faults = lie.faults(chance)
    device.faults.slow = SLOW_ROOF if device.device_type == "enclosure" else SLOW
    device.late_moves_s = lie.late_moves_s
    order = {
        "deviceUid": str(device.uid),
        "commandId": str(uuid4()),
        "command": far_away(device),
        "leaseUid": bench.lease_uid,
        "timeoutS": 300,
    }
    sent = await hub.post("/internal/commands", json=order, timeout=PATIENCE_S)
    assert sent.status_code == 202, sent.text
    await until(lambda: device.is_moving)
    await clock.sleep(chance.uniform(0.5, 5.0))
    path = f"/internal/commands/{order['commandId']}"
    how: dict[str, Any] = chance.choice(
        [{"mode": "immediate"}, {"mode": "graceful"}, {"mode": "graceful", "graceS": 0.01}]
    )
    answer = await hub.post(f"{path}/cancel", json={**how, "waitS": 20}, timeout=PATIENCE_S)
    stood_at = device.place
    assert answer.status_code == 200, answer.text
    moved = await is_moved(device, stood_at, clock.sleep)
    record = (await hub.get(path, timeout=PATIENCE_S)).json()
    device.faults = Faults()
    device.stop(ON_SITE)
    receipt, why = answer.json(), json.dumps([answer.json(), record["error"]])
    return Verdict(lie.name, device.device_type, receipt["receipt"], record["canceled"], moved, why)


async def is_moved(device: Mover[Any], stood_at: object, sleep: Callable[[float], Any]) -> bool:
    """Whether it leaves its place within the time, and be it to come back."""
    for _ in range(10):
        await sleep(WATCHED_S / 10)
        if device.place != stood_at:
            return True
    return False


async def cancel_all(
    gateway: TestGateway, hub: httpx.AsyncClient, directory: Path, lies: Sequence[Lie]
) -> list[Verdict]:
    """As many at once as there are devices."""
    verdicts: list[Verdict] = []
    left = list(enumerate(lies))

    async def work(bench: Bench) -> None:
        while left:
            number, lie = left.pop()
            verdicts.append(await cancel_on(bench, lie, hub, chance_of(SEED, "cancel", number)))

    async with benches(gateway, hub, directory) as found, trio.open_nursery() as nursery:
        for bench in found:
            nursery.start_soon(work, bench)
    return verdicts


@pytest.mark.timeout(900 if IS_LONG else 120)
async def test_no_device_that_a_cancel_is_said_to_have_interrupted_moves_afterwards(
    gateway: TestGateway, tmp_path: Path
) -> None:
    sys.stdout.write(f"SKYGW_TEST_SEED={SEED}\n")
    lies = [LIES[number % len(LIES)] for number in range(CANCELS)]
    chance_of(SEED, "lies").shuffle(lies)
    async with gateway.client() as hub:
        verdicts = await cancel_all(gateway, hub, tmp_path, lies)
    counted = Counter((verdict.lie, verdict.receipt, "moved" if verdict.moved else "stood") for verdict in verdicts)
    sys.stdout.writelines(f"{count:4} {' | '.join(kind)}\n" for kind, count in sorted(counted.items()))

    said = [verdict for verdict in verdicts if "interrupted" in (verdict.receipt, verdict.canceled)]
    assert len(verdicts) == CANCELS
    assert [verdict for verdict in said if verdict.moved] == []
    # And it is said where it is so, and there was something to be found. A wheel between two slots cannot be proved.
    honest = [each for each in verdicts if each.lie == HONEST.name and each.device_type != "filter_wheel"]
    assert [verdict for verdict in honest if verdict.receipt != "interrupted"] == []
    assert len(said) > CANCELS / 20
    assert {verdict.lie for verdict in verdicts if verdict.moved} > {"says stopped and moves on", "moves again soon"}
