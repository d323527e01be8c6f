"""Leases through the doors: who gets one, who may show one, what everybody is told and what the node is."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from skygw.protocol.gateway_frames import EventCommand, EventManualControlLease
from tests.fakes.postgres import PostgresServer
from tests.gateway.world import World, gateway

ANNA = {"uid": "anna", "kind": "user"}
BERT = {"uid": "bert", "kind": "user"}


@pytest.fixture
async def world(postgres: PostgresServer, tmp_path: Path) -> AsyncIterator[World]:
    async with gateway(postgres, tmp_path) as made:
        yield made


async def acquire(world: World, **body: Any) -> dict[str, Any]:
    answer = await world.ask("POST", "/internal/leases", {"telescopeUid": str(world.site.telescope_uid), **body})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def move(world: World, **members: Any) -> dict[str, Any]:
    return {
        "deviceUid": str(world.site.mount_uid),
        "commandId": str(uuid4()),
        "command": {"command_type": "mount.park"},
        **members,
    }


def problem(answer: httpx.Response) -> tuple[int, str, str, str]:
    body = answer.json()
    return answer.status_code, body["code"], body["outcome"], body["retry"]


async def test_the_secret_is_shown_once_to_who_acquired_it_and_kept_nowhere(
    world: World, postgres: PostgresServer
) -> None:
    lease = await acquire(world, actor=ANNA, durationS=120, deadmanS=15, onExpiry="stop")
    assert lease["holder"] == {"service": "tests", "actor": ANNA}
    assert (lease["held"], lease["durationS"], lease["deadmanS"], lease["onExpiry"]) == (True, 120, 15, "stop")
    assert 119 < lease["expiresInS"] <= 120
    shown = [
        (await world.ask("GET", f"/internal/leases/{lease['id']}")).json(),
        (await world.ask("GET", f"/internal/leases?telescopeUid={world.site.telescope_uid}&held=true")).json(),
    ]
    assert shown[0]["leaseUid"] is None
    assert [item["id"] for item in shown[1]["items"]] == [lease["id"]]
    assert lease["leaseUid"] not in json.dumps(shown)
    with psycopg.connect(postgres.owner_url) as connection:
        for query in (
            "SELECT row_to_json(each)::text FROM skygw.lease AS each",
            "SELECT row_to_json(each)::text FROM skygw.log AS each",
        ):
            rows = connection.execute(query.encode()).fetchall()
            assert lease["leaseUid"] not in str(rows)
            assert lease["leaseUid"].replace("-", "") not in str(rows)


async def test_the_same_request_again_with_a_secret_of_ones_own_is_the_same_lease(world: World) -> None:
    body = {"leaseUid": str(uuid4()), "actor": ANNA}
    lease = await acquire(world, **body)
    again = await world.ask("POST", "/internal/leases", {"telescopeUid": str(world.site.telescope_uid), **body})
    assert (again.status_code, again.json()["id"], again.json()["leaseUid"]) == (200, lease["id"], body["leaseUid"])


async def test_who_comes_second_is_told_who_has_control_and_when_to_come_back(world: World) -> None:
    await acquire(world, actor=ANNA, durationS=100)
    answer = await world.ask("POST", "/internal/leases", {"telescopeUid": str(world.site.telescope_uid), "actor": BERT})
    assert problem(answer) == (409, "lease_held", "not_sent", "after")
    assert answer.json()["details"]["holder"] == {"service": "tests", "actor": ANNA}
    assert 90 <= int(answer.headers["retry-after"]) <= 100


async def test_what_makes_no_sense_is_refused(world: World) -> None:
    senseless: list[tuple[dict[str, Any], str]] = [
        ({}, "body"),
        ({"telescopeUid": "x"}, "telescopeUid"),
        ({"telescopeUid": str(uuid4()), "durationS": 0}, "durationS"),
        ({"telescopeUid": str(uuid4()), "durationS": 10**6}, "durationS"),
        ({"telescopeUid": str(uuid4()), "onExpiry": "explode"}, "onExpiry"),
        ({"telescopeUid": str(uuid4()), "whileTask": "explode"}, "whileTask"),
        ({"telescopeUid": str(uuid4()), "durationS": 10, "warnS": 20}, "body"),
        ({"telescopeUid": str(uuid4()), "leaseUid": "mine"}, "leaseUid"),
    ]
    answers = [await world.ask("POST", "/internal/leases", body) for body, _ in senseless]
    assert {answer.status_code for answer in answers} == {422}
    assert [answer.json()["detail"][0]["loc"][-1] for answer in answers] == [where for _, where in senseless]


async def test_what_is_not_there_or_has_no_lease_of_its_own_says_so(world: World) -> None:
    unknown = await world.ask("POST", "/internal/leases", {"telescopeUid": str(uuid4())})
    mount = await world.ask("POST", "/internal/leases", {"deviceUid": str(world.site.mount_uid)})
    for path in (f"/internal/leases/{uuid4()}", "/internal/leases/mine"):
        assert (await world.ask("GET", path)).status_code == 404
    assert unknown.status_code == 404
    assert mount.status_code == 422
    assert str(world.site.telescope_uid) in mount.json()["detail"][0]["msg"]


async def test_each_act_wants_its_scope(world: World) -> None:
    lease = await acquire(world)
    path, secret = f"/internal/leases/{lease['id']}", {"leaseUid": lease["leaseUid"]}
    acts: list[tuple[str, str, dict[str, Any] | None, str]] = [
        ("POST", "/internal/leases", {"telescopeUid": str(world.site.telescope_uid)}, "nodes:command"),
        ("GET", "/internal/leases", None, "nodes:read"),
        ("GET", path, None, "nodes:read"),
        ("POST", f"{path}/renew", secret, "nodes:command"),
        ("POST", f"{path}/release", secret, "nodes:command"),
        ("POST", f"{path}/break", {"reason": "x"}, "nodes:admin"),
        ("POST", f"{path}/release", {**secret, "actor": ANNA}, "act_as"),
    ]
    everything = {"nodes:read", "nodes:command", "nodes:admin", "act_as"}
    for method, where, body, scope in acts:
        token = world.service_token(*(everything - {scope}))
        answer = await world.ask(method, where, body, headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 403
        assert answer.json()["details"] == {"missingScopes": [scope]}


async def test_only_its_holder_renews_and_releases_and_an_administrator_breaks(world: World) -> None:
    lease = await acquire(world, actor=ANNA, durationS=50)
    path = f"/internal/leases/{lease['id']}"
    for foreign in ({"leaseUid": str(uuid4()), "actor": ANNA}, {"leaseUid": lease["leaseUid"]}):
        for act in ("renew", "release"):
            answer = await world.ask("POST", f"{path}/{act}", foreign)
            assert problem(answer) == (403, "forbidden", "not_sent", "never")
    mine = {"leaseUid": lease["leaseUid"], "actor": ANNA}
    renewed = (await world.ask("POST", f"{path}/renew", {**mine, "durationS": 400})).json()
    assert 399 < renewed["expiresInS"] <= 400
    assert renewed["fence"] == lease["fence"]
    broken = (await world.ask("POST", f"{path}/break", {"reason": "storm", "actor": BERT})).json()
    assert (broken["held"], broken["ended"], broken["reason"]) == (False, "broken", "storm")
    assert broken["endedBy"] == {"service": "tests", "actor": BERT}
    again = (await world.ask("POST", f"{path}/release", mine)).json()
    assert again["ended"] == "broken"
    assert problem(await world.ask("POST", f"{path}/renew", mine)) == (409, "lease_expired", "not_sent", "never")


async def test_a_command_goes_under_the_fence_of_its_lease_and_after_the_node_knows_of_it(world: World) -> None:
    async with world.node() as node:
        lease = await acquire(world, actor=ANNA, durationS=60, deadmanS=15, onExpiry="stop")
        body = move(world, leaseUid=lease["leaseUid"], actor=ANNA)
        assert (await world.ask("POST", "/internal/commands", body)).status_code == 202
        told = await node.hear_one_of(EventManualControlLease, EventCommand)
        assert isinstance(told, EventManualControlLease)
        assert (told.telescope_uid, told.fence) == (world.site.telescope_uid, lease["fence"])
        assert told.holder is not None
        assert told.holder.value == {"service": "tests", "actor": ANNA}
        assert 55_000 < told.expires_in_ms <= 60_000
        assert (told.deadman_ms, told.on_expiry) == (15_000, "stop")
        sent = await node.hear(EventCommand)
        assert (sent.fence, sent.fence_uid) == (lease["fence"], world.site.telescope_uid)
        record = await world.ask("GET", f"/internal/commands/{body['commandId']}")
        assert record.json()["fence"] == {"uid": str(world.site.telescope_uid), "fence": lease["fence"]}
        assert lease["leaseUid"] not in record.text
        await world.ask("POST", "/internal/commands", stop := move(world, command={"command_type": "mount.stop"}))
        assert (await world.ask("GET", f"/internal/commands/{stop['commandId']}")).json()["fence"] is None


async def test_commands_without_the_lease_are_refused_and_use_no_id_up(world: World) -> None:
    async with world.node() as node:
        lease = await acquire(world, actor=ANNA)
        wanted = move(world, actor=BERT)
        refused = [
            await world.ask("POST", "/internal/commands", wanted),
            await world.ask("POST", "/internal/commands", {**wanted, "leaseUid": str(uuid4())}),
            await world.ask("POST", "/internal/commands", {**wanted, "leaseUid": lease["leaseUid"]}),
            await world.ask("POST", "/internal/commands", {**wanted, "actor": ANNA}),
        ]
        assert [answer.json()["code"] for answer in refused] == ["lease_held", *["lease_required"] * 3]
        assert {answer.status_code for answer in refused} == {409}
        path = f"/internal/leases/{lease['id']}"
        await world.ask("POST", f"{path}/release", {"leaseUid": lease["leaseUid"], "actor": ANNA})
        over = await world.ask("POST", "/internal/commands", move(world, leaseUid=lease["leaseUid"], actor=ANNA))
        assert problem(over) == (409, "lease_expired", "not_sent", "never")
        of_bert = await acquire(world, actor=BERT)
        taken = await world.ask("POST", "/internal/commands", {**wanted, "leaseUid": of_bert["leaseUid"]})
        assert (taken.status_code, taken.json()["duplicate"]) == (202, False)
        sent = await node.hear(EventCommand)
        assert (str(sent.command_id), sent.fence) == (wanted["commandId"], of_bert["fence"])


async def test_what_nobody_controls_is_not_moved_without_a_lease_either_and_only_safing_goes(world: World) -> None:
    async with world.node() as node:
        refused = await world.ask("POST", "/internal/commands", move(world))
        assert problem(refused) == (409, "lease_required", "not_sent", "never")
        stop = move(world, command={"command_type": "mount.stop"})
        assert (await world.ask("POST", "/internal/commands", stop)).status_code == 202
        assert str((await node.hear(EventCommand)).command_id) == stop["commandId"]


async def test_a_lease_that_is_over_is_told_to_the_node(world: World) -> None:
    async with world.node() as node:
        lease = await acquire(world, durationS=1)
        begun = await node.hear(EventManualControlLease)
        ended = begun
        while ended.holder is not None:  # a node that has just come may be told of the lease twice
            ended = await node.hear(EventManualControlLease)
    assert (begun.fence, ended.fence, ended.holder, ended.ended) == (
        lease["fence"],
        lease["fence"] + 1,
        None,
        "expired",
    )


async def test_a_gateway_that_begins_anew_knows_who_has_control_and_tells_the_node(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path) as world:
        site, lease = world.site, await acquire(world, actor=ANNA)
    async with gateway(postgres, tmp_path) as world:
        world.site = site
        async with world.node() as node:
            told = await node.hear(EventManualControlLease)
        assert (told.fence, told.holder is not None) == (lease["fence"], True)
        other = await world.ask("POST", "/internal/leases", {"telescopeUid": str(site.telescope_uid)})
        assert other.status_code == 409


async def test_a_database_of_a_backup_gives_no_fence_again_and_honours_no_lease_of_before(world: World) -> None:
    before = await acquire(world, actor=ANNA)
    async with world.node(last_fences={str(world.site.telescope_uid): 9_000}) as node:
        told = await node.hear(EventManualControlLease)
        assert (told.fence, told.holder) == (9_000, None)
        stale = await world.ask("POST", "/internal/commands", move(world, leaseUid=before["leaseUid"], actor=ANNA))
        assert stale.json()["code"] in ("lease_expired", "stale_fence")
        after = await acquire(world, actor=BERT)
        assert after["fence"] > 9_000


async def test_every_change_of_a_lease_is_in_the_log_with_it(world: World, postgres: PostgresServer) -> None:
    lease = await acquire(world, actor=ANNA)
    path = f"/internal/leases/{lease['id']}"
    mine = {"leaseUid": lease["leaseUid"], "actor": ANNA}
    await world.ask("POST", f"{path}/renew", mine)
    await world.ask("POST", f"{path}/break", {"reason": "storm"})
    with psycopg.connect(postgres.owner_url) as connection:
        rows = connection.execute(
            "SELECT data, install_id, telescope_uid, device_uid FROM skygw.log "
            "WHERE stream = 'manual_control_lease' AND telescope_uid = %s ORDER BY position",
            [world.site.telescope_uid],
        ).fetchall()
    changes = [json.loads(row[0]) for row in rows]
    assert [(change["state"], change["revision"]) for change in changes] == [("held", 1), ("held", 2), ("broken", 3)]
    assert {change["lease_id"] for change in changes} == {lease["id"]}
    assert (changes[0]["holder"], changes[-1]["reason"]) == ({"service": "tests", "actor": ANNA}, "storm")
    assert {row[1:] for row in rows} == {(world.site.install_id, world.site.telescope_uid, None)}
