"""A scenario breaks things and mends them again, and the same seed breaks the same things at the same times."""

from pathlib import Path

import trio
from trio.testing import MockClock

from skygw.client.node import Token
from skygw.ids import InstallId
from skygw.sim.blueprint import draw_site
from skygw.sim.journal import Action
from skygw.sim.node import NodeHabits
from skygw.sim.scenarios import Scenario, play
from skygw.sim.seeds import chance_of
from skygw.sim.station import Station, open_station

AN_HOUR_S = 3_600.0


async def _no_token(install_id: InstallId) -> Token:
    raise AssertionError("nothing connects here")


HABITS = NodeHabits(url="ws://127.0.0.1:1/v1/ws/node", token_of=_no_token)


async def _rain_of_an_hour(station: Station, seed: str) -> list[tuple[Action, float]]:
    with trio.move_on_after(AN_HOUR_S):
        await play(Scenario.STORM, [station], chance_of(seed))
    return [(entry.action, round(entry.elapsed_s, 6)) for entry in station.journal.entries()]


async def test_the_same_seed_rains_at_the_same_times(autojump_clock: MockClock, tmp_path: Path) -> None:
    hours = []
    for name, seed in (("one", "wet"), ("two", "wet"), ("three", "other")):
        with open_station(draw_site("tests", 1), directory=tmp_path / name, habits=HABITS) as station:
            hours.append(await _rain_of_an_hour(station, seed))

    assert hours[0] == hours[1] != hours[2]
    assert {action for action, _ in hours[0]} == {Action.RAIN_BEGAN, Action.RAIN_ENDED}


async def test_what_breaks_is_mended(autojump_clock: MockClock, tmp_path: Path) -> None:
    broken: set[str] = set()
    with open_station(draw_site("tests", 1), directory=tmp_path, habits=HABITS) as station:

        def look() -> set[str]:
            devices = station.site.devices.values()
            return {
                name
                for name, wrong in (
                    ("stall", any(device.faults.stall for device in devices)),
                    ("fail", any(device.faults.fail for device in devices)),
                    ("lie", any(device.faults.lies for device in devices)),
                    ("unreadable", any(device.faults.unreadable for device in devices)),
                    ("disk", station.frames.full),
                    ("silent", any(node.faults.silent for node in station.nodes)),
                )
                if wrong
            }

        async def watch() -> None:
            while True:
                await trio.sleep(1.0)
                broken.update(look())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            nursery.start_soon(play, Scenario.FAULTY, [station], chance_of("faulty"))
            await trio.sleep(AN_HOUR_S)
            nursery.cancel_scope.cancel()

    assert broken == {"stall", "fail", "lie", "unreadable", "disk", "silent"}


async def test_lost_weather_is_lost_for_longer_than_it_is_trusted_and_found_again(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    lost_for_s = 0
    with open_station(draw_site("tests", 1), directory=tmp_path, habits=HABITS) as station:
        faults = station.site.weather_sensor.faults
        async with trio.open_nursery() as nursery:
            nursery.start_soon(play, Scenario.WEATHER_LOST, [station], chance_of("lost"))
            while not (lost_for_s and not faults.unreadable):
                await trio.sleep(1.0)
                lost_for_s += faults.unreadable
            nursery.cancel_scope.cancel()

    assert lost_for_s > HABITS.weather_max_age_s


async def test_nothing_goes_wrong_when_it_is_calm(autojump_clock: MockClock, tmp_path: Path) -> None:
    with open_station(draw_site("tests", 1), directory=tmp_path, habits=HABITS) as station:
        with trio.move_on_after(AN_HOUR_S):
            await play(Scenario.CALM, [station], chance_of("calm"))
        assert station.journal.entries() == []
