"""The database dies under live sockets: what needs it says so, safing goes on, and nothing that came is lost."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import trio

from skygw.protocol.gateway_frames import Ack, DirectRequest, EventCommand
from skygw.protocol.node_frames import CommandStatus, Ping, Pong, PublishCommandResult
from tests.gateway.world import PATIENCE_S, World, gateway

NOON = "2026-11-22T12:00:00Z"


def a_log(seq: int) -> str:
    return json.dumps({"kind": "publish_log", "seq": seq, "data": {"line": seq}, "observed_at": NOON})


def a_command(world: World, command_type: str, **members: Any) -> dict[str, Any]:
    return {
        "telescopeUid": str(world.site.telescope_uid),
        "commandId": str(uuid4()),
        "command": {"command_type": command_type},
        **members,
    }


async def recorded(world: World, command_id: str, state: str) -> dict[str, Any]:
    """The record once the ledger has it in this state: asked again until then."""
    with trio.fail_after(PATIENCE_S):
        while True:
            answer = await world.ask("GET", f"/internal/commands?state={state}")
            found = [item for item in answer.json().get("items", ()) if item["commandId"] == command_id]
            if found:
                return dict(found[0])
            await trio.sleep(0.05)


async def test_sockets_and_safing_outlive_the_database(tmp_path: Path) -> None:
    async with gateway(None, tmp_path) as world, world.node() as node:
        cluster = world.running.cluster
        assert cluster is not None
        await node.say(a_log(1))
        assert (await node.hear(Ack)).seq == 1
        await cluster.kill()

        # What needs the database says so.
        moving = await world.ask("POST", "/internal/commands", a_command(world, "mount.unpark"))
        assert (moving.status_code, moving.json()["code"]) == (503, "routing_unavailable")
        assert (moving.json()["outcome"], moving.json()["retry"]) == ("not_sent", "after")
        assert int(moving.headers["retry-after"]) >= 1
        page = await world.ask("GET", "/internal/nodes")
        assert (page.status_code, page.json()["code"]) == (503, "routing_unavailable")
        connected = await world.ask("GET", "/internal/nodes?connected=true")
        assert [node["connected"] for node in connected.json()["items"]] == [True]
        ready = await world.ask("GET", "/readyz")
        assert ready.status_code == 503
        assert ready.json()["checks"]["loopback"] == "ok"
        assert ready.json()["checks"]["database"] != "ok"

        # The socket stays, and direct requests need no database.
        await node.say(Ping(id="still here"))
        assert (await node.hear(Pong)).id == "still here"
        view = await world.node_view()
        assert (view["connected"], view["id"]) == (True, None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.serve_echoes)
            assert (await world.direct(params={"a": 1})).json() == {"a": 1}
            nursery.cancel_scope.cancel()

        # Safing goes on, and is answered.
        stop = a_command(world, "mount.stop", waitS=PATIENCE_S)

        async def obey() -> None:
            event = await node.hear(EventCommand)
            assert event.command.value == {"command_type": "mount.stop"}
            await node.say(
                a_log(2),
                PublishCommandResult(seq=3, command_id=event.command_id, status=CommandStatus.COMPLETED),
            )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(obey)
            answer = await world.ask("POST", "/internal/commands", stop)
        assert (answer.status_code, answer.json()["outcome"]) == (200, "succeeded")

        # When it is back, everything is written down.
        await cluster.start()
        while (ack := await node.hear(Ack)).seq < 3:
            pass
        assert ack.seq == 3
        record = await recorded(world, stop["commandId"], "completed")
        assert record["recordedLate"] is True
        again = await world.ask("POST", "/internal/commands", stop)
        assert again.json()["duplicate"] is True


async def test_a_command_that_was_sent_is_not_denied_because_the_ledger_went_away(tmp_path: Path) -> None:
    async with gateway(None, tmp_path) as world, world.node() as node:
        cluster = world.running.cluster
        assert cluster is not None
        command = a_command(world, "mount.unpark", waitS=1.0, leaseUid=await world.control())

        async def obey() -> None:
            event = await node.hear(EventCommand)
            await cluster.kill()
            await node.say(PublishCommandResult(seq=1, command_id=event.command_id, status=CommandStatus.COMPLETED))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(obey)
            answer = await world.ask("POST", "/internal/commands", command)
        assert (answer.status_code, answer.json()["outcome"]) == (202, "in_progress")
        await cluster.start()
        assert (await node.hear(Ack)).seq == 1
        record = await recorded(world, command["commandId"], "completed")
        assert [step["state"] for step in record["transitions"]][-1] == "completed"


async def test_a_node_that_lost_its_link_is_back_and_stoppable_before_the_database_is(tmp_path: Path) -> None:
    async with gateway(None, tmp_path) as world:
        assert world.running.cluster is not None
        outbox_uid = uuid4()
        async with world.node(outbox_uid=outbox_uid) as node:
            epoch = node.epoch
        await world.running.cluster.kill()
        async with world.node(outbox_uid=outbox_uid, last_epoch=epoch) as again:
            assert again.epoch == epoch + 1
            stop = a_command(world, "mount.stop")
            assert (await world.ask("POST", "/internal/commands", stop)).status_code == 202
            assert str((await again.hear(EventCommand)).command_id) == stop["commandId"]
        await world.running.cluster.start()


async def test_a_node_that_comes_while_the_database_is_away_comes_back_later(tmp_path: Path) -> None:
    async with gateway(None, tmp_path) as world, world.socket() as node:
        assert world.running.cluster is not None
        await world.running.cluster.kill()
        await node.say(node.hello)
        code, reason = await node.closed()
        assert code == 4001
        assert "database" in reason
        await world.running.cluster.start()
        async with world.node() as again:
            assert again.epoch >= 1
            async with trio.open_nursery() as nursery:
                nursery.start_soon(world.direct)
                assert (await again.hear(DirectRequest)).operation == "echo"
                nursery.cancel_scope.cancel()
