"""The command socket without doors: a real session and conversation over a memory link, in a gateway's rooms."""

import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import trio

from skygw.auth.principals import Scope, ServicePrincipal
from skygw.control.order import Budget
from skygw.control.published_leases import PublishedLeases
from skygw.conversations.commands import CommandConversation
from skygw.conversations.direct import DirectRequests
from skygw.conversations.orders import Orders
from skygw.conversations.session import ServiceSession
from skygw.conversations.streams import Subscriptions
from skygw.errors import Forbidden, NotFound
from skygw.ids import InstallId
from skygw.protocol.gateway_frames import EventCommand
from skygw.protocol.json_text import compact
from skygw.protocol.node_frames import CommandStatus, PublishCommandResult
from skygw.telemetry.dialects import AS_PUBLISHED, WITH_EXTENSIONS
from skygw.telemetry.outlet import SubscriberOutlet
from tests.fakes.memory_link import MemoryLink
from tests.fakes.rooms import Gateway, PlayedLink, Site

PATIENCE_S = 30.0
EVERYTHING = (Scope.NODES_COMMAND, Scope.NODES_CALL, Scope.STREAMS_READ, Scope.ACT_AS)


async def _no_renewal(token: str) -> float:
    raise Forbidden("Not here.")


class Talk:
    """The service's end."""

    def __init__(self, link: MemoryLink) -> None:
        self.link = link
        self.ended = trio.Event()

    def say(self, *frames: dict[str, Any] | list[dict[str, Any]] | str | bytes) -> None:
        for frame in frames:
            self.link.say(frame if isinstance(frame, str | bytes) else compact.encode(frame))

    async def hear_message(self) -> str | bytes:
        with trio.fail_after(PATIENCE_S):
            return await self.link.sent.receive()

    async def hear(self) -> dict[str, Any]:
        message = await self.hear_message()
        assert isinstance(message, str), message
        return dict(json.loads(message))

    async def hear_about(self, about: object) -> dict[str, Any]:
        """The next message about this id; others are passed over."""
        while True:
            heard = await self.hear()
            if str(about) in (heard.get("command_id"), heard.get("id"), heard.get("subscription_id")):
                return heard

    async def statuses(self, command_id: object, until: str) -> list[str]:
        """The steps of a command up to this one."""
        told: list[str] = []
        while not told or told[-1] != until:
            heard = await self.hear_about(command_id)
            assert heard["kind"] == "event_command_result", heard
            told.append(heard["status"])
        return told


@asynccontextmanager
async def talking(
    gateway: Gateway, *, scopes: Sequence[Scope] = EVERYTHING, extensions: bool = True, only_safing: bool = False
) -> AsyncIterator[Talk]:
    """A socket of a service. It hangs up at the end, if it has not."""
    outlet = SubscriberOutlet(WITH_EXTENSIONS if extensions else AS_PUBLISHED, owner="tests")

    async def find(text: str) -> InstallId:
        if (
            gateway.registry.current(InstallId(UUID(text))) is None
            and UUID(text) not in gateway.controllers.of.values()
        ):
            raise NotFound("No such installation.")
        return InstallId(UUID(text))

    conversation = CommandConversation(
        ServicePrincipal("tests", frozenset(scopes), time.time() + 1e6, only_safing),
        outlet=outlet,
        orders=Orders(
            gateway.commands,
            PublishedLeases(gateway.leases),
            outlet,
            budget=Budget(60.0, 600.0),
            extensions=extensions,
        ),
        direct=DirectRequests(gateway.rpc, find, outlet, budget=Budget(30.0, 60.0), binary=extensions),
        subscriptions=Subscriptions(gateway.hub, outlet),
    )
    link = MemoryLink()
    talk = Talk(link)
    session = ServiceSession(
        link, conversation, owner="tests", expires_at=conversation.principal.expires_at, renew=_no_renewal
    )

    async def run() -> None:
        await session.run()
        talk.ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        yield talk
        link.hang_up()
        with trio.fail_after(PATIENCE_S):
            await talk.ended.wait()


@asynccontextmanager
async def gateway_and_node(**settings: Any) -> AsyncIterator[tuple[Gateway, Site, PlayedLink]]:
    """Rooms that run, and a node that has been welcomed. Leases are asked for where the test says so."""
    async with trio.open_nursery() as nursery:
        gateway, site = Gateway(nursery, **{"leased": False, "asks_for_leases": False, **settings}), Site()
        await nursery.start(gateway.commands.run)
        await nursery.start(gateway.hub.feed.run)
        link = await gateway.connect(site)
        yield gateway, site, link
        nursery.cancel_scope.cancel()


def publish(site: Site, command_type: str = "mount.park", **members: Any) -> dict[str, Any]:
    command = {"command_type": command_type, **members.pop("command", {})}
    return {
        "kind": "publish_command",
        "telescope_uid": str(site.telescope_uid),
        "command_id": str(uuid4()),
        "command": command,
        **members,
    }


def direct(site: Site, operation: str = "echo", **members: Any) -> dict[str, Any]:
    return {
        "kind": "direct_request",
        "id": str(uuid4()),
        "install_id": str(site.install_id),
        "operation": operation,
        "params": {},
        **members,
    }


class PlayedNode:
    """What a node says of its commands."""

    def __init__(self, link: PlayedLink) -> None:
        self.link = link
        self._seq = 0

    async def takes(self) -> EventCommand:
        with trio.fail_after(PATIENCE_S):
            return await self.link.hear_next(EventCommand)

    def says(self, command: EventCommand, status: CommandStatus, **members: Any) -> None:
        self._seq += 1
        self.link.say(PublishCommandResult(seq=self._seq, command_id=command.command_id, status=status, **members))
