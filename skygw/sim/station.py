"""A whole simulated site that is online: its hardware, its disk, and a node for each of its installations."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import trio

from skygw.sim.blueprint import Layout, SiteBlueprint
from skygw.sim.clock import SimClock
from skygw.sim.frame_store import FrameStore, SkyRecorder
from skygw.sim.installation import Site
from skygw.sim.journal import DeviceJournal, MemoryJournal, open_journal
from skygw.sim.node import NodeHabits, SimulatedNode
from skygw.sim.posts import posts_of


class Station:
    """Made by `open_station`. `nodes` has the observatory's node first, then one for each telescope."""

    def __init__(self, site: Site, frames: FrameStore, nodes: tuple[SimulatedNode, ...]) -> None:
        self.site = site
        self.frames = frames
        self.nodes = nodes

    @property
    def journal(self) -> DeviceJournal:
        """The judge of what was really done here."""
        return self.site.journal

    @property
    def observatory_node(self) -> SimulatedNode:
        return self.nodes[0]

    @property
    def telescope_node(self) -> SimulatedNode:
        """The node of the first telescope."""
        return self.nodes[1]

    async def run(self) -> None:
        """The site's own weather watch and all its nodes, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.watch_weather)
            for node in self.nodes:
                nursery.start_soon(node.run)

    async def watch_weather(self) -> None:
        """The site's policy where the sensor is wired to the roof; elsewhere the nodes have theirs."""
        if self.site.blueprint.layout is Layout.WIRED:
            await self.site.watch_weather()

    async def wait_connected(self) -> None:
        """Returns when every node has been welcomed."""
        for node in self.nodes:
            await node.client.wait_connected()


@contextmanager
def open_station(
    blueprint: SiteBlueprint,
    *,
    directory: Path,
    habits: NodeHabits,
    time_scale: float = 1.0,
    journal_directory: Path | None = None,
) -> Iterator[Station]:
    """A site whose files are under `directory`; with `journal_directory` its device journal is a file there.

    Blocks for a moment on the disk. Make it inside the Trio run that will run it. Raises `OSError`,
    `JournalDamaged`.
    """
    clock = SimClock(scale=time_scale)
    name = f"site-{blueprint.number:04d}"
    with ExitStack() as stack:
        journal: DeviceJournal
        if journal_directory is None:
            journal = MemoryJournal(clock)
        else:
            journal = stack.enter_context(open_journal(clock, journal_directory / f"{name}.jsonl"))
        frames = FrameStore(directory / name / "frames")
        site = Site(blueprint, clock=clock, journal=journal, recorder=SkyRecorder(frames))
        nodes = tuple(
            SimulatedNode(post, site, frames, habits=habits, state_dir=directory / name / str(post.install_id))
            for post in posts_of(site)
        )
        yield Station(site, frames, nodes)
