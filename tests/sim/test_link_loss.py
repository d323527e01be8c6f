"""When the link stays away, an installation does by itself what the hub told it to do then."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
import trio

from skygw.protocol.gateway_frames import LinkLossPolicy
from skygw.sim.blueprint import draw_site
from skygw.sim.journal import Action, Order
from skygw.sim.sky import M13
from skygw.sim.station import Station, open_station
from skygw.testing.gateway import TestGateway

ON_SITE = Order(cause="test")
PATIENCE_S = 20.0


@pytest.fixture
async def impatient(gateway: TestGateway, tmp_path: Path) -> AsyncIterator[Station]:
    """A site that observes, and misses a link at once."""
    blueprint = draw_site(uuid4().hex, 1)
    await gateway.provision([blueprint])
    habits = replace(gateway.habits(), link_loss_after_s=0.05)
    with open_station(blueprint, directory=tmp_path, habits=habits, time_scale=100.0) as station:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(station.run)
            with trio.fail_after(PATIENCE_S):
                await station.wait_connected()
                await station.site.enclosure.open(ON_SITE)
                await station.site.telescopes[0].mount.unpark(ON_SITE)
                await station.site.telescopes[0].mount.track(ON_SITE, M13)
            yield station
            nursery.cancel_scope.cancel()


async def _ends_with(station: Station, action: Action) -> None:
    with trio.fail_after(PATIENCE_S):
        while action not in {entry.action for entry in station.journal.entries()}:  # noqa: ASYNC110
            await trio.sleep(0.02)


async def test_a_site_without_a_link_shuts_itself_down(gateway: TestGateway, impatient: Station) -> None:
    gateway.running.start_drain()
    await _ends_with(impatient, Action.ROOF_CLOSED)

    done = [entry.action for entry in impatient.journal.entries() if entry.cause != ON_SITE.cause]
    assert done.index(Action.TRACKING_STOPPED) < done.index(Action.PARK_REACHED) < done.index(Action.ROOF_CLOSED)
    assert Action.ROOF_STRUCK_MOUNT not in done


class TestStopPolicy:
    @pytest.fixture
    def gateway_settings(self) -> dict[str, object]:
        return {"link_loss_policy": LinkLossPolicy.STOP.value}

    async def test_a_site_that_was_told_to_stop_stays_where_it_is(
        self, gateway: TestGateway, impatient: Station
    ) -> None:
        gateway.running.start_drain()
        await _ends_with(impatient, Action.TRACKING_STOPPED)

        assert not impatient.site.telescopes[0].mount.is_parked
        assert not impatient.site.enclosure.is_closed
