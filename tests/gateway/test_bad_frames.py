"""What a node sends badly is answered in words, or ends its own socket: nobody else notices, and nothing is lost."""

import json
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from skygw.protocol.gateway_frames import Ack, Nack
from skygw.protocol.node_frames import Error, Ping, Pong
from tests.fakes.postgres import PostgresServer
from tests.gateway.world import Site, gateway

NOON = "2026-11-22T12:00:00Z"
NIL = UUID(int=0)


def a_log(seq: int, **members: object) -> str:
    return json.dumps({"kind": "publish_log", "seq": seq, "data": {"a": 1}, "observed_at": NOON, **members})


ANSWERED = {
    "no kind": '{"a":1}',
    "a kind that is no text": '{"kind":7}',
    "an unknown kind": '{"kind":"open_the_roof","id":"x"}',
    "a hello more": f'{{"kind":"hello","install_id":"{NIL}"}}',
    "a gateway's frame": '{"kind":"welcome"}',
    "a missing field": '{"kind":"publish_snapshot"}',
    "a wrong type": '{"kind":"direct_response_start","id":5,"content_type":"a"}',
    "a duplicate key": '{"kind":"ping","id":"a","id":"b"}',
    "both spellings": f'{{"kind":"direct_response_end","id":"{NIL}","chunks":0,"total_size":0,"totalSize":0}}',
    "not a number": '{"kind":"ping","t_ms":NaN}',
    "an endless number": '{"kind":"ping","t_ms":1e999}',
    "a nul": '{"kind":"ping","id":"\\u0000"}',
    "a lone surrogate": '{"kind":"ping","id":"\\ud800"}',
    "too deep": '{"kind":"ping","id":' + "[" * 40 + "]" * 40 + "}",
    "a token beyond the limit": json.dumps({"kind": "auth_refresh", "token": "x" * 9_000}),
}


async def test_a_well_framed_mistake_is_answered_and_the_socket_stays(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world, world.bystander() as bystander, world.node() as node:
        for what, message in ANSWERED.items():
            await node.say(message)
            assert (await node.hear(Error)).code == "invalid", what
        await node.say(Ping(id="after all that"))
        assert (await node.hear(Pong)).id == "after all that"
        assert await bystander.is_served()


async def test_an_unknown_field_is_ignored(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world, world.node() as node:
        await node.say('{"kind":"ping","id":"newer","something_newer":{"a":[1]}}')
        assert (await node.hear(Pong)).id == "newer"


ENDING = {
    "no JSON": "{",
    "two documents": '{"kind":"ping"} {"kind":"ping"}',
    "a bare value": "7",
    "an array of values": "[1,2]",
    "text beyond the limit": '{"kind":"ping","id":"' + "x" * 70_000 + '"}',
    "a bottomless pit": '{"kind":"ping","id":' + "[" * 500 + "]" * 500 + "}",
    "too many values": '{"kind":"ping","id":[' + ",".join("0" * 20_000) + "]}",
    "too many frames": "[" + ",".join(['{"kind":"ping"}'] * 300) + "]",
    "a chunk without a header": b"short",
    "an empty binary message": b"",
}


@pytest.mark.parametrize("message", ENDING.values(), ids=ENDING.keys())
async def test_broken_framing_ends_this_socket_alone(
    message: str | bytes, postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path) as world, world.bystander() as bystander, world.node() as node:
        await node.say(message)
        code, reason = await node.closed()
        assert code == 4500
        assert reason
        assert await bystander.is_served()
        assert (await world.node_view())["lastClose"]["code"] == 4500


async def test_a_bad_durable_frame_is_nacked_and_the_cursor_passes_it(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world, world.node() as node:
        await node.say(a_log(1), a_log(2, observed_at="yesterday"), a_log(3))
        nack = await node.hear(Nack)
        assert nack.seq == 2
        assert "observed_at" in nack.reason
        while (ack := await node.hear(Ack)).seq < 3:
            pass
        assert ack.outbox_uid == node.hello.outbox_uid


def a_snapshot(uid: UUID, live_seq: int) -> str:
    return json.dumps(
        {
            "kind": "publish_snapshot",
            "stream": "device_snapshot",
            "data": {"uid": str(uid)},
            "observed_at": "1970-01-01T00:00:00Z",
            "live_seq": live_seq,
        }
    )


async def test_what_is_said_of_another_installations_devices_is_refused_and_kept_of_nobody(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    other = Site()
    await other.provision(postgres.owner_url)
    async with gateway(postgres, tmp_path) as world, world.node() as node:
        await node.say(a_snapshot(other.mount_uid, 1), a_snapshot(world.site.mount_uid, 2))
        refused = await node.hear(Error)
        assert refused.code == "not_found"
        assert str(other.mount_uid) in refused.message
        await node.say(a_log(1, data={"deviceUid": str(other.mount_uid)}))
        nack = await node.hear(Nack)
        assert str(other.mount_uid) in nack.reason
        assert [held["uid"] for held in (await world.node_view())["streams"]] == [str(world.site.mount_uid)]
        others = await world.ask("GET", f"/internal/nodes/{other.install_id}")
        assert others.json()["streams"] == []


async def test_a_live_seq_that_goes_back_is_told_and_what_came_before_stays(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path) as world, world.node() as node:
        await node.say(*(a_snapshot(world.site.mount_uid, live_seq) for live_seq in (7, 6, 7, 8)))
        refused = await node.hear(Error)
        assert refused.details is not None
        assert json.loads(refused.details.text)["reason"] == "out_of_order"
        await node.say(Ping(id="the last word"))
        assert (await node.hear_one_of(Pong, Error)).kind == "pong"


async def test_a_repeated_report_is_acked_again_and_kept_once(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world:
        outbox = uuid4()
        async with world.node(outbox_uid=outbox) as node:
            await node.say(a_log(1), a_log(2))
            while (await node.hear(Ack)).seq < 2:
                pass
        async with world.node(outbox_uid=outbox) as again:
            assert again.welcome is not None
            assert again.welcome.acked_seq == 2
            await again.say(a_log(1), a_log(2), a_log(3))
            while (ack := await again.hear(Ack)).seq < 3:
                pass
            assert ack.seq == 3
