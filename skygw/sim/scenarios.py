"""What may go wrong in a simulated fleet while it runs, drawn from its seed: the same seed breaks the same things."""

from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from random import Random

import trio

from skygw.sim.devices.device import Device
from skygw.sim.faults import Stall
from skygw.sim.station import Station

MEAN_BETWEEN_S = 10.0
"""Real seconds between two incidents, on average; half of it at least, half as much again at most."""

LASTS_S = 20.0
"""Real seconds until an incident is over."""

WEATHER_LOST_S = 90.0
"""Real seconds: longer than a node's `weather_max_age_s`, unless that is changed."""

DAY_S = 86_400.0


class Scenario(StrEnum):
    """A name for the command line."""

    CALM = "calm"
    """Nothing goes wrong."""

    FAULTY = "faulty"
    """Devices stall, lie, fail and cannot be read; disks fill; clocks jump by a day."""

    STORM = "storm"
    """Rain passes over one site after another, and each shuts itself down."""

    WEATHER_LOST = "weather_lost"
    """Weather sensors cannot be read for longer than anybody trusts what they said last."""


async def play(scenario: Scenario, stations: Sequence[Station], chance: Random) -> None:
    """Let it happen until cancelled; what is broken then stays so."""
    incidents = _INCIDENTS[scenario]
    if not incidents or not stations:
        await trio.sleep_forever()
    async with trio.open_nursery() as nursery:
        while True:
            await trio.sleep(chance.uniform(0.5, 1.5) * MEAN_BETWEEN_S)
            nursery.start_soon(chance.choice(incidents), chance.choice(stations), chance)


Incident = Callable[[Station, Random], Awaitable[None]]


def _some_device(station: Station, chance: Random) -> Device:
    return chance.choice(list(station.site.devices.values()))


async def _stall(station: Station, chance: Random) -> None:
    faults = _some_device(station, chance).faults
    faults.stall = chance.choice(list(Stall))
    await trio.sleep(LASTS_S)
    faults.stall = None


async def _lie(station: Station, chance: Random) -> None:
    faults = chance.choice(station.site.telescopes).mount.faults
    faults.lies = {"state": "parked", "is_parked": True}
    await trio.sleep(LASTS_S)
    faults.lies = {}


async def _fail(station: Station, chance: Random) -> None:
    device = _some_device(station, chance)
    device.faults.fail = f"{device.name} lost its drive signal."
    await trio.sleep(LASTS_S)
    device.faults.fail = None


async def _go_unreadable(station: Station, chance: Random) -> None:
    faults = _some_device(station, chance).faults
    faults.unreadable = True
    await trio.sleep(LASTS_S)
    faults.unreadable = False


async def _fill_disk(station: Station, chance: Random) -> None:  # noqa: ARG001 - incidents have one signature
    station.frames.full = True
    await trio.sleep(LASTS_S)
    station.frames.full = False


async def _jump_clock(station: Station, chance: Random) -> None:
    station.site.clock.set_wrong_by(chance.uniform(-DAY_S, DAY_S))
    await trio.sleep(LASTS_S)
    station.site.clock.set_wrong_by(0.0)


async def _fall_silent(station: Station, chance: Random) -> None:
    faults = chance.choice(station.nodes).faults
    faults.silent = True
    await trio.sleep(LASTS_S)
    faults.silent = False


async def _rain(station: Station, chance: Random) -> None:  # noqa: ARG001
    station.site.weather_sensor.begin_rain()
    await trio.sleep(LASTS_S)
    station.site.weather_sensor.end_rain()


async def _lose_weather(station: Station, chance: Random) -> None:  # noqa: ARG001
    faults = station.site.weather_sensor.faults
    faults.unreadable = True
    await trio.sleep(WEATHER_LOST_S)
    faults.unreadable = False


_INCIDENTS: dict[Scenario, Sequence[Incident]] = {
    Scenario.CALM: (),
    Scenario.FAULTY: (_stall, _lie, _fail, _go_unreadable, _fill_disk, _jump_clock, _fall_silent),
    Scenario.STORM: (_rain,),
    Scenario.WEATHER_LOST: (_lose_weather,),
}
