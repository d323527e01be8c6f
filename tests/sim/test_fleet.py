"""A fleet has as many installations as it was asked for, and the same ones every time."""

from pathlib import Path

import pytest
import trio

from skygw.sim.fleet import draw_nodes, open_fleet
from skygw.sim.scenarios import Scenario
from skygw.sim.seeds import chance_of
from skygw.testing.gateway import TestGateway

CONNECT_WITHIN_S = 20.0


@pytest.mark.parametrize(("nodes", "sizes"), [(2, [1]), (4, [3]), (5, [4]), (6, [3, 1]), (8, [3, 3]), (9, [3, 4])])
def test_sites_are_drawn_until_there_are_enough_installations(nodes: int, sizes: list[int]) -> None:
    sites = draw_nodes("tests", nodes, telescopes_per_site=3)
    assert [len(site.telescopes) for site in sites] == sizes
    uids = {site.install_id for site in sites} | {plan.install_id for site in sites for plan in site.telescopes}
    assert len(uids) == nodes
    assert sites == draw_nodes("tests", nodes, telescopes_per_site=3)


def test_one_installation_is_no_fleet() -> None:
    with pytest.raises(ValueError, match="at least two"):
        draw_nodes("tests", 1, telescopes_per_site=3)


async def test_a_fleet_connects_and_comes_back_when_its_sockets_are_cut(gateway: TestGateway, tmp_path: Path) -> None:
    blueprints = draw_nodes("cut", 6, telescopes_per_site=2)
    await gateway.provision(blueprints)
    with open_fleet(blueprints, directory=tmp_path, habits=gateway.habits()) as fleet:
        async with trio.open_nursery() as nursery, gateway.client() as hub:
            nursery.start_soon(fleet.run, Scenario.CALM, chance_of("cut"))
            with trio.fail_after(CONNECT_WITHIN_S):
                await fleet.wait_connected()
                await hub.post(f"/internal/nodes/{fleet.nodes[0].install_id}/disconnect")
                while fleet.counts().reconnects == 0 or fleet.counts().connected < 6:  # noqa: ASYNC110
                    await trio.sleep(0.02)
            counts = fleet.counts()
            nursery.cancel_scope.cancel()
    assert (counts.nodes, counts.connected, counts.reconnects) == (6, 6, 1)
