"""The door of the command socket: who comes in, by which words, and for how long."""

import json
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import trio
from trio_websocket import wrap_client_stream

from skygw.auth.principals import Scope
from skygw.control.order import Budget
from skygw.ids import InstallId
from skygw.nodes.ports import InstallationRecord
from skygw.protocol.close_codes import CloseCode
from skygw.protocol.schemas import COMMAND_SOCKET_PATH
from skygw.protocol.subscriber_frames import SUBSCRIBER_SUBPROTOCOL
from skygw.routers.apps import internal_app
from skygw.routers.command_socket import CommandSocketRouter
from skygw.routers.gates import InternalGate
from tests.fakes.rooms import Gateway, Site
from tests.hazards.peers import upgrade
from tests.routers.stream_doors import LOOPBACK, DoorCounts, StreamSocket, Tokens
from tests.serving.served import PATIENCE_S, Served, serving


class NoInstallations:
    """A directory that is empty."""

    async def find(self, install_id: InstallId) -> InstallationRecord | None:
        return None

    async def find_by_any(self, text: str) -> InstallationRecord | None:
        return None

    async def refused_among(self, install_ids: Collection[InstallId]) -> Collection[InstallId]:
        return ()

    async def list_page(self, *, page: int, size: int) -> Any:
        raise AssertionError("nobody lists installations here")


class CommandDoor:
    def __init__(self, served: Served, tokens: Tokens, counts: DoorCounts, gateway: Gateway) -> None:
        self.served = served
        self.tokens = tokens
        self.counts = counts
        self.gateway = gateway

    @asynccontextmanager
    async def socket(self, *, token: str, extensions: bool = True) -> AsyncIterator[StreamSocket]:
        async with self.served.peer() as peer, trio.open_nursery() as nursery:
            with trio.fail_after(PATIENCE_S):
                socket = await wrap_client_stream(
                    nursery,
                    peer.transport,
                    "here",
                    COMMAND_SOCKET_PATH,
                    subprotocols=[SUBSCRIBER_SUBPROTOCOL] if extensions else None,
                    extra_headers=[(b"authorization", f"Bearer {token}".encode())],
                )
            yield StreamSocket(socket)
            nursery.cancel_scope.cancel()

    async def refusal(self, *headers: str) -> tuple[int, dict[str, Any]]:
        async with self.served.peer() as peer:
            await peer.send(upgrade(COMMAND_SOCKET_PATH, *headers))
            status, body = await peer.response()
            return status, json.loads(body)


@asynccontextmanager
async def command_door() -> AsyncIterator[CommandDoor]:
    tokens, counts = Tokens(), DoorCounts()
    tokens.enter("commander", scopes=(Scope.NODES_COMMAND,))
    tokens.enter("caller", scopes=(Scope.NODES_CALL,))
    gate = InternalGate(verifier=tokens, networks=LOOPBACK, trusted_proxies=())

    def surprised() -> None:
        raise AssertionError("an error nobody expected")

    async with trio.open_nursery() as nursery:
        gateway = Gateway(nursery, leased=False, asks_for_leases=False)
        router = CommandSocketRouter(
            gate=gate,
            hub=gateway.hub,
            commands=gateway.commands,
            leases=gateway.leases,
            rpc=gateway.rpc,
            registry=gateway.registry,
            directory=NoInstallations(),
            metrics=counts,
            command_budget=Budget(60.0, 600.0),
            direct_budget=Budget(30.0, 60.0),
        )
        app = internal_app([router], [], gate=gate, count=lambda *_: None, surprised=surprised)
        async with serving(app, name="internal") as served:
            await nursery.start(gateway.commands.run)
            await nursery.start(gateway.hub.feed.run)
            yield CommandDoor(served, tokens, counts, gateway)
        nursery.cancel_scope.cancel()


def a_move(**members: Any) -> dict[str, Any]:
    return {
        "kind": "publish_command",
        "telescope_uid": str(uuid4()),
        "command_id": str(uuid4()),
        "command": {"command_type": "mount.park"},
        **members,
    }


async def test_one_of_three_scopes_opens_it_and_none_is_403_and_names_them() -> None:
    async with command_door() as door:
        status, body = await door.refusal("Authorization: Bearer poor")
        assert status == 403
        assert body["details"] == {"missingScopes": ["nodes:command", "streams:read", "nodes:call"]}
        assert (await door.refusal())[0] == 401
        for token in ("commander", "reader", "caller"):
            async with door.socket(token=token) as socket:
                assert socket.subprotocol == SUBSCRIBER_SUBPROTOCOL
                await socket.say({"kind": "ping", "id": token})
                assert await socket.hear() == {"kind": "pong", "id": token}
                assert door.counts.open["commands"] >= 1


async def test_a_plain_request_and_another_subprotocol_are_426() -> None:
    async with command_door() as door:
        async with door.served.peer() as peer:
            assert (await peer.ask(COMMAND_SOCKET_PATH))[0] == 426
        assert (await door.refusal("Authorization: Bearer commander", "Sec-WebSocket-Protocol: chat"))[0] == 426


async def test_a_newer_token_brings_its_scopes_and_its_end() -> None:
    async with command_door() as door:
        door.tokens.enter("short", scopes=(Scope.NODES_CALL,), lasts_s=600)
        door.tokens.enter("richer", scopes=(Scope.NODES_CALL, Scope.NODES_COMMAND), lasts_s=600)
        door.tokens.enter("another", service="intruder", scopes=(Scope.NODES_COMMAND,))
        async with door.socket(token="short", extensions=False) as socket:
            move = a_move()
            await socket.say(move)
            [refused] = await socket.hear_kinds("error")
            assert (refused["id"], refused["details"]["missing_scopes"]) == (move["command_id"], ["nodes:command"])
            for token in ("another", "poor"):
                await socket.say({"kind": "auth_refresh", "token": token})
                assert (await socket.hear())["code"] == "forbidden"
            await socket.say({"kind": "auth_refresh", "token": "richer"})
            await socket.hear_kinds("event_token")
            await socket.say(move)
            [refused] = await socket.hear_kinds("error")
            assert (refused["code"], refused["details"]["reason"]) == ("not_found", "not_found")


async def test_a_token_that_ends_ends_the_socket_with_4004() -> None:
    async with command_door() as door:
        door.tokens.enter("short", scopes=(Scope.NODES_COMMAND,), lasts_s=0.3)
        assert door.tokens.of["short"].expires_at > time.time()
        async with door.socket(token="short") as socket:
            assert (await socket.closed())[0] == CloseCode.TOKEN_EXPIRED


async def test_a_command_is_told_through_the_door() -> None:
    async with command_door() as door, door.socket(token="commander") as socket:
        site = Site()
        link = await door.gateway.connect(site)
        move = a_move(telescope_uid=str(site.telescope_uid))
        await socket.say(move)
        steps = await socket.hear_kinds("event_command_result", "event_command_result")
        assert [step["status"] for step in steps] == ["received", "written"]
        assert {UUID(step["command_id"]) for step in steps} == {UUID(move["command_id"])}
        link.hang_up()
        assert (await socket.hear())["status"] == "unknown"


async def test_an_installation_that_is_not_there_is_a_direct_error() -> None:
    async with command_door() as door, door.socket(token="caller") as socket:
        asked = {
            "kind": "direct_request",
            "id": str(uuid4()),
            "install_id": str(uuid4()),
            "operation": "log.tail",
            "params": {},
        }
        await socket.say(asked)
        [refused] = await socket.hear_kinds("direct_error")
        assert (refused["id"], refused["code"]) == (asked["id"], "not_found")
