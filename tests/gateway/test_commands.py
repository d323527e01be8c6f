"""Commands through the whole gateway: what accompanies a stop, and what a gateway that died leaves to the next one."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import trio

from skygw.protocol.gateway_frames import EventCommand, QueryCommand
from skygw.protocol.node_frames import CommandStatus, PublishCommandResult
from tests.fakes.postgres import PostgresServer
from tests.gateway.world import PATIENCE_S, World, gateway


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
            found = [item for item in answer.json()["items"] if item["commandId"] == command_id]
            if found:
                return dict(found[0])
            await trio.sleep(0.05)


async def test_a_stop_goes_out_whatever_accompanies_it(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world, world.node() as node:
        for options in (
            {"leaseUid": str(uuid4()), "validateOnly": True, "onCallerGone": "cancel"},
            {"timeoutS": 0, "waitS": -1, "fence": 7, "graphRevision": "old"},
        ):
            stop = a_command(world, "mount.stop", **options)
            answer = await world.ask("POST", "/internal/commands", stop)
            assert answer.status_code == 202, answer.text
            assert str((await node.hear(EventCommand)).command_id) == stop["commandId"]


async def test_a_stop_goes_out_though_its_caller_hangs_up(postgres: PostgresServer, tmp_path: Path) -> None:
    """Many at once, so that they are met by it in every step of their way."""
    async with gateway(postgres, tmp_path) as world, world.node() as node:
        stops = [a_command(world, "mount.stop") for _ in range(20)]
        internal = urlsplit(world.running.internal_url)
        assert internal.hostname is not None
        assert internal.port is not None
        for stop in stops:
            body = json.dumps(stop)
            head = (
                f"POST /internal/commands HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
                f"authorization: Bearer {world.service_token()}\r\ncontent-length: {len(body)}\r\n\r\n"
            )
            stream = await trio.open_tcp_stream(internal.hostname, internal.port)
            await stream.send_all((head + body).encode())
            await stream.aclose()
        heard = {str((await node.hear(EventCommand)).command_id) for _ in stops}
        assert heard == {stop["commandId"] for stop in stops}


@pytest.mark.parametrize(
    "option",
    [{"validateOnly": True}, {"onCallerGone": "cancel"}],
    ids=lambda it: next(iter(it)),
)
async def test_an_option_that_is_not_served_refuses_a_command_that_moves(
    option: dict[str, Any], postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path) as world, world.node():
        move = a_command(world, "mount.point", **option)
        answer = await world.ask("POST", "/internal/commands", move)
        assert (answer.status_code, answer.json()["outcome"]) == (422, "not_sent")
        assert answer.json()["detail"][0]["loc"] == ["body", *option]
        assert (await world.ask("GET", f"/internal/commands/{move['commandId']}")).status_code == 404


async def test_what_a_gateway_that_died_had_written_is_asked_for_by_the_next_one(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path) as world, world.node() as node:
        site, epoch = world.site, node.epoch
        move = a_command(world, "mount.point")
        assert (await world.ask("POST", "/internal/commands", move)).status_code == 202
        await node.hear(EventCommand)
        await recorded(world, move["commandId"], "written")
        outbox_uid = node.hello.outbox_uid
    async with gateway(postgres, tmp_path) as world:
        hello = world.a_hello(site.install_id, last_epoch=epoch, outbox_uid=outbox_uid)
        async with world.socket(token=world.node_token(site.install_id), hello=hello) as node:
            await node.greet()
            [asked] = (await node.hear(QueryCommand)).command_ids
            assert str(asked) == move["commandId"]
            assert (await world.ask("GET", f"/internal/commands/{asked}")).json()["outcome"] == "unknown"
            await node.say(PublishCommandResult(seq=1, command_id=asked, status=CommandStatus.COMPLETED))
            record = await recorded(world, move["commandId"], "completed")
            states = [step["state"] for step in record["transitions"]]
            assert states == ["received", "written", "unknown", "completed"]
