"""A roof and the weather it depends on, with a real gateway between them that restarts, and then stays away."""

import socket
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from uuid import uuid4

import trio

from skygw.auth import development
from skygw.demo.tokens import node_tokens
from skygw.settings import Settings
from skygw.sim.blueprint import Layout, draw_site
from skygw.sim.journal import Action, Order
from skygw.sim.node import NodeHabits
from skygw.sim.sky import M13
from skygw.sim.station import open_station
from skygw.testing.gateway import TestGateway, open_gateway, socket_url
from tests.sim.test_remote_weather import by_policy, heard_since, until

ON_SITE = Order(cause="test")
MAX_AGE_S = 8.0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_a_restart_closes_no_roof_and_a_gateway_that_stays_away_does(
    skygw_database: tuple[str, str], tmp_path: Path
) -> None:
    blueprint = draw_site(uuid4().hex, 1, layout=Layout.REMOTE_WEATHER)
    port = _free_port()
    settings = Settings(data_dir=tmp_path / "gateway")
    habits = NodeHabits(
        url=socket_url(f"http://127.0.0.1:{port}"),
        token_of=node_tokens(development.load_or_make(settings.data_dir), audience=settings.node_audiences[0]),
        snapshot_every_s=0.2,
        weather_max_age_s=MAX_AGE_S,
    )

    def gateway() -> AbstractAsyncContextManager[TestGateway]:
        """The same one each time: its address, its data, its database."""
        return open_gateway(*skygw_database, directory=settings.data_dir, changed={"node_port": port})

    with open_station(blueprint, directory=tmp_path, habits=habits, time_scale=200.0) as station:
        async with trio.open_nursery() as nursery:
            async with gateway() as first:
                await first.provision([blueprint])
                nursery.start_soon(station.run)
                await until(lambda: station.site.why_shut() is None)
                await station.site.enclosure.open(ON_SITE)
                await station.site.telescopes[0].mount.unpark(ON_SITE)
                await station.site.telescopes[0].mount.track(ON_SITE, M13)
            await until(lambda: not station.telescope_node.client.connected)
            began = trio.current_time()
            async with gateway():
                await until(lambda: heard_since(station, began))
                in_time = by_policy(station)
                open_still = not station.site.enclosure.is_closed
            await until(lambda: station.site.is_shut(station.site.telescopes))
            nursery.cancel_scope.cancel()
    done = [entry.action for entry in by_policy(station)]

    assert in_time == []
    assert open_still
    assert {entry.cause for entry in by_policy(station)} == {"policy: weather_unknown"}
    assert done.index(Action.TRACKING_STOPPED) < done.index(Action.PARK_REACHED) < done.index(Action.ROOF_CLOSED)
    assert Action.ROOF_STRUCK_MOUNT not in done
