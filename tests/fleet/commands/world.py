"""The hub, its sites behind lines of their own, and the callers of one run."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import trio

from skygw.demo.records import provision_sites
from skygw.ids import InstallId
from skygw.sim.fault_proxy import FaultProxy
from skygw.sim.journal import Entry, read_journal
from tests.fleet.commands.site_program import SiteSpec, is_ready, site_program
from tests.fleet.commands.story import Story
from tests.fleet.telemetry.hub import Hub

TELESCOPES = 2


@dataclass
class RunningSite:
    """A site whose program is started again whenever it was killed, on the same disk."""

    spec: SiteSpec
    line: FaultProxy
    program: trio.Process | None = None
    starts: int = 0
    _killed: trio.Event = field(default_factory=trio.Event)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Started when all its installations are connected for the first time; until cancelled."""
        while True:
            async with site_program(self.spec) as self.program:
                self.starts += 1
                if self.starts == 1:
                    await is_ready(self.program)
                    task_status.started()
                await self._killed.wait()
                self._killed = trio.Event()

    def kill(self) -> None:
        if self.program is not None:
            self.program.kill()
        self._killed.set()

    @property
    def install_ids(self) -> list[InstallId]:
        drawn = self.spec.blueprint
        return [drawn.install_id, *(telescope.install_id for telescope in drawn.telescopes)]

    @property
    def journal(self) -> list[Entry]:
        return read_journal(self.spec.journal_path)


@dataclass
class World:
    """Everything that runs while there is trouble."""

    hub: Hub
    sites: Sequence[RunningSite]
    story: Story

    @property
    def journals(self) -> list[list[Entry]]:
        return [site.journal for site in self.sites]

    async def are_connected(self, within_s: float) -> list[str]:
        """Returns the installations that have not come back by then."""
        wanted = {str(install_id) for site in self.sites for install_id in site.install_ids}
        missing = wanted
        with trio.move_on_after(within_s):
            while missing:
                missing = wanted - await self._connected()
                await trio.sleep(0.2)
        return sorted(missing)

    async def _connected(self) -> set[str]:
        headers = {"authorization": f"Bearer {self.hub.gateway.service_token()}"}
        try:
            async with httpx.AsyncClient(
                base_url=self.hub.gateway.internal_url, headers=headers, trust_env=False
            ) as http:
                page = (await http.get("/internal/nodes", params={"connected": "true", "size": 100})).json()
        except httpx.HTTPError:
            return set()
        return {node["uid"] for node in page["items"]}


@asynccontextmanager
async def open_world(directory: Path, seed: str, *, sites: int) -> AsyncIterator[World]:
    """Everybody runs and everything is connected once; leaving ends them all."""
    hub = Hub(directory / "hub")
    story = Story()
    async with trio.open_nursery() as hub_runs:
        await hub_runs.start(hub.run)
        running: list[RunningSite] = []
        async with trio.open_nursery() as nursery:
            for number in range(sites):
                line = FaultProxy("127.0.0.1", hub.node_port, seed=(seed, number))
                port: int = await nursery.start(line.run)
                folder = directory / f"site-{number}"
                folder.mkdir()
                spec = SiteSpec(
                    seed=seed,
                    number=number,
                    telescopes=TELESCOPES,
                    url=f"ws://127.0.0.1:{port}/v1/ws/node",
                    directory=str(folder),
                    key_dir=str(hub.gateway.data_dir),
                )
                running.append(RunningSite(spec, line))
                for device_uid in _devices(spec):
                    story.site_of[device_uid] = number
            await provision_sites(hub.gateway.owner_url, [site.spec.blueprint for site in running])
            async with trio.open_nursery() as starting:
                for site in running:
                    starting.start_soon(nursery.start, site.run)
            yield World(hub, running, story)
            nursery.cancel_scope.cancel()
        hub_runs.cancel_scope.cancel()


def _devices(spec: SiteSpec) -> list[str]:
    drawn = spec.blueprint
    of_telescopes = (
        uid
        for each in drawn.telescopes
        for uid in (each.mount_uid, each.camera_uid, each.focuser_uid, each.filter_wheel_uid)
    )
    return [str(uid) for uid in (drawn.enclosure_uid, *of_telescopes)]
