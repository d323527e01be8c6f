"""A fleet that loses its links all at once is let back in, in order, while those who stayed are served.

`nox -s storm` does it with 2,000 nodes, and prints how long it took.
"""

from pathlib import Path

from tests.fleet.storm import cut_by_the_gateway, cut_by_the_way

NODES = 120
WITNESSES = 5
ROUGHLY_IN_ORDER = 0.2
"""A third would be any order; handshakes that are asked for together may be welcomed in any."""


async def test_nodes_that_were_cut_at_once_are_all_back_in_order_and_those_who_stayed_were_served(
    tmp_path: Path,
) -> None:
    back, stayed = await cut_by_the_way(tmp_path / "hub", nodes=NODES, witnesses=WITNESSES, every_s=0.2, calm_s=0.0)
    assert back.epochs == [2] * NODES
    assert back.out_of_order < ROUGHLY_IN_ORDER
    assert (back.tries, back.troubles) == (NODES, [])
    assert (stayed.links_ended, stayed.failures) == (0, [])
    assert stayed.stormy
    assert back.complaints == []


async def test_nodes_of_a_gateway_that_was_killed_are_all_back_when_it_is_started_again(tmp_path: Path) -> None:
    back = await cut_by_the_gateway(tmp_path / "hub", nodes=NODES)
    assert back.epochs == [2] * NODES
    assert back.complaints == []
