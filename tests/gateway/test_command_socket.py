"""The command socket through a whole gateway: real sockets, a real database, the worked example of the guide."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import trio
from trio_websocket import wrap_client_stream

from skygw.protocol.chunks import unpack_chunk
from skygw.protocol.gateway_frames import CancelCommand, DirectRequest, EventCommand
from skygw.protocol.json_text import Opaque
from skygw.protocol.node_frames import CanceledHow, CommandStatus, PublishCommandResult
from skygw.protocol.schemas import COMMAND_SOCKET_PATH
from skygw.protocol.subscriber_frames import SUBSCRIBER_SUBPROTOCOL
from tests.fakes.postgres import PostgresServer
from tests.gateway.world import PATIENCE_S, ScriptedNode, World, bearer, gateway
from tests.routers.stream_doors import StreamSocket

SCOPES = ("nodes:command", "nodes:call", "streams:read", "act_as")


@asynccontextmanager
async def command_socket(world: World, *, extensions: bool = True) -> AsyncIterator[StreamSocket]:
    stream = await trio.open_tcp_stream("127.0.0.1", world.internal_port)
    try:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(PATIENCE_S):
                socket = await wrap_client_stream(
                    nursery,
                    stream,
                    "127.0.0.1",
                    COMMAND_SOCKET_PATH,
                    subprotocols=[SUBSCRIBER_SUBPROTOCOL] if extensions else None,
                    extra_headers=bearer(world.service_token(*SCOPES)),
                )
            yield StreamSocket(socket)
            nursery.cancel_scope.cancel()
    finally:
        stream.socket.close()


def publish(world: World, command_type: str, command: dict[str, Any] | None = None, **members: Any) -> dict[str, Any]:
    return {
        "kind": "publish_command",
        "telescope_uid": str(world.site.telescope_uid),
        "command_id": str(uuid4()),
        "command": {"command_type": command_type, **(command or {})},
        **members,
    }


async def steps(socket: StreamSocket, said: dict[str, Any], until: str) -> list[str]:
    told: list[str] = []
    while not told or told[-1] != until:
        heard = await socket.hear()
        if heard.get("command_id") == said["command_id"]:
            assert heard["kind"] == "event_command_result", heard
            told.append(heard["status"])
    return told


async def says(node: ScriptedNode, seq: int, command: EventCommand, status: CommandStatus, **members: Any) -> None:
    await node.say(PublishCommandResult(seq=seq, command_id=command.command_id, status=status, **members))


async def test_a_lease_a_slew_its_cancel_with_proof_and_what_everybody_is_told(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path) as world, world.node() as node, command_socket(world) as socket:
        await socket.say(
            {
                "kind": "subscribe_commands",
                "subscription_id": "all",
                "stream": "command_result",
                "filter": {"telescope_uid": str(world.site.telescope_uid)},
            }
        )
        await socket.hear_kinds("ack", "event_live")
        acquire = publish(world, "lease.acquire", {"duration_s": 300})
        await socket.say(acquire)
        lease = (await socket.hear())["result"]
        slew = publish(world, "mount.point", {"target": {"ra_deg": 10.5}}, lease_uid=lease["lease_uid"], timeout_s=60)
        await socket.say(slew)
        command = await node.hear(EventCommand)
        assert command.fence == lease["fence"]
        await says(node, 1, command, CommandStatus.RUNNING)
        assert (await steps(socket, slew, "running"))[:2] == ["received", "written"]
        await socket.say({"kind": "cancel_command", "command_id": slew["command_id"]})
        await node.hear(CancelCommand)
        proof = {"devices": [{"device_uid": str(world.site.mount_uid), "state": "stopped", "basis": "read_back"}]}
        await says(node, 2, command, CommandStatus.CANCELED, canceled=CanceledHow.INTERRUPTED, proof=Opaque.of(proof))
        heard: dict[str, dict[str, Any]] = {}
        while set(heard) != {"receipt", "step", "event"}:
            one = await socket.hear()
            if one["kind"] == "event_command_receipt":
                heard["receipt"] = one
            elif one.get("command_id") == slew["command_id"]:
                heard["step"] = one
            elif one.get("data", {}).get("status") == "canceled":
                heard["event"] = one
        assert (heard["receipt"]["receipt"], heard["receipt"]["proof"]) == ("interrupted", proof)
        assert (heard["step"]["status"], heard["step"]["canceled"]) == ("canceled", "interrupted")
        assert heard["event"]["subscription_id"] == "all"
        listed = (await world.ask("GET", f"/internal/leases/{lease['lease_id']}")).json()
        assert (listed["held"], listed["fence"]) == (True, lease["fence"])
        assert (await world.ask("GET", f"/internal/commands/{acquire['command_id']}")).status_code == 404


async def test_an_unknown_command_is_told_of_as_it_resolves(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world, command_socket(world, extensions=False) as socket:
        said = publish(world, "mount.park")
        hello = world.a_hello()
        async with world.socket(hello=hello) as node:
            await node.greet()
            await socket.say(said)
            command = await node.hear(EventCommand)
            await steps(socket, said, "written")
        await steps(socket, said, "unknown")
        async with world.socket(hello=hello) as node:
            await node.greet()
            await says(node, 1, command, CommandStatus.COMPLETED)
            assert await steps(socket, said, "completed") == ["completed"]


async def test_a_large_answer_comes_in_binary_pieces_beside_a_stop(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world, world.node() as node, command_socket(world) as socket:
        stop = publish(world, "mount.stop")
        asked = {
            "kind": "direct_request",
            "id": str(uuid4()),
            "install_id": str(world.site.install_id),
            "operation": "asset.read",
            "params": {},
        }
        await socket.say(asked, stop)
        frames = [await node.hear_one_of(EventCommand, DirectRequest) for _ in range(2)]
        [request] = [frame for frame in frames if isinstance(frame, DirectRequest)]
        payload = (bytes(range(256)) * 4_096)[: request.credit]
        await node.answer(request, payload)
        texts: list[dict[str, Any]] = []
        got = b""
        with trio.fail_after(PATIENCE_S):
            while not texts or texts[-1]["kind"] not in {"direct_response_end", "direct_error"}:
                message = await socket._socket.get_message()
                if isinstance(message, bytes):
                    chunk = unpack_chunk(message)
                    assert str(chunk.id) == asked["id"]
                    got += chunk.payload
                else:
                    texts.append(json.loads(message))
        assert got == payload
        assert texts[-1]["sha256"] == sha256(payload).hexdigest()
        told = {one["status"] for one in texts if one.get("command_id") == stop["command_id"]}
        assert told == {"received", "written"}
        call = (await world.ask("GET", f"/internal/calls/{asked['id']}")).json()
        assert call["outcome"] == "succeeded"


async def test_a_lease_type_by_http_is_refused_and_names_the_lease_routes(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path) as world, world.node():
        target = {"telescopeUid": str(world.site.telescope_uid)}
        for command_type in ("lease.acquire", "lease.renew", "lease.steal"):
            body = {**target, "commandId": str(uuid4()), "command": {"command_type": command_type}}
            refused = await world.ask("POST", "/internal/commands", body)
            assert refused.status_code == 422
            assert "POST /internal/leases" in refused.json()["detail"][0]["msg"]
            dry = await world.ask("POST", "/internal/commands", {**body, "validateOnly": True})
            assert [one["code"] for one in dry.json()["refusals"]] == ["invalid"]
