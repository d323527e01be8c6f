"""Many scripted installations of one hub: known to its database, connected all at once, called by services."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from uuid import UUID

import trio

from skygw.database.provision import NewDevice, NewObservatory, NewTelescope, provision
from skygw.ids import InstallId, TelescopeUid
from skygw.protocol.gateway_frames import DirectRequest
from tests.fakes.gateway_process import GatewayProcess
from tests.fakes.scripted_node import ScriptedNode, answer_together

FLEET = int(os.environ.get("SKYGW_TEST_FLEET", "60"))
"""Installations; `nox -s fleet` runs 500."""

TELESCOPES_PER_OBSERVATORY = 10

LOOPBACK_LIMITS = {"max_connections_per_address": 4_096}
"""A fleet in one test comes from one address."""

CONNECT_ALL_S = 60.0
"""Bound of a wait, not a measurement: reached only when something is broken."""


class Gathering:
    """Answers nothing until `count` requests are in, and then all of them together, the last one first: only a node
    that is given them all at once is ever answered, and only a gateway that goes by ids gives each caller its own.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._waiting: list[DirectRequest] = []

    async def __call__(self, node: ScriptedNode, request: DirectRequest) -> None:
        self._waiting.append(request)
        if len(self._waiting) == self._count:
            together, self._waiting = self._waiting[::-1], []
            await answer_together(node, together)


def installations(seed: int, count: int = FLEET) -> list[InstallId]:
    random = Random(seed)  # noqa: S311 - the same fleet at every run
    return [InstallId(UUID(int=random.getrandbits(128), version=4)) for _ in range(count)]


async def make_known(
    gateway: GatewayProcess,
    install_ids: list[InstallId],
    *,
    devices: Callable[[InstallId], Iterable[NewDevice]] = lambda _: (),
) -> list[TelescopeUid]:
    """Writes a telescope for each of them into the hub's tables, ten to an observatory, with these devices."""
    telescopes = [
        NewTelescope(
            uid=TelescopeUid(UUID(int=install_id.int ^ 1)),
            name=f"telescope {number}",
            install_id=install_id,
            devices=tuple(devices(install_id)),
        )
        for number, install_id in enumerate(install_ids)
    ]
    step = TELESCOPES_PER_OBSERVATORY
    await provision(
        gateway.owner_url,
        [
            NewObservatory(
                uid=UUID(int=install_ids[first].int ^ 2),
                name=f"observatory {first // step}",
                telescopes=tuple(telescopes[first : first + step]),
            )
            for first in range(0, len(telescopes), step)
        ],
    )
    return [telescope.uid for telescope in telescopes]


@asynccontextmanager
async def connected(gateway: GatewayProcess, nodes: list[ScriptedNode]) -> AsyncIterator[None]:
    """Connects all of them at once; in the block every one has been welcomed. Leaving it resets their connections."""
    async with trio.open_nursery() as nursery:
        with trio.fail_after(CONNECT_ALL_S):
            async with trio.open_nursery() as connecting:
                for node in nodes:
                    run = partial(node.run, gateway.socket_url, gateway.node_token(node.install_id))
                    connecting.start_soon(nursery.start, run)
        yield
        for node in nodes:
            node.kill()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Polls what only the gateway knows, within a bound."""
    with trio.fail_after(CONNECT_ALL_S):
        while not await condition():  # noqa: ASYNC110 - another process has no event for us
            await trio.sleep(0.02)
