"""Commands on a socket: each told to its end or refused by itself, and a stop never behind anything."""

import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
import trio
import trio.testing

from skygw.auth.principals import Scope
from skygw.conversations import orders
from skygw.protocol.close_codes import CloseCode
from skygw.protocol.gateway_frames import CancelCommand, EventCommand
from skygw.protocol.json_text import Opaque
from skygw.protocol.limits import MAX_CARRIED_BYTES
from skygw.protocol.node_frames import CanceledHow, CommandStatus, PublishCommandResult
from tests.conversations.talk import PlayedNode, gateway_and_node, publish, talking
from tests.fakes.rooms import Site

Clock = trio.testing.MockClock
READ_BACK = Opaque.of({"devices": [{"device_uid": str(uuid4()), "state": "stopped", "basis": "read_back"}]})


async def test_every_step_of_a_command_is_told_to_its_end(autojump_clock: Clock) -> None:
    async with gateway_and_node() as (gateway, site, link), talking(gateway) as talk:
        node = PlayedNode(link)
        said = publish(site, origin={"where": "here"})
        talk.say(said)
        command = await node.takes()
        assert (str(command.command_id), command.origin) == (said["command_id"], Opaque.of({"where": "here"}))
        node.says(command, CommandStatus.ACCEPTED)
        node.says(command, CommandStatus.RUNNING, progress=0.25)
        heard = [await talk.hear_about(said["command_id"]) for _ in range(4)]
        assert [step["status"] for step in heard] == ["received", "written", "accepted", "running"]
        assert [step["hop"] for step in heard] == ["gateway", "gateway", "node", "node"]
        assert {step["outcome"] for step in heard} == {"in_progress"}
        node.says(command, CommandStatus.RUNNING, progress=0.75)
        further = await talk.hear_about(said["command_id"])
        assert (further["status"], heard[-1]["progress"], further["progress"]) == ("running", 0.25, 0.75)
        node.says(command, CommandStatus.COMPLETED, result=Opaque('{ "alt" : 1.50 }', {"alt": 1.5}))
        end = await talk.hear_message()
        assert isinstance(end, str)
        assert '"status":"completed","outcome":"succeeded"' in end
        assert '"result":{ "alt" : 1.50 }' in end


async def test_a_repeat_is_one_action_and_says_so(autojump_clock: Clock) -> None:
    async with gateway_and_node() as (gateway, site, link), talking(gateway) as talk, talking(gateway) as other:
        node, said = PlayedNode(link), publish(site)
        talk.say(said)
        command = await node.takes()
        assert await talk.statuses(said["command_id"], "written") == ["received", "written"]
        talk.say(said)
        other.say(said)
        again = await talk.hear_about(said["command_id"])
        assert (again["status"], again["duplicate"]) == ("written", True)
        assert (await other.hear_about(said["command_id"]))["duplicate"]
        node.says(command, CommandStatus.COMPLETED)
        for one in (talk, other):
            assert (await one.hear_about(said["command_id"]))["status"] == "completed"
        talk.say(said)
        once_more = await talk.hear_about(said["command_id"])
        assert (once_more["status"], once_more["duplicate"]) == ("completed", True)
        assert [frame for frame in link.heard_so_far() if "event_command" in str(frame)] == []


async def test_an_unknown_command_is_followed_until_the_node_tells(autojump_clock: Clock) -> None:
    async with gateway_and_node() as (gateway, site, link), talking(gateway) as talk:
        node, said = PlayedNode(link), publish(site)
        talk.say(said)
        command = await node.takes()
        await talk.statuses(said["command_id"], "written")
        link.hang_up()
        lost = await talk.hear_about(said["command_id"])
        assert (lost["status"], lost["outcome"]) == ("unknown", "unknown")
        back = PlayedNode(await gateway.connect(site))
        back.says(command, CommandStatus.COMPLETED)
        found = await talk.hear_about(said["command_id"])
        assert (found["status"], found["outcome"]) == ("completed", "succeeded")


async def test_what_the_ledger_alone_knows_of_an_unknown_command_is_told_too(autojump_clock: Clock) -> None:
    async with gateway_and_node() as (gateway, site, link), talking(gateway) as talk:
        node, said = PlayedNode(link), publish(site)
        talk.say(said)
        command = await node.takes()
        await talk.statuses(said["command_id"], "written")
        link.hang_up()
        await talk.statuses(said["command_id"], "unknown")
        await gateway.commands.flush()
        result = PublishCommandResult(seq=1, command_id=command.command_id, status=CommandStatus.FAILED)
        gateway.ledger.apply(site.install_id, result)  # by a session that was cut before anybody was told
        assert (await talk.hear_about(said["command_id"]))["status"] == "failed"


async def test_commands_for_one_target_go_in_the_order_they_were_said(autojump_clock: Clock) -> None:
    async with gateway_and_node() as (gateway, site, link), talking(gateway) as talk:
        said = [publish(site, "mount.nod" if one % 2 else "mount.shake") for one in range(40)]
        talk.say([*said[:20]], *said[20:])
        node = PlayedNode(link)
        assert [str((await node.takes()).command_id) for _ in said] == [one["command_id"] for one in said]


async def test_a_stop_takes_back_what_was_said_before_it_and_waits(autojump_clock: Clock) -> None:
    async with gateway_and_node() as (gateway, site, link), talking(gateway) as talk:
        for _ in range(10):  # in whatever order tasks run
            moves, stop = [publish(site) for _ in range(5)], publish(site, "mount.stop")
            talk.say([*moves, stop])
            assert str((await PlayedNode(link).takes()).command_id) == stop["command_id"]
            told: dict[str, list[str]] = {move["command_id"]: [] for move in moves}
            while any("canceled" not in told[move["command_id"]] for move in moves):
                heard = await talk.hear()
                told.setdefault(heard["command_id"], []).append(heard["status"])
            assert all(told[move["command_id"]] == ["received", "canceled"] for move in moves)
            await trio.testing.wait_all_tasks_blocked()
            assert [frame for frame in link.heard_so_far() if "event_command" in str(frame)] == []


async def test_a_stop_goes_out_whatever_accompanies_it(autojump_clock: Clock) -> None:
    async with gateway_and_node(asks_for_leases=True) as (gateway, site, link), talking(gateway) as talk:
        node = PlayedNode(link)
        for wrong in (
            {"lease_uid": 7},
            {"lease_uid": 7, "leaseUid": 8},
            {"validate_only": True},
            {"on_caller_gone": "explode"},
            {"timeout_s": "soon", "timeoutS": -1},
            {"graph_revision": -1},
            {"origin": "none"},
            {"traceparent": 3},
            {"unheard_of": [1]},
            {"actor": {"uid": ""}},
        ):
            said = publish(site, "mount.stop", **wrong)
            talk.say(said)
            assert str((await node.takes()).command_id) == said["command_id"]


async def test_a_stop_and_a_cancel_pass_when_there_is_no_place_the_gateway_drains_and_the_ledger_is_away(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orders, "MAX_FOLLOWED", 1)
    async with gateway_and_node() as (gateway, site, link), talking(gateway) as talk:
        node, first, second = PlayedNode(link), publish(site), publish(site)
        talk.say(first)
        await node.takes()
        await talk.statuses(first["command_id"], "written")
        talk.say(second)
        refused = await talk.hear_about(second["command_id"])
        assert (refused["code"], refused["details"]["reason"], refused["details"]["outcome"]) == (
            "conflict",
            "busy",
            "not_sent",
        )
        gateway.commands.drain()
        gateway.database.away = True
        talk.say({"kind": "cancel_command", "command_id": first["command_id"]}, publish(site, "mount.stop"))
        heard = [await link.hear() for _ in range(2)]
        assert {type(frame) for frame in heard} == {CancelCommand, EventCommand}


async def test_a_stop_is_read_past_a_flood_whose_answers_nobody_reads(autojump_clock: Clock) -> None:
    async with gateway_and_node() as (gateway, site, link), talking(gateway) as talk:
        talk.link.stall()
        bad = {"kind": "no_such_kind", "id": "x" * 200}
        for _ in range(15):
            talk.say([bad] * 200)
        talk.say(publish(site, "mount.stop"))
        assert (await PlayedNode(link).takes()).command.value["command_type"] == "mount.stop"
        talk.link.flow()
        told = 0
        while (heard := await talk.hear())["details"]["reason"] != "busy":
            told += 1
        left_out = int(heard["message"].split()[0])
        assert told + left_out == 3_000
        assert told < 1_500


async def test_a_cancel_is_answered_by_a_receipt_with_its_proof(autojump_clock: Clock) -> None:
    async with gateway_and_node() as (gateway, site, link), talking(gateway) as talk:
        node, said = PlayedNode(link), publish(site)
        talk.say(said)
        command = await node.takes()
        node.says(command, CommandStatus.RUNNING)
        await talk.statuses(said["command_id"], "running")
        talk.say({"kind": "cancel_command", "commandId": said["command_id"], "graceMs": 2_000, "mode": "gently"})
        asked = await link.hear_next(CancelCommand)
        assert (asked.mode, asked.grace_ms) == ("graceful", 2_000)
        node.says(command, CommandStatus.CANCELED, canceled=CanceledHow.INTERRUPTED, proof=READ_BACK)
        heard = {one["kind"]: one for one in [await talk.hear(), await talk.hear()]}
        assert heard["event_command_receipt"] == {
            "kind": "event_command_receipt",
            "command_id": said["command_id"],
            "receipt": "interrupted",
            "state": "canceled",
            "proof": READ_BACK.value,
        }
        assert heard["event_command_result"]["proof"] == READ_BACK.value


async def test_as_published_a_cancel_of_anybodys_command_is_answered_by_what_becomes_of_it(
    autojump_clock: Clock,
) -> None:
    async with (
        gateway_and_node() as (gateway, site, link),
        talking(gateway) as talk,
        talking(gateway, extensions=False) as other,
    ):
        node, said = PlayedNode(link), publish(site)
        talk.say(said)
        command = await node.takes()
        other.say({"kind": "cancel_command", "command_id": said["command_id"]})
        await link.hear_next(CancelCommand)
        node.says(command, CommandStatus.CANCELED, canceled=CanceledHow.BEFORE_START)
        end = await other.hear()
        assert (end["kind"], end["status"], end["canceled"]) == ("event_command_result", "canceled", "before_start")
        other.say({"kind": "cancel_command", "command_id": said["command_id"]})
        assert (await other.hear())["status"] == "canceled"


async def test_a_cancel_of_what_nobody_has_sent_is_not_found(autojump_clock: Clock) -> None:
    async with gateway_and_node() as (gateway, _, _), talking(gateway) as talk:
        nobodys = str(uuid4())
        talk.say({"kind": "cancel_command", "command_id": nobodys})
        refused = await talk.hear_about(nobodys)
        assert (refused["kind"], refused["code"]) == ("error", "not_found")


# A socket that ends.


async def test_commands_go_on_without_their_socket_but_for_those_that_are_not_to(autojump_clock: Clock) -> None:
    async with gateway_and_node() as (gateway, site, link):
        stays, goes = publish(site), publish(site, "focuser.move", command={"position": 7}, on_caller_gone="cancel")
        async with talking(gateway) as talk:
            talk.say(stays, goes)
            taken = [await PlayedNode(link).takes() for _ in range(2)]
        canceled = await link.hear_next(CancelCommand)
        assert str(canceled.command_id) == goes["command_id"]
        await trio.testing.wait_all_tasks_blocked()
        assert [str(frame) for frame in link.heard_so_far() if "cancel_command" in str(frame)] == []
        PlayedNode(link).says(taken[0], CommandStatus.COMPLETED)
        assert (await gateway.commands.wait(taken[0].command_id, 5)).state == "completed"


async def test_what_waited_for_its_turn_when_the_socket_ended_is_sent_all_the_same(autojump_clock: Clock) -> None:
    async with gateway_and_node() as (gateway, site, link):
        said = [publish(site, "mount.nod") for _ in range(20)]
        async with talking(gateway) as talk:
            talk.say(said)
            talk.link.hang_up()
        node = PlayedNode(link)
        assert [str((await node.takes()).command_id) for _ in said] == [one["command_id"] for one in said]


# What is refused, each by itself.


def both_targets(site: Site) -> dict[str, Any]:
    return publish(site, device_uid=str(site.device_uid))


def no_uuid(site: Site) -> dict[str, Any]:
    return publish(site, command_id="mine")


def no_misfit(site: Site) -> dict[str, Any]:
    return publish(site, "mount.offset_relative", command={"delta_arcsec": "3"})


def misspelt(site: Site) -> dict[str, Any]:
    return publish(site, validate_onyl=True)


def both_spellings(site: Site) -> dict[str, Any]:
    return publish(site, lease_uid=None, leaseUid=None)


def oversize(site: Site) -> dict[str, Any]:
    return publish(site, command={"note": "x" * MAX_CARRIED_BYTES})


def no_type(site: Site) -> dict[str, Any]:
    return publish(site, command={"command_type": 7})


@pytest.mark.parametrize(
    "wrong", [both_targets, no_uuid, no_misfit, misspelt, both_spellings, oversize, no_type], ids=lambda it: it.__name__
)
async def test_what_cannot_be_right_is_refused_and_the_socket_goes_on(
    autojump_clock: Clock, wrong: Callable[[Site], dict[str, Any]]
) -> None:
    async with gateway_and_node() as (gateway, site, link), talking(gateway) as talk:
        said = wrong(site)
        talk.say(said)
        refused = await talk.hear()
        assert (refused["kind"], refused["code"], refused["id"]) == ("error", "invalid", said["command_id"])
        assert (refused["details"]["reason"], refused["details"]["retry"]) == ("invalid", "never")
        talk.say(publish(site))
        await PlayedNode(link).takes()


async def test_an_id_of_another_command_is_refused_and_the_first_goes_on(autojump_clock: Clock) -> None:
    async with gateway_and_node() as (gateway, site, link), talking(gateway) as talk:
        node, said = PlayedNode(link), publish(site, on_caller_gone="cancel")
        talk.say(said)
        command = await node.takes()
        await talk.statuses(said["command_id"], "written")
        talk.say(publish(site, "mount.unpark", command_id=said["command_id"]))
        refused = await talk.hear_about(said["command_id"])
        assert (refused["code"], refused["details"]["reason"]) == ("conflict", "id_reused")
        node.says(command, CommandStatus.COMPLETED)
        assert (await talk.hear_about(said["command_id"]))["status"] == "completed"


async def test_what_is_no_frame_of_this_socket_is_said_so_and_a_binary_message_ends_it(autojump_clock: Clock) -> None:
    async with gateway_and_node() as (gateway, _, _), talking(gateway) as talk:
        talk.say({"kind": "publish_log", "id": "7"}, {"kind": "ping", "id": "8"})
        refused = await talk.hear()
        assert (refused["code"], refused["id"]) == ("invalid", "7")
        assert await talk.hear() == {"kind": "pong", "id": "8"}
        talk.say(b"12345678901234567890")
        await talk.ended.wait()
        assert talk.link.closed_with is not None
        assert talk.link.closed_with[0] == CloseCode.PROTOCOL_VIOLATION


async def test_each_frame_wants_its_scope_and_names_it(autojump_clock: Clock) -> None:
    async with gateway_and_node() as (gateway, site, _):
        subscribe = {"kind": "subscribe_commands", "subscription_id": "s", "stream": "command"}
        direct = {"kind": "direct_request", "install_id": str(site.install_id), "operation": "a", "params": {}}
        cancel = {"kind": "cancel_command", "command_id": str(uuid4())}
        acting = publish(site, actor={"uid": "7", "kind": "user"})
        for frame, missing, has in (
            (publish(site), "nodes:command", Scope.STREAMS_READ),
            (publish(site, "mount.stop"), "nodes:command", Scope.STREAMS_READ),
            (publish(site, "lease.acquire"), "nodes:command", Scope.STREAMS_READ),
            (cancel, "nodes:command", Scope.STREAMS_READ),
            (acting, "act_as", Scope.NODES_COMMAND),
            (subscribe, "streams:read", Scope.NODES_COMMAND),
            ({**direct, "id": str(uuid4())}, "nodes:call", Scope.NODES_COMMAND),
        ):
            async with talking(gateway, scopes=[has]) as talk:
                talk.say(frame)
                refused = await talk.hear()
                assert (refused["kind"], refused["code"]) == ("error", "forbidden")
                assert refused["details"]["missing_scopes"] == [missing]
                assert refused["id"] in json.dumps(frame)


async def test_whoever_is_believed_for_safing_alone_may_stop_and_nothing_else(autojump_clock: Clock) -> None:
    async with gateway_and_node() as (gateway, site, link), talking(gateway, only_safing=True) as talk:
        move, stop = publish(site), publish(site, "mount.stop")
        talk.say(move, stop)
        assert (await talk.hear_about(move["command_id"]))["details"]["reason"] == "routing_unavailable"
        assert str((await PlayedNode(link).takes()).command_id) == stop["command_id"]


async def test_a_dry_run_says_all_that_would_refuse_and_sends_nothing(autojump_clock: Clock) -> None:
    async with (
        gateway_and_node(asks_for_leases=True) as (gateway, site, link),
        talking(gateway) as talk,
        talking(gateway, extensions=False) as plain,
    ):
        said = publish(site, "mount.offset_relative", validate_only=True)
        talk.say(said)
        found = await talk.hear_about(said["command_id"])
        assert (found["kind"], found["valid"], found["duplicate"]) == ("event_command_validation", False, False)
        assert [one["details"]["reason"] for one in found["refusals"]] == ["invalid", "lease_required"]
        plain.say(said)
        assert (await plain.hear())["code"] == "invalid"
        await trio.testing.wait_all_tasks_blocked()
        assert [frame for frame in link.heard_so_far() if "event_command" in str(frame)] == []


# Subscriptions.


async def test_subscriptions_are_those_of_the_stream_socket(autojump_clock: Clock) -> None:
    async with gateway_and_node() as (gateway, _, _), talking(gateway) as talk:
        talk.say({"kind": "subscribe_commands", "subscription_id": "a", "stream": "command_result"})
        assert [(await talk.hear())["kind"] for _ in range(2)] == ["ack", "event_live"]
        talk.say({"kind": "subscribe_commands", "subscription_id": "a", "stream": "command"})
        assert (await talk.hear())["code"] == "invalid"
        talk.say({"kind": "subscribe_commands", "subscription_id": "b", "stream": "telescope_log"})
        assert ((await talk.hear())["code"]) == "invalid"
        talk.say({"kind": "unsubscribe_stream", "subscription_id": "somebody's"})
        assert ((await talk.hear())["code"]) == "not_found"
        talk.say({"kind": "unsubscribe_stream", "subscription_id": "a"})
        assert await talk.hear() == {"kind": "ack", "subscription_id": "a"}
