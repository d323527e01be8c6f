"""A telescope's roof depends on the weather of another installation, through a gateway that may go away."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio

from skygw.client.node import Token
from skygw.ids import InstallId
from skygw.protocol.node_frames import NodeType, SnapshotStream
from skygw.sim.blueprint import Layout, draw_site
from skygw.sim.journal import Action, Entry, Order
from skygw.sim.node import NodeHabits
from skygw.sim.sky import M13
from skygw.sim.station import Station, open_station
from tests.sim.relaying_gateway import RelayingGateway, relaying_gateway

ON_SITE = Order(cause="test")
PATIENCE_S = 20.0
LONGER_S = 6.0
SHORTER_S = 1.5
"""Of what a test waits for; a machine that stands still for seconds must not fail it."""


async def _token(install_id: InstallId) -> Token:
    return Token("token")


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - a device journal has no event for a test
            await trio.sleep(0.01)


@pytest.fixture
async def gateway() -> AsyncIterator[RelayingGateway]:
    async with relaying_gateway() as relaying:
        yield relaying


@pytest.fixture
def weather_max_age_s() -> float:
    return LONGER_S


@pytest.fixture
def snapshot_every_s() -> float:
    return 0.1


@pytest.fixture
async def station(
    gateway: RelayingGateway, tmp_path: Path, snapshot_every_s: float, weather_max_age_s: float
) -> AsyncIterator[Station]:
    """It observes under its own roof."""
    habits = NodeHabits(
        url=gateway.url, token_of=_token, snapshot_every_s=snapshot_every_s, weather_max_age_s=weather_max_age_s
    )
    blueprint = draw_site("remote", 1, layout=Layout.REMOTE_WEATHER)
    with open_station(blueprint, directory=tmp_path, habits=habits, time_scale=200.0) as station:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(station.run)
            await until(lambda: station.site.why_shut() is None)
            await station.site.enclosure.open(ON_SITE)
            await station.site.telescopes[0].mount.unpark(ON_SITE)
            await station.site.telescopes[0].mount.track(ON_SITE, M13)
            yield station
            nursery.cancel_scope.cancel()


def heard_since(station: Station, began: float) -> bool:
    """Whether the telescope's node knows the weather of after `began`: it has not become old by then, nor will it."""
    weather = station.telescope_node.weather
    assert weather is not None
    age_s = trio.current_time() - began
    return weather.fresh_or_none(station.site.weather_sensor.uid, max_age_s=age_s) is not None


def by_policy(station: Station) -> list[Entry]:
    return [entry for entry in station.journal.entries() if str(entry.cause).startswith("policy")]


async def test_a_gateway_restart_shorter_than_the_weather_may_be_old_closes_no_roof(
    gateway: RelayingGateway, station: Station
) -> None:
    links = station.telescope_node.counts.links
    await gateway.stop()
    await trio.sleep(1.0)
    away = not station.telescope_node.client.connected
    began = trio.current_time()
    gateway.start()
    await until(lambda: heard_since(station, began))

    assert away
    assert station.telescope_node.counts.links > links
    assert by_policy(station) == []
    assert not station.site.enclosure.is_closed


class TestLoss:
    @pytest.fixture
    def weather_max_age_s(self) -> float:
        return SHORTER_S

    @pytest.mark.parametrize("lost", ["sensor", "gateway"])
    async def test_weather_that_stays_away_shuts_the_telescope_and_then_its_roof(
        self, gateway: RelayingGateway, station: Station, lost: str
    ) -> None:
        if lost == "sensor":
            station.site.weather_sensor.faults.unreadable = True
        else:
            await gateway.stop()
        await until(lambda: station.site.is_shut(station.site.telescopes))
        done = [entry.action for entry in by_policy(station)]

        assert done.index(Action.TRACKING_STOPPED) < done.index(Action.PARK_REACHED) < done.index(Action.ROOF_CLOSED)
        assert Action.ROOF_STRUCK_MOUNT not in done


class TestRain:
    @pytest.fixture
    def weather_max_age_s(self) -> float:
        return 1_000.0

    @pytest.fixture
    def snapshot_every_s(self) -> float:
        """Nothing is told but what happens."""
        return 1_000.0

    async def test_rain_at_the_other_installation_closes_the_roof_at_once_and_all_of_it_is_told(
        self, gateway: RelayingGateway, station: Station
    ) -> None:
        station.site.weather_sensor.begin_rain()
        await until(lambda: station.site.is_shut(station.site.telescopes))
        await until(lambda: {"rain_began", "roof_closed"} <= {event["event_type"] for event in gateway.events})
        told = {event["event_type"]: event for event in gateway.events}
        telescope = station.site.telescopes[0]
        drawn = station.site.blueprint.telescopes[0]
        weather = str(station.site.blueprint.weather_constraint_uid)
        interlocks = gateway.snapshots[SnapshotStream.SHUTDOWN_INTERLOCK_SNAPSHOT, str(telescope.uid)]

        assert station.telescope_node.post.node_type is NodeType.TELESCOPE
        assert {"boot", "roof_opened"} <= set(told)
        assert told["rain_began"]["device_uid"] == str(station.site.weather_sensor.uid)
        assert "telescope_uid" not in told["rain_began"]
        assert told["roof_closed"]["telescope_uid"] == str(telescope.uid)
        assert told["roof_closed"]["cause"] == "policy: weather_unsafe"
        assert {"uid": str(telescope.uid), "active": True, "reasons": ["weather_unsafe"]} in interlocks
        assert {"uid": str(telescope.uid), "active": False, "reasons": []} in interlocks
        statuses = gateway.snapshots[SnapshotStream.CONSTRAINT_STATUS_SNAPSHOT, weather]
        assert {"safe", "unsafe"} <= {status["status"] for status in statuses}
        assert (SnapshotStream.CONSTRAINT_SNAPSHOT, str(drawn.sun_altitude_uid)) in gateway.snapshots
        assert not [stream for stream, _ in gateway.snapshots if stream is SnapshotStream.INSTRUMENT_SNAPSHOT]
