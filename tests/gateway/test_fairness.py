"""What one service may not do to another, or to telescopes that are not its own, at the doors of a real gateway."""

from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import trio

from skygw.ids import CommandId
from skygw.protocol.gateway_frames import Ack, DirectRequest, EventCommand
from skygw.protocol.node_frames import CommandStatus, PublishCommandResult
from tests.fakes.postgres import PostgresServer
from tests.gateway.world import Site, World, gateway


def a_command(world: World, command_type: str, **members: Any) -> dict[str, Any]:
    return {
        "telescopeUid": str(world.site.telescope_uid),
        "commandId": str(uuid4()),
        "command": {"command_type": command_type},
        **members,
    }


def problem(answer: httpx.Response) -> tuple[int, str, str, str]:
    body = answer.json()
    return answer.status_code, body["code"], body["outcome"], body["retry"]


async def test_a_second_mover_of_a_mount_is_told_what_moves_it_until_that_has_ended(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path) as world, world.node() as node:
        mine = {"leaseUid": await world.control()}
        first = a_command(world, "mount.park", **mine)
        sent = (await world.ask("POST", "/internal/commands", first)).json()
        await node.hear(EventCommand)
        of_mount = {"deviceUid": str(world.site.mount_uid), "telescopeUid": None}
        second = a_command(world, "mount.unpark", **of_mount, **mine)
        refused = await world.ask("POST", "/internal/commands", second)
        assert problem(refused) == (409, "device_busy", "not_sent", "after")
        assert refused.headers["retry-after"] == "2"
        details = refused.json()["details"]
        assert (details["commandId"], details["commandType"]) == (first["commandId"], "mount.park")
        assert (details["holder"], details["deviceType"]) == ({"service": "tests"}, "mount")
        assert details["since"] == sent["createdAt"]
        tried = await world.ask("POST", "/internal/commands", {**second, "validateOnly": True})
        assert [refusal["code"] for refusal in tried.json()["refusals"]] == ["device_busy"]
        camera = await world.ask(
            "POST", "/internal/commands", a_command(world, "camera.exposure.start", command=EXPOSURE, **mine)
        )
        assert camera.status_code == 202, camera.text
        await node.hear(EventCommand)
        stop = await world.ask("POST", "/internal/commands", a_command(world, "mount.stop", **of_mount))
        assert stop.status_code == 202, stop.text
        await node.hear(EventCommand)
        await node.say(
            PublishCommandResult(seq=1, command_id=CommandId(UUID(first["commandId"])), status=CommandStatus.COMPLETED)
        )
        await node.hear(Ack)
        assert (await world.ask("POST", "/internal/commands", second)).status_code == 202


EXPOSURE = {"command_type": "camera.exposure.start", "duration_s": 1}


async def test_a_service_acts_on_the_telescopes_it_is_allowed_and_stops_any(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    mine = Site()
    await mine.provision(postgres.owner_url)
    async with (
        gateway(postgres, tmp_path, service_telescopes={"tests": [mine.telescope_uid]}) as world,
        world.node() as node,
    ):
        other = str(world.site.telescope_uid)
        move = a_command(world, "mount.park")
        for answer in (
            await world.ask("POST", "/internal/commands", move),
            await world.ask("POST", "/internal/leases", {"telescopeUid": other}),
            await world.direct(),
        ):
            assert problem(answer) == (403, "forbidden", "not_sent", "never")
            assert other in answer.json()["detail"]
            assert answer.json()["details"]["service"] == "tests"
            assert answer.json()["details"]["telescopeUid"] == other
        tried = await world.ask("POST", "/internal/commands", {**move, "validateOnly": True})
        assert [refusal["code"] for refusal in tried.json()["refusals"]] == ["forbidden", "lease_required"]
        assert (await world.ask("GET", f"/internal/commands/{move['commandId']}")).status_code == 404
        assert (await world.ask("GET", f"/internal/nodes/{world.site.install_id}")).status_code == 200
        stop = a_command(world, "mount.stop")
        assert (await world.ask("POST", "/internal/commands", stop)).status_code == 202
        assert str((await node.hear(EventCommand)).command_id) == stop["commandId"]
        lease = await world.ask("POST", "/internal/leases", {"telescopeUid": str(mine.telescope_uid)})
        assert lease.status_code == 201, lease.text
        away = {**move, "telescopeUid": str(mine.telescope_uid), "leaseUid": lease.json()["leaseUid"]}
        assert problem(await world.ask("POST", "/internal/commands", away))[1] == "node_offline"


async def test_a_service_that_floods_a_node_leaves_room_for_another(postgres: PostgresServer, tmp_path: Path) -> None:
    async with (
        gateway(postgres, tmp_path, max_calls_per_node=8) as world,
        world.node() as node,
        trio.open_nursery() as callers,
    ):
        for _ in range(6):
            callers.start_soon(hang, world)
            await node.hear(DirectRequest)
        refused = await world.direct()
        assert problem(refused) == (429, "busy", "not_sent", "after")
        assert refused.json()["details"] == {"usedUp": "calls", "service": "tests"}
        answers: list[httpx.Response] = []

        async def other() -> None:
            headers = {"authorization": f"Bearer {world.service_token(service='other')}"}
            body = {"operation": "echo", "params": {}}
            answers.append(await world.ask("POST", world.direct_path, body, headers=headers))
            callers.cancel_scope.cancel()

        callers.start_soon(other)
        request = await node.hear(DirectRequest)
        await node.answer(request, b"served")
        await trio.sleep_forever()
    assert [answer.content for answer in answers] == [b"served"]


async def hang(world: World) -> None:
    await world.direct(timeoutS=60)
