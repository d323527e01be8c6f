"""The guide to the command socket against the program, and its example against a gateway's rooms."""

import json
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import trio.testing

from skygw.conversations import direct, orders
from skygw.ids import TelescopeUid
from skygw.protocol.codec import Read, from_commander, to_commander
from skygw.protocol.gateway_frames import CancelCommand
from skygw.protocol.json_text import Opaque
from skygw.protocol.limits import MAX_CARRIED_BYTES
from skygw.protocol.node_frames import CanceledHow, CommandStatus
from skygw.protocol.schemas import COMMAND_SOCKET_PATH
from skygw.resources import Resource, ResourceKind
from skygw.telemetry.outlet import MAX_ANSWER_CHARACTERS, MAX_SUBSCRIPTIONS
from tests.conversations.talk import PlayedNode, talking
from tests.fakes.rooms import Gateway, Site

PAGE = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")
MODELS = {**from_commander.models, **to_commander.models}
DIRECTIONS: dict[str, Any] = {"S": from_commander, "G": to_commander}
TRANSCRIPT = re.findall(r"^([SG]) (.+)$", PAGE, re.MULTILINE)
ELSEWHERE = {"token", "state", "expires_at", "server_time", "t_ms", "from", "to", "count"}
"""Members of frames that are the stream socket's, and told there."""


@pytest.mark.parametrize("kind", MODELS)
def test_every_frame_and_every_member_of_it_is_named(kind: str) -> None:
    assert re.search(rf"`{kind}\b", PAGE) or kind == "ack"
    members = {info.alias or name for name, info in MODELS[kind].model_fields.items()} - {"kind"} - ELSEWHERE
    assert {name for name in members if not re.search(rf"\b{name}\b", PAGE)} == set()


def test_every_line_of_the_example_is_a_frame_of_its_side() -> None:
    items = [DIRECTIONS[side].decode(line)[0] for side, line in TRANSCRIPT]
    assert len(items) == 9
    assert [item for item in items if not isinstance(item, Read)] == []


def test_the_numbers_are_those_of_the_program() -> None:
    for number in (
        f"without an end that was told | {orders.MAX_FOLLOWED:,} |",
        f"stops that are followed | {orders.MAX_FOLLOWED_STOPS:,} |",
        f"are waited for | {orders.MAX_RECEIPTS} |",
        f"direct requests under way | {direct.MAX_DIRECT} |",
        f"subscriptions | {MAX_SUBSCRIPTIONS} |",
        f"not read | {MAX_ANSWER_CHARACTERS:,} characters",
        f"up to {direct.CHUNK_BYTES // 1024} KiB",
        f"may have {MAX_CARRIED_BYTES // 1024} KiB",
        f"after {orders.RECEIPT_PATIENCE_S:g} s and the grace",
        f"`GET {COMMAND_SOCKET_PATH}`",
    ):
        assert number in PAGE


async def test_the_example_is_what_happens(autojump_clock: trio.testing.MockClock) -> None:
    said = [json.loads(line) for side, line in TRANSCRIPT if side == "S"]
    told = [json.loads(line) for side, line in TRANSCRIPT if side == "G"]
    site = Site()
    site.telescope_uid = TelescopeUid(UUID(said[0]["telescope_uid"]))
    binding = site.binding
    telescope = Resource(
        site.telescope_uid, ResourceKind.TELESCOPE, site.install_id, binding.observatory_uid, site.telescope_uid, None
    )
    site.binding = type(binding)(
        install_id=binding.install_id,
        name=binding.name,
        node_type=binding.node_type,
        observatory_uid=binding.observatory_uid,
        telescopes=frozenset({site.telescope_uid}),
        devices=binding.devices,
        resources={**binding.resources, site.telescope_uid: telescope},
    )
    async with trio.open_nursery() as nursery:
        gateway = Gateway(nursery, leased=False)
        await nursery.start(gateway.commands.run)
        link = await gateway.connect(site)
        node = PlayedNode(link)
        async with talking(gateway) as talk:
            acquire, slew, cancel = said
            talk.say(acquire)
            heard = [await talk.hear()]
            talk.say({**slew, "lease_uid": heard[0]["result"]["lease_uid"]})
            command = await node.takes()
            node.says(command, CommandStatus.RUNNING, progress=0.25)
            heard += [await talk.hear() for _ in range(3)]
            talk.say(cancel)
            assert (await link.hear_next(CancelCommand)).grace_ms == cancel["grace_ms"]
            proof = Opaque.of(told[-1]["proof"])
            node.says(command, CommandStatus.CANCELED, canceled=CanceledHow.INTERRUPTED, proof=proof)
            heard += [await talk.hear() for _ in range(2)]
        nursery.cancel_scope.cancel()
    assert [list(one) for one in heard] == [list(one) for one in told]
    assert list(heard[0]["result"]) == list(told[0]["result"])
    for one, other in zip(heard, told, strict=True):
        for member in ("kind", "command_id", "status", "outcome", "hop", "progress", "proof", "canceled", "receipt"):
            assert one.get(member) == other.get(member)
