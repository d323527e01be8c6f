"""Many simulated sites in one process: opened together, connected one after the other, counted."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import trio

from skygw.sim.blueprint import Layout, SiteBlueprint, draw_fleet
from skygw.sim.node import NodeHabits, SimulatedNode
from skygw.sim.scenarios import Scenario, play
from skygw.sim.station import Station, open_station
from skygw.sim.traffic import Counts


@dataclass(frozen=True)
class FleetCounts:
    """What a fleet has seen so far."""

    nodes: int
    connected: int
    commands: int
    calls: int
    reconnects: int
    last_trouble: str | None
    """Why a link ended, one of the newest."""


class Fleet:
    """Made by `open_fleet`."""

    def __init__(self, stations: Sequence[Station], *, connects_per_s: float) -> None:
        self.stations = tuple(stations)
        self.nodes: tuple[SimulatedNode, ...] = tuple(node for station in stations for node in station.nodes)
        self._connects_per_s = connects_per_s

    def counts(self) -> FleetCounts:
        troubled = [node.client.last_end for node in self.nodes if node.client.last_end and not node.client.connected]
        return FleetCounts(
            nodes=len(self.nodes),
            connected=sum(node.client.connected for node in self.nodes),
            commands=sum(node.counts.commands for node in self.nodes),
            calls=sum(node.operations.begun for node in self.nodes),
            reconnects=sum(max(0, node.counts.links - 1) for node in self.nodes),
            last_trouble=str(troubled[-1]) if troubled else None,
        )

    def line_counts(self) -> Counts | None:
        """What has happened on all their lines, if they have any of their own."""
        lines = [node.proxy.counts for node in self.nodes if node.proxy is not None]
        if not lines:
            return None
        each = [asdict(line) for line in lines]
        return Counts(**{name: sum(counts[name] for counts in each) for name in each[0]})

    async def run(self, scenario: Scenario, chance: Random) -> None:
        """Connect node by node and keep all of them going until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(play, scenario, self.stations, chance)
            for station in self.stations:
                nursery.start_soon(station.watch_weather)
            for node in self.nodes:
                nursery.start_soon(node.run)
                await trio.sleep(1 / self._connects_per_s)

    async def wait_connected(self) -> None:
        """Returns when every node has been welcomed once."""
        for node in self.nodes:
            await node.client.wait_connected()


def draw_nodes(
    seed: str, count: int, *, telescopes_per_site: int, layout: Layout = Layout.WIRED
) -> list[SiteBlueprint]:
    """Sites whose installations are `count` together. A site has one more of them than telescopes.

    Raises `ValueError` below two: an installation of an observatory without telescopes simulates nothing.
    """
    if count < 2:
        raise ValueError("A simulated fleet has at least two installations: an observatory's and a telescope's.")
    per_site = telescopes_per_site + 1
    whole, rest = divmod(count, per_site)
    if rest == 1:
        # One more telescope on the last site instead of an observatory without any.
        whole, rest = (whole - 1, rest + per_site) if whole else (0, rest)
    sites = draw_fleet(seed, whole, telescopes=telescopes_per_site, layout=layout)
    if rest:
        sites.append(draw_fleet(seed, whole + 1, telescopes=rest - 1, layout=layout)[-1])
    return sites


@contextmanager
def open_fleet(
    blueprints: Sequence[SiteBlueprint],
    *,
    directory: Path,
    habits: NodeHabits,
    time_scale: float = 1.0,
    journal_directory: Path | None = None,
    connects_per_s: float = 50.0,
) -> Iterator[Fleet]:
    """All these sites. As `open_station`."""
    with ExitStack() as stack:
        stations = [
            stack.enter_context(
                open_station(
                    blueprint,
                    directory=directory,
                    habits=habits,
                    time_scale=time_scale,
                    journal_directory=journal_directory,
                )
            )
            for blueprint in blueprints
        ]
        yield Fleet(stations, connects_per_s=connects_per_s)
