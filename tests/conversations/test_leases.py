"""Leases in the published way are those of the HTTP routes, and nothing of them reaches a node's ledger."""

from typing import Any
from uuid import uuid4

import pytest
import trio.testing

from skygw.control.lease import LeaseQuery
from skygw.control.ledger import CommandQuery
from skygw.protocol.gateway_frames import EventCommand
from tests.conversations.talk import PlayedNode, Talk, gateway_and_node, publish, talking
from tests.fakes.rooms import Site

Clock = trio.testing.MockClock
ANNA, BERT = ({"uid": uid, "kind": "user"} for uid in ("anna", "bert"))


async def leased(talk: Talk, site: Site, verb: str, command: dict[str, Any], **members: Any) -> dict[str, Any]:
    said = publish(site, f"lease.{verb}", command=command, **members)
    talk.say(said)
    return await talk.hear_about(said["command_id"])


async def test_a_lease_is_acquired_used_renewed_and_released(autojump_clock: Clock) -> None:
    async with gateway_and_node(asks_for_leases=True) as (gateway, site, link), talking(gateway) as talk:
        got = await leased(talk, site, "acquire", {"duration_s": 100, "onExpiry": "stop"}, actor=ANNA)
        assert (got["kind"], got["status"], got["outcome"]) == ("event_command_result", "completed", "succeeded")
        lease = got["result"]
        assert (lease["holder"], lease["held"], lease["on_expiry"]) == (
            {"service": "tests", "actor": ANNA},
            True,
            "stop",
        )
        assert lease["telescope_uid"] == str(site.telescope_uid)
        talk.say(publish(site, lease_uid=lease["lease_uid"], actor=ANNA))
        assert (await PlayedNode(link).takes()).fence == lease["fence"]
        kept = await leased(talk, site, "renew", {"lease_uid": lease["lease_uid"], "duration_s": 500}, actor=ANNA)
        assert (kept["result"]["lease_id"], kept["result"]["duration_s"]) == (lease["lease_id"], 500)
        assert "lease_uid" not in kept["result"]
        done = await leased(talk, site, "release", {}, lease_uid=lease["lease_uid"], actor=ANNA)
        assert (done["result"]["held"], done["result"]["ended"]) == (False, "released")
        again = await leased(talk, site, "release", {"lease_uid": lease["lease_uid"]}, actor=ANNA)
        assert again["result"]["ended"] == "released"
        _, rows = await gateway.commands.page(CommandQuery())
        _, leases = await gateway.leases.page(LeaseQuery())
        assert (rows, leases) == (1, 1)


async def test_a_secret_of_ones_own_makes_a_repeat_the_same_lease_and_may_be_used_at_once(
    autojump_clock: Clock,
) -> None:
    async with gateway_and_node(asks_for_leases=True) as (gateway, site, link), talking(gateway) as talk:
        secret = str(uuid4())
        acquire = publish(site, "lease.acquire", command={"lease_uid": secret})
        talk.say([acquire, publish(site, lease_uid=secret), {**acquire, "command_id": str(uuid4())}])
        assert isinstance(await PlayedNode(link).takes(), EventCommand)
        heard = [one for one in [await talk.hear() for _ in range(4)] if "result" in one]
        assert len({one["result"]["lease_id"] for one in heard}) == 1
        assert len(heard) == 2


@pytest.mark.parametrize(
    ("verb", "command", "members", "reason"),
    [
        ("acquire", {"duration_s": 0}, {}, "invalid"),
        ("acquire", {"on_expiry": "explode"}, {}, "invalid"),
        ("acquire", {"duration_s": 10, "warn_s": 20}, {}, "invalid"),
        ("acquire", {"unheard_of": 1}, {}, "invalid"),
        ("acquire", {"lease_uid": "mine"}, {}, "invalid"),
        ("acquire", {}, {"validate_only": True}, "invalid"),
        ("acquire", {}, {"on_caller_gone": "cancel"}, "invalid"),
        ("acquire", {"lease_uid": str(uuid4())}, {"lease_uid": str(uuid4())}, "invalid"),
        ("acquire", {}, {"telescope_uid": str(uuid4())}, "not_found"),
        ("acquire", {}, {"actor": BERT}, "lease_held"),
        ("renew", {}, {}, "invalid"),
        ("renew", {"lease_uid": str(uuid4())}, {}, "forbidden"),
        ("release", {"lease_uid": str(uuid4())}, {}, "forbidden"),
        ("release", {"lease_uid": str(uuid4())}, {"telescope_uid": str(uuid4())}, "not_found"),
        ("break", {}, {}, "invalid"),
    ],
    ids=str,
)
async def test_what_makes_no_sense_or_is_anothers_is_refused(
    autojump_clock: Clock, verb: str, command: dict[str, Any], members: dict[str, Any], reason: str
) -> None:
    async with gateway_and_node() as (gateway, site, link), talking(gateway) as talk:
        await leased(talk, site, "acquire", {}, actor=ANNA)
        refused = await leased(talk, site, verb, command, **members)
        assert (refused["kind"], refused["details"]["reason"]) == ("error", reason)
        assert (await gateway.leases.page(LeaseQuery(held=True)))[1] == 1
        assert [frame for frame in link.heard_so_far() if '"event_command"' in str(frame)] == []


async def test_a_holder_is_named_to_whoever_comes_second(autojump_clock: Clock) -> None:
    async with gateway_and_node() as (gateway, site, _), talking(gateway) as talk:
        await leased(talk, site, "acquire", {"duration_s": 100}, actor=ANNA)
        refused = await leased(talk, site, "acquire", {}, actor=BERT)
        assert refused["code"] == "conflict"
        assert refused["details"]["holder"] == {"service": "tests", "actor": ANNA}
        assert refused["details"]["retry"] == "after"
        assert 99 < refused["details"]["retry_after_s"] <= 100
        assert "expires_at" in refused["details"]
