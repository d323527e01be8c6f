"""The roof takes its time and does not close over a mount that is not parked, unless the mount lies."""

import pytest
import trio
from trio.testing import MockClock

from skygw.sim.clock import SimClock
from skygw.sim.devices.device import Refused
from skygw.sim.installation import Site
from skygw.sim.journal import Action, Order
from tests.sim.conftest import Actions

ON_SITE = Order(cause="test")


async def test_the_roof_opens_and_closes_in_its_time(
    autojump_clock: MockClock, site: Site, sim_clock: SimClock, actions: Actions
) -> None:
    await site.enclosure.open(ON_SITE)
    assert sim_clock.elapsed() == pytest.approx(30)
    assert site.enclosure.snapshot()["state"] == "open"
    await site.enclosure.close(ON_SITE)
    assert site.enclosure.snapshot()["state"] == "closed"
    assert actions() == [Action.ROOF_MOVING, Action.ROOF_OPENED, Action.ROOF_MOVING, Action.ROOF_CLOSED]


async def test_a_roof_stopped_half_way_stays_half_open_and_closes_from_there(
    autojump_clock: MockClock, site: Site, sim_clock: SimClock
) -> None:
    with trio.move_on_after(15):
        await site.enclosure.open(ON_SITE)
    assert site.enclosure.snapshot()["state"] == "stopped"
    assert site.enclosure.place == pytest.approx(0.5)
    began_at = sim_clock.elapsed()
    await site.enclosure.close(ON_SITE)
    assert sim_clock.elapsed() - began_at == pytest.approx(15)


async def test_the_roof_does_not_close_over_an_unparked_mount(autojump_clock: MockClock, shared_site: Site) -> None:
    await shared_site.enclosure.open(ON_SITE)
    mount = shared_site.telescopes[2].mount
    await mount.unpark(ON_SITE)
    with pytest.raises(Refused) as refusal:
        await shared_site.enclosure.close(ON_SITE)
    assert refusal.value.reason == "interlock_active"
    assert refusal.value.details == {"device_uids": [str(mount.uid)]}
    assert shared_site.enclosure.place == 1.0


async def test_a_mount_that_cannot_be_read_keeps_the_roof_open(autojump_clock: MockClock, site: Site) -> None:
    await site.enclosure.open(ON_SITE)
    site.telescopes[0].mount.faults.unreadable = True
    with pytest.raises(Refused):
        await site.enclosure.close(ON_SITE)


async def test_a_mount_that_lies_about_being_parked_is_struck_and_the_journal_says_so(
    autojump_clock: MockClock, site: Site
) -> None:
    mount = site.telescopes[0].mount
    await site.enclosure.open(ON_SITE)
    await mount.unpark(ON_SITE)
    mount.faults.lies = {"state": "parked", "is_parked": True}
    await site.enclosure.close(ON_SITE)
    last = site.journal.entries()[-1]
    assert last.action is Action.ROOF_STRUCK_MOUNT
    assert last.details == {"mount_uid": str(mount.uid)}
