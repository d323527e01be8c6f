"""Commands through the whole gateway: what accompanies a stop, and what a gateway that died leaves to the next one."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import trio

from skygw.ids import CommandId
from skygw.nodes.ports import NOT_ITS
from skygw.protocol.gateway_frames import Ack, CancelCommand, CancelMode, EventCommand, Nack, QueryCommand
from skygw.protocol.json_text import Opaque
from skygw.protocol.node_frames import CanceledHow, CommandStatus, PublishCommandResult
from tests.fakes.postgres import PostgresServer
from tests.gateway.world import PATIENCE_S, Site, World, gateway


def a_command(world: World, command_type: str, **members: Any) -> dict[str, Any]:
    """A mount's moves have a target."""
    target = {"target": {"ra_deg": 83.82, "dec_deg": -5.39}} if command_type in ("mount.point", "mount.track") else {}
    return {
        "telescopeUid": str(world.site.telescope_uid),
        "commandId": str(uuid4()),
        "command": {"command_type": command_type, **target},
        **members,
    }


@asynccontextmanager
async def posted(world: World, order: dict[str, Any]) -> AsyncIterator[None]:
    """A caller who sends the order, and leaves at the end of the block without an answer."""
    body = json.dumps(order)
    head = (
        f"POST /internal/commands HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {world.service_token()}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    stream = await trio.open_tcp_stream("127.0.0.1", world.internal_port)
    await stream.send_all((head + body).encode())
    try:
        yield
    finally:
        await trio.aclose_forcefully(stream)


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
        for stop in stops:
            async with posted(world, stop):
                pass
        heard = {str((await node.hear(EventCommand)).command_id) for _ in stops}
        assert heard == {stop["commandId"] for stop in stops}


async def test_what_is_not_served_or_cannot_be_right_refuses_a_command_that_moves(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path) as world, world.node():
        for wrong, where in (
            ({"onCallerGone": "cancel"}, ["body", "onCallerGone"]),
            ({"commandId": "7"}, ["body", "commandId"]),
            ({"command": {"command_type": "mount.point", "target": 7}}, ["body", "command", "target"]),
        ):
            move = a_command(world, "mount.point", **wrong)
            answer = await world.ask("POST", "/internal/commands", move)
            assert (answer.status_code, answer.json()["outcome"]) == (422, "not_sent")
            assert answer.json()["detail"][0]["loc"] == where
            assert (await world.ask("GET", f"/internal/commands/{move['commandId']}")).status_code == 404


async def test_a_dry_run_says_all_that_would_refuse_and_sends_and_stores_nothing(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path) as world:
        lease = await world.control()
        wrong = {"command_type": "camera.exposure.start", "duration_s": -1}
        dry = a_command(world, "mount.point", command=wrong, validateOnly=True, leaseUid=lease)
        answer = await world.ask("POST", "/internal/commands", dry)
        assert (answer.status_code, answer.json()["valid"]) == (200, False)
        unfit, offline = answer.json()["refusals"]
        assert (unfit["code"], unfit["detail"][0]["loc"]) == ("invalid", ["body", "command", "duration_s"])
        assert (offline["code"], offline["retry"]) == ("node_offline", "after")
        stranger = a_command(world, "mount.park", telescopeUid=str(uuid4()), validateOnly=True)
        answer = await world.ask("POST", "/internal/commands", stranger)
        assert [refusal["code"] for refusal in answer.json()["refusals"]] == ["not_found"]

        async with world.node() as node:
            bare = await world.ask("POST", "/internal/commands", a_command(world, "mount.park", validateOnly=True))
            assert [refusal["code"] for refusal in bare.json()["refusals"]] == ["lease_required"]
            dry = a_command(world, "mount.park", validateOnly=True, onCallerGone="cancel", leaseUid=lease)
            answer = await world.ask("POST", "/internal/commands", dry)
            expected = {"commandId": dry["commandId"], "valid": True, "duplicate": False, "refusals": []}
            assert (answer.status_code, answer.json()) == (200, expected)
            assert (await world.ask("GET", f"/internal/commands/{dry['commandId']}")).status_code == 404
            real = a_command(world, "mount.unpark", leaseUid=lease)
            await world.ask("POST", "/internal/commands", real)
            assert str((await node.hear(EventCommand)).command_id) == real["commandId"]
            again = await world.ask("POST", "/internal/commands", {**real, "validateOnly": True})
            assert (again.json()["valid"], again.json()["duplicate"]) == (True, True)
            other = await world.ask("POST", "/internal/commands", {**dry, "commandId": real["commandId"]})
            assert [refusal["code"] for refusal in other.json()["refusals"]] == ["id_reused"]


async def test_a_command_is_canceled_when_its_caller_leaves_if_he_said_so(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path) as world, world.node() as node:
        lease = await world.control()
        kept = a_command(world, "mount.point", waitS=60, leaseUid=lease)
        left = a_command(world, "enclosure.open", waitS=60, onCallerGone="cancel", leaseUid=lease)
        for order in (kept, left):
            async with posted(world, order):
                assert str((await node.hear(EventCommand)).command_id) == order["commandId"]
        canceled = await node.hear(CancelCommand)
        assert (str(canceled.command_id), canceled.mode) == (left["commandId"], CancelMode.GRACEFUL)
        shown = (await world.ask("GET", f"/internal/commands/{left['commandId']}")).json()["cancels"]
        assert [(one["mode"], one["by"]["service"]) for one in shown] == [("graceful", "tests")]
        for seq, order in enumerate((kept, left), start=1):
            status = CommandStatus.COMPLETED if order is kept else CommandStatus.CANCELED
            await node.say(PublishCommandResult(seq=seq, command_id=CommandId(UUID(order["commandId"])), status=status))
        assert await recorded(world, kept["commandId"], "completed")
        assert await recorded(world, left["commandId"], "canceled")

        # Who waits to the end loses nothing.
        stays = a_command(world, "mount.point", waitS=60, onCallerGone="cancel", leaseUid=lease)
        async with trio.open_nursery() as nursery:
            answers = []

            async def wait() -> None:
                answers.append(await world.ask("POST", "/internal/commands", stays))

            nursery.start_soon(wait)
            event = await node.hear(EventCommand)
            await node.say(PublishCommandResult(seq=3, command_id=event.command_id, status=CommandStatus.COMPLETED))
        assert (answers[0].status_code, answers[0].json()["state"]) == (200, "completed")


async def test_an_unknown_command_is_closed_by_a_word_that_names_who_gave_it(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path) as world:
        move = a_command(world, "mount.point", leaseUid=await world.control())
        async with world.node() as node:
            await world.ask("POST", "/internal/commands", move)
            await node.hear(EventCommand)
            path = f"/internal/commands/{move['commandId']}/resolve"
            person = {"uid": "9", "kind": "user"}
            word = {"outcome": "failed", "reason": "the disk was lost; seen parked", "actor": person}
            early = await world.ask("POST", path, word)
            assert (early.status_code, early.json()["code"]) == (409, "illegal_transition")
        await recorded(world, move["commandId"], "unknown")

        token = {"authorization": f"Bearer {world.service_token('nodes:command', 'nodes:read')}"}
        assert (await world.ask("POST", path, word, headers=token)).status_code == 403
        assert (await world.ask("POST", path, {"outcome": "failed"})).status_code == 422
        for stranger in ("7", str(uuid4()), "%00", "0f8fad5b"):
            for verb in ("", "/cancel", "/resolve"):
                method = "POST" if verb else "GET"
                answer = await world.ask(method, f"/internal/commands/{stranger}{verb}", word if verb else None)
                assert (answer.status_code, answer.json()["code"]) == (404, "not_found")

        answer = await world.ask("POST", path, word)
        assert (answer.status_code, answer.json()["state"], answer.json()["outcome"]) == (200, "failed", "failed")
        last = answer.json()["transitions"][-1]
        assert (last["hop"], last["detail"]) == ("gateway", word["reason"])
        assert last["by"] == {"service": "tests", "actor": person}
        assert (await world.ask("POST", path, word)).status_code == 409

        async with world.node() as late:  # which turns out to remember
            said = PublishCommandResult(
                seq=1, command_id=CommandId(UUID(move["commandId"])), status=CommandStatus.COMPLETED
            )
            await late.say(said)
            await late.hear(Ack)
        stands = (await world.ask("GET", f"/internal/commands/{move['commandId']}")).json()
        assert (stands["state"], len(stands["transitions"])) == ("failed", len(answer.json()["transitions"]))

    with psycopg.connect(postgres.owner_url) as connection:
        audit = connection.execute(
            "SELECT entry FROM skygw.command_audit WHERE command_id = %s ORDER BY position", [move["commandId"]]
        ).fetchall()
        told = connection.execute(
            "SELECT data FROM skygw.log WHERE stream = 'command_result' AND data LIKE %s", [f"%{word['reason']}%"]
        ).fetchall()
    sealed = json.loads(audit[-1][0])
    assert (sealed["state"], sealed["service"], sealed["actor"]) == ("failed", "tests", person)
    assert [(event["status"], event["service"]) for event in map(json.loads, told[0])] == [("failed", "tests")]


async def test_results_that_are_not_the_nodes_to_say_or_go_backwards_change_nothing(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    stranger = Site()
    await stranger.provision(postgres.owner_url)
    async with (
        gateway(postgres, tmp_path) as world,
        world.node() as node,
        world.socket(token=world.node_token(stranger.install_id), hello=world.a_hello(stranger.install_id)) as other,
    ):
        move = a_command(world, "mount.point", leaseUid=await world.control())
        await world.ask("POST", "/internal/commands", move)
        command_id = (await node.hear(EventCommand)).command_id
        await other.greet()
        await other.say(PublishCommandResult(seq=1, command_id=command_id, status=CommandStatus.COMPLETED))
        assert (await other.hear(Nack)).reason == NOT_ITS
        assert (await other.hear(Ack)).seq == 1
        backwards = (CommandStatus.RUNNING, CommandStatus.ACCEPTED, CommandStatus.FAILED, CommandStatus.COMPLETED)
        for seq, status in enumerate(backwards, start=1):
            await node.say(PublishCommandResult(seq=seq, command_id=command_id, status=status))
        await node.say('{"kind":"publish_command_result","seq":5,"command_id":"7","status":"running"}')
        refused = await node.hear(Nack)
        assert (refused.seq, "command_id" in refused.reason) == (5, True)
        record = await recorded(world, move["commandId"], "failed")
        assert [step["state"] for step in record["transitions"]] == ["received", "written", "running", "failed"]


async def test_a_node_says_that_it_takes_more_time_and_that_it_cannot_be_canceled(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path) as world, world.node() as node:
        wrong = a_command(world, "mount.park", timeoutS=10, maxTimeoutS=9)
        answer = await world.ask("POST", "/internal/commands", wrong)
        assert (answer.status_code, "maxTimeoutS" in answer.text) == (422, True)
        lease = await world.control()
        move = a_command(world, "mount.point", timeoutS=10, maxTimeoutS=25, leaseUid=lease)
        first = (await world.ask("POST", "/internal/commands", move)).json()
        event = await node.hear(EventCommand)
        assert event.deadline_ms is not None
        assert event.deadline_max_ms == event.deadline_ms + 15_000
        running, how = CommandStatus.RUNNING, CanceledHow.NOT_CANCELABLE
        await node.say(PublishCommandResult(seq=1, command_id=event.command_id, status=running, deadline_ms=60_000))
        await node.hear(Ack)
        record = (await world.ask("GET", f"/internal/commands/{move['commandId']}")).json()
        assert first["deadlineAt"] < record["deadlineAt"] == record["deadlineMaxAt"] == first["deadlineMaxAt"]

        path, person = f"/internal/commands/{move['commandId']}/cancel", {"uid": "9", "kind": "user"}
        receipts: list[dict[str, Any]] = []

        async def cancel() -> None:
            body = {"mode": "graceful", "graceS": 2.5, "actor": person, "waitS": 60}
            receipts.append((await world.ask("POST", path, body)).json())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel)
            await node.hear(CancelCommand)
            await node.say(PublishCommandResult(seq=2, command_id=event.command_id, status=running, canceled=how))
        assert (receipts[0]["receipt"], receipts[0]["state"]) == ("not_cancelable", "running")
        await node.say(PublishCommandResult(seq=3, command_id=event.command_id, status=CommandStatus.COMPLETED))
        record = await recorded(world, move["commandId"], "completed")
        [kept] = record["cancels"]
        assert (kept["mode"], kept["graceS"], kept["by"]) == ("graceful", 2.5, {"service": "tests", "actor": person})


async def test_what_a_gateway_died_over_between_the_ledger_and_the_wire_is_asked_for_and_never_sent(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path) as world, world.node() as node:
        site, epoch, outbox_uid = world.site, node.epoch, node.hello.outbox_uid
        move = a_command(world, "mount.point", leaseUid=await world.control())
        await world.ask("POST", "/internal/commands", move)
        await node.hear(EventCommand)
        await recorded(world, move["commandId"], "written")
    with psycopg.connect(postgres.owner_url) as connection:  # as it would stand if it had died a moment earlier
        connection.execute("UPDATE skygw.command SET state = 'received' WHERE command_id = %s", [move["commandId"]])
    async with gateway(postgres, tmp_path) as world:
        again = await world.ask("POST", "/internal/commands", move)
        assert (again.json()["state"], again.json()["duplicate"]) == ("received", True)
        hello = world.a_hello(site.install_id, last_epoch=epoch, outbox_uid=outbox_uid)
        async with world.socket(token=world.node_token(site.install_id), hello=hello) as node:
            await node.greet()
            asked = await node.hear_one_of(QueryCommand, EventCommand)
            assert isinstance(asked, QueryCommand)
            [command_id] = asked.command_ids
            await recorded(world, move["commandId"], "unknown")
            error = Opaque.of({"reason": "never_received", "message": "It never came."})
            never = PublishCommandResult(seq=1, command_id=command_id, status=CommandStatus.REJECTED, error=error)
            await node.say(never)
            record = await recorded(world, move["commandId"], "rejected")
            assert [step["state"] for step in record["transitions"]][-2:] == ["unknown", "rejected"]
            again = await world.ask("POST", "/internal/commands", move)
            assert (again.json()["state"], again.json()["duplicate"]) == ("rejected", True)


async def test_what_a_gateway_that_died_had_written_is_asked_for_by_the_next_one(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path) as world, world.node() as node:
        site, epoch = world.site, node.epoch
        move = a_command(world, "mount.point", leaseUid=await world.control())
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
