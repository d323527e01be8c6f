"""What the fixtures give: a running gateway with its tokens and records, and a simulated site connected to it."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

import httpx
import trio

from skygw.app import Running, run
from skygw.auth import development
from skygw.auth.development import DevelopmentKey
from skygw.client.caller import Caller
from skygw.demo.records import provision_sites
from skygw.demo.tokens import EVERY_SCOPE, node_token, node_tokens, service_token
from skygw.ids import InstallId
from skygw.settings import Settings
from skygw.sim.blueprint import SiteBlueprint, draw_site
from skygw.sim.node import NodeHabits
from skygw.sim.station import Station, open_station

TIME_SCALE = 20.0
CONNECT_WITHIN_S = 20.0


@dataclass(frozen=True)
class TestGateway:
    """A gateway that is ready."""

    __test__ = False

    running: Running
    settings: Settings
    key: DevelopmentKey
    owner_url: str

    @property
    def node_url(self) -> str:
        """Base URL of the node listener."""
        return self.running.node_url

    @property
    def internal_url(self) -> str:
        """Base URL of the internal listener."""
        return self.running.internal_url

    @property
    def node_socket_url(self) -> str:
        """Where an installation connects to."""
        return socket_url(self.node_url)

    def node_token(self, install_id: InstallId, *, lifetime_s: float = 3_600.0) -> str:
        """A bearer token for an installation."""
        return node_token(self.key, install_id, audience=self.settings.node_audiences[0], lifetime_s=lifetime_s)

    def service_token(self, *, service: str = "tests", scopes: Collection[str] = EVERY_SCOPE) -> str:
        """A bearer token for a service of the hub."""
        audience = self.settings.internal_audiences[0]
        return service_token(self.key, audience=audience, service=service, scopes=scopes)

    def client(self, *, service: str = "tests", scopes: Collection[str] = EVERY_SCOPE) -> httpx.AsyncClient:
        """An HTTP client of the internal listener, let in; the caller closes it."""
        token = self.service_token(service=service, scopes=scopes)
        return httpx.AsyncClient(
            base_url=self.internal_url, headers={"Authorization": f"Bearer {token}"}, trust_env=False
        )

    def caller(self, *, service: str = "tests", scopes: Collection[str] = EVERY_SCOPE) -> Caller:
        """What a hub service on Trio embeds, let in: it also takes leases."""
        return Caller(self.internal_url, self.service_token(service=service, scopes=scopes))

    def habits(self) -> NodeHabits:
        """How a simulated node reaches this gateway."""
        return NodeHabits(
            url=self.node_socket_url,
            token_of=node_tokens(self.key, audience=self.settings.node_audiences[0]),
            snapshot_every_s=1.0,
            progress_every_s=0.1,
        )

    async def provision(self, blueprints: Sequence[SiteBlueprint]) -> None:
        """Let the installations of these sites in."""
        await provision_sites(self.owner_url, blueprints)


def socket_url(node_url: str) -> str:
    """The address of the node socket under a listener's base URL."""
    return f"ws{node_url.removeprefix('http')}/v1/ws/node"


@asynccontextmanager
async def open_gateway(
    database_url: str, owner_url: str, *, directory: Path, changed: Mapping[str, object]
) -> AsyncIterator[TestGateway]:
    """A gateway on free ports of this machine, until the block is left; then every connection is dropped."""
    values: dict[str, object] = {
        "node_port": 0,
        "internal_port": 0,
        "data_dir": directory,
        "database_url": database_url,
        **changed,
    }
    settings = Settings(**values)  # type: ignore[arg-type]  # it is the model's work to check them
    key = await trio.to_thread.run_sync(development.load_or_make, settings.data_dir)
    async with trio.open_nursery() as nursery:
        running: Running = await nursery.start(partial(run, settings, handle_signals=False))
        yield TestGateway(running, settings, key, owner_url)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_installation(
    gateway: TestGateway, *, directory: Path, telescopes: int = 1, time_scale: float = TIME_SCALE
) -> AsyncIterator[Station]:
    """A new simulated site, connected to this gateway until the block is left."""
    blueprint = draw_site(uuid4().hex, 1, telescopes=telescopes)
    await gateway.provision([blueprint])
    with open_station(blueprint, directory=directory, habits=gateway.habits(), time_scale=time_scale) as station:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(station.run)
            with trio.fail_after(CONNECT_WITHIN_S):
                await station.wait_connected()
            yield station
            nursery.cancel_scope.cancel()
