"""The stage of the demonstration: a gateway of its own, simulated sites, a caller, and who is waiting for what."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import trio

from skygw.app import Running, run
from skygw.auth import development
from skygw.auth.development import DevelopmentKey
from skygw.client.caller import Caller
from skygw.client.control_lease import ControlLease
from skygw.demo.tokens import node_tokens, service_token
from skygw.settings import Settings
from skygw.sim.fault_proxy import FaultProxy
from skygw.sim.node import NodeHabits
from skygw.sim.station import Station

POLL_S = 0.02
ANSWER_S = 30.0
"""More than any request here may take."""


class StepFailed(Exception):
    """What was promised did not happen; the message says what happened instead."""


def expect(held: bool, otherwise: str) -> None:
    """Raises `StepFailed` with `otherwise` unless it held."""
    if not held:
        raise StepFailed(otherwise)


async def until(condition: Callable[[], bool]) -> None:
    """Looks until it is so; the step's own deadline ends it."""
    while not condition():  # noqa: ASYNC110 - simulated devices and other people's sessions have no event for us
        await trio.sleep(POLL_S)


@dataclass(frozen=True)
class Gateway:
    """A gateway that is ready, and the keys to it."""

    running: Running
    settings: Settings
    key: DevelopmentKey
    caller: Caller
    http: httpx.AsyncClient
    """The caller's own connections, for what it has no method for."""
    ended: trio.Event
    """Set when it has ended by itself: after its drain."""

    def owner_url(self) -> str:
        """The embedded database, as the owner of its tables."""
        if self.running.cluster is None:
            raise RuntimeError("The demonstration runs on an embedded PostgreSQL.")
        return self.running.cluster.owner_url

    def habits(self, *, port: int | None = None) -> NodeHabits:
        """How simulated nodes reach it; with `port`, through what listens there."""
        url = httpx.URL(self.running.node_url).copy_with(scheme="ws", raw_path=b"/v1/ws/node")
        return NodeHabits(
            url=str(url if port is None else url.copy_with(port=port)),
            token_of=node_tokens(self.key, audience=self.settings.node_audiences[0]),
            snapshot_every_s=2.0,
            progress_every_s=0.1,
        )


@dataclass(frozen=True)
class Stage:
    """Everything a step may look at. `plain` is connected directly, `stalling` through the proxy."""

    gateway: Gateway
    plain: Station
    stalling: Station
    proxy: FaultProxy
    directory: Path
    lease: ControlLease | None = None
    """Control of the first telescope of `plain`, once it was taken."""

    @property
    def caller(self) -> Caller:
        return self.gateway.caller


async def start_gateway(settings: Settings, nursery: trio.Nursery) -> Gateway:
    """Start a gateway in the caller's nursery. Raises `StartupError`."""
    key = await trio.to_thread.run_sync(development.load_or_make, settings.data_dir)
    ended = trio.Event()

    async def run_to_its_end(*, task_status: trio.TaskStatus[Running]) -> None:
        await run(settings, handle_signals=False, task_status=task_status)
        ended.set()

    running: Running = await nursery.start(run_to_its_end)
    token = service_token(key, audience=settings.internal_audiences[0])
    http = httpx.AsyncClient(timeout=ANSWER_S, trust_env=False)
    return Gateway(running, settings, key, Caller(running.internal_url, token, client=http), http, ended)


def one_device(record: dict[str, Any]) -> dict[str, Any]:
    """The proof of a command on one device. Raises `StepFailed` if there is none."""
    devices = (record.get("proof") or {}).get("devices") or []
    expect(len(devices) == 1, f"the answer proves nothing: {record.get('error') or record.get('state')}")
    found: dict[str, Any] = devices[0]
    return found
