"""The same seed gives the same fleet, and the same fleet behaves the same."""

from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from skygw.sim.blueprint import SiteBlueprint, draw_fleet, draw_site
from skygw.sim.clock import SimClock
from skygw.sim.coordinates import horizontal_of
from skygw.sim.installation import Site
from skygw.sim.journal import Entry, MemoryJournal
from skygw.sim.sky import M13
from tests.sim.conftest import START, CommandIds
from tests.sim.remembered_frames import RememberedFrames


def test_the_same_seed_gives_the_same_fleet_and_another_a_wholly_different_one() -> None:
    fleet, again, other = draw_fleet("one", 5), draw_fleet("one", 5), draw_fleet("two", 5)
    assert fleet == again
    assert {site.install_id for site in fleet}.isdisjoint({site.install_id for site in other})


def test_a_larger_fleet_begins_with_the_same_sites() -> None:
    assert draw_fleet("one", 8)[:5] == draw_fleet("one", 5)


def test_no_two_things_of_a_fleet_share_a_uid() -> None:
    uids = [
        uid
        for site in draw_fleet("one", 20, telescopes=3)
        for uid in (
            site.install_id,
            site.instance_uid,
            site.observatory_uid,
            site.site_uid,
            site.enclosure_uid,
            site.weather_sensor_uid,
            *(
                uid
                for telescope in site.telescopes
                for uid in (
                    telescope.uid,
                    telescope.ota_uid,
                    telescope.mount_uid,
                    telescope.camera_uid,
                    telescope.focuser_uid,
                    telescope.filter_wheel_uid,
                    telescope.instrument_uid,
                )
            ),
        )
    ]
    assert len(uids) == len(set(uids))


def test_m13_stands_high_above_every_site() -> None:
    heights = [horizontal_of(M13, site.place).alt_deg for site in draw_fleet("heights", 100)]
    assert min(heights) > 45


def test_a_site_without_telescope_is_not_drawn() -> None:
    with pytest.raises(ValueError, match="telescope"):
        draw_site("one", 1, telescopes=0)


async def _night(blueprint: SiteBlueprint, command_id: CommandIds) -> list[Entry]:
    """A night with failing devices, as its journal tells it, without the time on the wall."""
    clock = SimClock(start=START)
    journal = MemoryJournal(clock)
    site = Site(blueprint, clock=clock, journal=journal, recorder=RememberedFrames())
    for device in site.devices.values():
        device.faults.fail_probability = 0.5
    target = {"position_type": "equatorial", "ra_deg": M13.ra_deg, "dec_deg": M13.dec_deg}
    for number in range(30):
        for command in (
            {"command_type": "mount.unpark"},
            {"command_type": "mount.track", "target": target},
            {"command_type": "camera.exposure.start", "duration_s": 30, "binning": 1, "filter_id": 1 + number % 5},
            {"command_type": "mount.park"},
        ):
            await site.execute(command, command_id(number))
    return [
        replace(entry, wall_time="", elapsed_s=round(entry.elapsed_s, 6), details={}) for entry in journal.entries()
    ]


async def test_the_same_seed_fails_at_the_same_moments(autojump_clock: MockClock, command_id: CommandIds) -> None:
    began_at = trio.current_time()
    first = await _night(draw_site("night", 1), command_id)
    again = await _night(draw_site("night", 1), command_id)
    other = await _night(draw_site("another night", 1), command_id)
    told = [(entry.action, entry.elapsed_s) for entry in first]
    assert trio.current_time() > began_at
    assert told == [(entry.action, entry.elapsed_s) for entry in again]
    assert told != [(entry.action, entry.elapsed_s) for entry in other]
    assert "fault" in {entry.action for entry in first}
