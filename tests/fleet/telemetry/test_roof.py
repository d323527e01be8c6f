"""A roof that depends on weather told through a gateway: what a restart and a loss do to it, by the device journal.

The observatory's installation measures the weather, the telescope's runs the roof, and a gateway lies between them.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import trio

from skygw.sim.blueprint import Layout, draw_site
from skygw.sim.journal import Action, Order
from skygw.sim.line import Line
from skygw.sim.sky import M13
from skygw.sim.station import Station, open_station
from skygw.testing.gateway import TestGateway, open_gateway

ON_SITE = Order(cause="test")
PATIENCE_S = 30.0
LONGER_S = 8.0
SHORTER_S = 2.0
"""How old the weather may be: longer than a restart takes, with the nodes' way back, and short enough to wait for."""


class Restartable:
    """A gateway at one address, on one database; `run` serves whenever it is told to."""

    def __init__(self, urls: tuple[str, str], directory: Path) -> None:
        self._urls = urls
        self._directory = directory
        self._ports: dict[str, object] = {}
        self._start, self._stop, self._stopped = trio.Event(), trio.Event(), trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[TestGateway]) -> None:
        self._start.set()
        while True:
            await self._start.wait()
            self._start, self._stop, self._stopped = trio.Event(), trio.Event(), trio.Event()
            async with open_gateway(*self._urls, directory=self._directory, changed=self._ports) as gateway:
                if not self._ports:
                    self._ports = {"node_port": _port(gateway.node_url), "internal_port": _port(gateway.internal_url)}
                    task_status.started(gateway)
                await self._stop.wait()
            self._stopped.set()

    def start(self) -> None:
        self._start.set()

    async def stop(self) -> None:
        """Every connection is dropped without a word."""
        self._stop.set()
        await self._stopped.wait()


def _port(url: str) -> int | None:
    return urlsplit(url).port


@pytest.fixture
def hub(skygw_database: tuple[str, str], tmp_path: Path) -> Restartable:
    return Restartable(skygw_database, tmp_path / "hub")


@asynccontextmanager
async def observing(hub: Restartable, directory: Path, *, weather_max_age_s: float) -> AsyncIterator[Station]:
    """A gateway, and a site that tracks under an open roof."""
    blueprint = draw_site(uuid4().hex, 1, layout=Layout.REMOTE_WEATHER)
    async with trio.open_nursery() as nursery:
        gateway: TestGateway = await nursery.start(hub.run)
        await gateway.provision([blueprint])
        habits = replace(
            gateway.habits(), snapshot_every_s=0.2, weather_max_age_s=weather_max_age_s, line=Line(), line_seed="roof"
        )
        with open_station(blueprint, directory=directory, habits=habits, time_scale=200.0) as station:
            nursery.start_soon(station.run)
            await until(lambda: station.site.why_shut() is None)
            await station.site.enclosure.open(ON_SITE)
            await station.site.telescopes[0].mount.unpark(ON_SITE)
            await station.site.telescopes[0].mount.track(ON_SITE, M13)
            yield station
            nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - a device journal has no event for a test
            await trio.sleep(0.02)


def by_policy(station: Station) -> list[Action]:
    return [entry.action for entry in station.journal.entries() if str(entry.cause).startswith("policy")]


async def test_a_gateway_restart_shorter_than_the_weather_may_be_old_closes_no_roof(
    hub: Restartable, tmp_path: Path
) -> None:
    async with observing(hub, tmp_path, weather_max_age_s=LONGER_S) as station:
        links = station.telescope_node.counts.links
        stopped_at = trio.current_time()
        await hub.stop()
        await until(lambda: not station.telescope_node.client.connected)
        hub.start()
        with trio.fail_after(PATIENCE_S):
            await station.wait_connected()
        await trio.sleep_until(stopped_at + LONGER_S + 1.0)  # what was known before is too old by now
        is_closed, done = station.site.enclosure.is_closed, by_policy(station)
    assert station.telescope_node.counts.links > links
    assert done == []
    assert not is_closed


@pytest.mark.parametrize("lost", ["installation", "gateway"])
async def test_weather_that_stays_away_closes_the_roof_over_a_parked_mount(
    hub: Restartable, tmp_path: Path, lost: str
) -> None:
    async with observing(hub, tmp_path, weather_max_age_s=SHORTER_S) as station:
        assert station.observatory_node.proxy is not None
        if lost == "installation":
            station.observatory_node.proxy.hold()
        else:
            await hub.stop()
        await until(lambda: station.site.is_shut(station.site.telescopes))
        done = by_policy(station)
    assert done.index(Action.TRACKING_STOPPED) < done.index(Action.PARK_REACHED) < done.index(Action.ROOF_CLOSED)
    assert Action.ROOF_STRUCK_MOUNT not in done
