"""A node's link over a real socket: how it begins, what keeps it, what ends it, and how it comes back."""

import json
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import uuid4

import pytest
import trio

from skygw.client.config import Token
from skygw.client.direct import DirectCall
from skygw.client.node import NodeClient
from skygw.ids import OutboxUid
from skygw.protocol.gateway_frames import Ack, Goaway, LinkLossPolicy, Nack
from skygw.protocol.limits import Limits
from skygw.protocol.node_frames import (
    AuthRefresh,
    DirectResponseEnd,
    Error,
    Ping,
    Pong,
    PublishGap,
    PublishLog,
    PublishSnapshot,
    SnapshotStream,
)
from tests.client.conftest import MakeConfig, running
from tests.fakes.gateway import FakeGateway


async def until(condition: Callable[[], bool]) -> None:
    """Polls a condition that other tasks make true."""
    with trio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - the client has no event for what a person reads off it
            await trio.sleep(0.005)


async def test_what_was_not_acknowledged_is_sent_again_in_order_after_a_restart(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    client = NodeClient(make_config())
    async with running(client):
        for number in range(4):
            await client.publish_log({"number": number})
        session = await gateway.accept()
        await session.welcome()
        await session.durable(4)
    async with running(NodeClient(make_config())):
        again = await gateway.accept()
        await again.welcome(acked_seq=2)
        resent = await again.durable(2)

    assert again.hello.outbox_uid == session.hello.outbox_uid
    assert [frame.seq for frame in resent] == [3, 4]
    assert isinstance(resent[0], PublishLog)
    assert resent[0].data.value == {"number": 2}


async def test_no_more_durable_frames_are_on_their_way_than_the_gateway_takes(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    client = NodeClient(make_config())
    async with running(client):
        for number in range(5):
            await client.publish_event({"number": number})
        session = await gateway.accept()
        await session.welcome(limits=Limits(unacked_frames=2))
        first = await session.durable(2)
        await session.say(Ping(id="after"))
        after = await session.next()
        await session.say(Ack(seq=99, outbox_uid=OutboxUid(uuid4())))  # of another outbox: means nothing
        await session.say(Ack(seq=1, outbox_uid=session.hello.outbox_uid))
        (third,) = await session.durable(1)
        await session.say(Ack(seq=3, outbox_uid=session.hello.outbox_uid))
        rest = await session.durable(2)

    assert [frame.seq for frame in first] == [1, 2]
    assert isinstance(after, Pong)
    assert third.seq == 3
    assert [frame.seq for frame in rest] == [4, 5]


async def test_a_nack_moves_the_window_on_once_those_before_it_are_acknowledged(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    client = NodeClient(make_config())
    async with running(client):
        for number in range(4):
            await client.publish_event({"number": number})
        session = await gateway.accept()
        await session.welcome(limits=Limits(unacked_frames=2))
        await session.durable(2)
        await session.say(Nack(seq=2, outbox_uid=session.hello.outbox_uid, reason="never"))
        await session.say(Ack(seq=1, outbox_uid=session.hello.outbox_uid))
        rest = await session.durable(1)

    assert [frame.seq for frame in rest] == [3]


async def test_a_hub_restored_from_an_older_backup_gets_a_new_outbox_with_a_gap(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    client = NodeClient(make_config(), chance=lambda: 0.0)
    async with running(client):
        for number in range(3):
            await client.publish_event({"number": number})
        session = await gateway.accept()
        await session.welcome(epoch=70)
        await session.durable(3)
        await session.say(Ack(seq=3, outbox_uid=session.hello.outbox_uid))
        await until(lambda: client._outbox is not None and client._outbox.acked == 3)
        await session.close(4001)
        restored = await gateway.accept()
        await restored.welcome(acked_seq=1)
        anew = await gateway.accept()
        await anew.welcome()
        (gap,) = await anew.durable(1)

    assert restored.hello.last_epoch == 70
    assert anew.hello.outbox_uid != session.hello.outbox_uid
    assert isinstance(gap, PublishGap)
    assert (gap.data.value["reason"], gap.data.value["count"]) == ("lost_at_hub", 2)


async def test_the_newest_snapshot_of_each_resource_is_sent_after_every_welcome(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    client = NodeClient(make_config(), chance=lambda: 0.0)
    called: list[str] = []

    @client.full_state
    async def everything() -> None:
        called.append("full state")

    stream = SnapshotStream.DEVICE_SNAPSHOT
    for number in range(3):
        client.publish_snapshot(stream, {"uid": "mount", "number": number}, max_silence_s=5)
    client.publish_snapshot(stream, {"uid": "dome", "number": 9}, observed_at=datetime.now(UTC))
    async with running(client):
        sent: list[PublishSnapshot] = []
        for _ in range(2):
            session = await gateway.accept()
            await session.welcome()
            sent = [await session.hear(PublishSnapshot) for _ in range(2)]
            await session.close(4001)
        await gateway.accept()

    assert [snapshot.data.value for snapshot in sent] == [{"uid": "mount", "number": 2}, {"uid": "dome", "number": 9}]
    assert [snapshot.live_seq for snapshot in sent] == [3, 4]
    assert called == ["full state"] * 2


@pytest.mark.parametrize("data", [{"text": "x" * 65 * 1024}, {"values": [0] * 10_000}], ids=["large", "many values"])
async def test_a_snapshot_that_would_end_every_socket_is_refused_to_its_publisher(
    make_config: MakeConfig, data: dict[str, object]
) -> None:
    client = NodeClient(make_config())
    with pytest.raises(ValueError, match="cannot be sent"):
        client.publish_snapshot(SnapshotStream.DEVICE_SNAPSHOT, {"uid": "mount", **data})


async def test_a_superseded_node_waits_minutes_and_shows_why(gateway: FakeGateway, make_config: MakeConfig) -> None:
    client = NodeClient(make_config(), chance=lambda: 0.0)
    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        await session.close(4501, "another socket of this instance")
        await until(lambda: client.coming_back_in_s is not None)
        status, end = client.status, client.last_end

    assert end is not None
    assert end.code == 4501
    assert status.coming_back_in_s == 300.0
    assert "another socket of this instance" in status.sentence
    assert status.advice is not None
    assert "second copy of this program" in status.advice


async def test_a_goaway_says_when_to_come_back(gateway: FakeGateway, make_config: MakeConfig) -> None:
    client = NodeClient(make_config(), chance=lambda: 0.0)
    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        await session.say(Goaway(reason="drain", reconnect_after_ms=120_000))
        await session.close(4001)
        await until(lambda: client.coming_back_in_s is not None)
        waiting = client.coming_back_in_s

    assert waiting == 120.0


async def test_a_gateway_that_said_goaway_is_served_until_it_closes(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    client = NodeClient(make_config(), chance=lambda: 0.0)
    leave = trio.Event()

    @client.operation("asset.read", effects="none")
    async def read(call: DirectCall) -> None:
        await leave.wait()
        await call.start("text/plain")
        await call.send(b"finished")

    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        await session.say(session.request("asset.read"))
        await session.say(Goaway(reason="drain", reconnect_after_ms=0))
        await session.say(Ping(id="later"))
        await session.hear(Pong)
        leave.set()
        end = await session.hear(DirectResponseEnd)

    assert end.total_size == len(b"finished")


async def test_a_gateway_that_said_goaway_and_stays_is_left(
    gateway: FakeGateway, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skygw.client.session.GOAWAY_S", 0.0)
    client = NodeClient(make_config(), chance=lambda: 0.0)
    async with running(client):
        session = await gateway.accept()
        await session.welcome(heartbeat_s=0.2)
        await session.say(Goaway(reason="drain", reconnect_after_ms=10))
        again = await gateway.accept()

    assert again.hello.boot_id == session.hello.boot_id
    assert "goes away, and stayed" in str(client.last_end)


async def test_a_gateway_that_said_goaway_is_not_blamed_for_its_silence(
    gateway: FakeGateway, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skygw.client.session.GOAWAY_S", 0.0)
    client = NodeClient(make_config(), chance=lambda: 0.0)
    async with running(client):
        session = await gateway.accept()
        goaway = Goaway(reason="drain", reconnect_after_ms=10)
        await session.welcome(heartbeat_s=0.2, followed_by=[goaway])  # nothing ever comes behind it
        await gateway.accept()

    assert "goes away, and stayed" in str(client.last_end)


async def test_a_refused_token_is_asked_for_again(gateway: FakeGateway, make_config: MakeConfig) -> None:
    given: list[str] = []

    async def provider() -> str:
        given.append(f"token-{len(given)}")
        return given[-1]

    gateway.refusals.append((401, []))
    async with running(NodeClient(make_config(token=provider))):
        session = await gateway.accept()

    assert session.token == "Bearer token-1"


async def test_a_refusal_with_retry_after_is_waited_for(gateway: FakeGateway, make_config: MakeConfig) -> None:
    gateway.refusals.append((503, [(b"Retry-After", b"77")]))
    client = NodeClient(make_config(), chance=lambda: 0.0)
    async with running(client):
        await until(lambda: client.coming_back_in_s is not None)
        status, end = client.status, client.last_end

    assert end is not None
    assert end.status == 503
    assert (status.connected, status.coming_back_in_s, status.advice) == (False, 77.0, None)


async def test_a_token_is_renewed_in_band_before_it_ends(gateway: FakeGateway, make_config: MakeConfig) -> None:
    given: list[str] = []

    async def provider() -> Token:
        given.append(f"token-{len(given)}")
        return Token(given[-1], lifetime_s=0.1 if len(given) == 1 else 3600.0)

    async with running(NodeClient(make_config(token=provider))):
        session = await gateway.accept()
        await session.welcome()
        refresh = await session.hear(AuthRefresh)

    assert refresh.token == "token-1"


async def test_a_provider_that_raises_only_delays_the_connect(gateway: FakeGateway, make_config: MakeConfig) -> None:
    asked: list[int] = []

    async def provider() -> str:
        asked.append(1)
        if len(asked) == 1:
            raise OSError("the issuer is away")
        return "token"

    async with running(NodeClient(make_config(token=provider), chance=lambda: 0.0)):
        session = await gateway.accept()

    assert session.token == "Bearer token"


async def test_a_silent_gateway_is_left_and_a_beating_one_is_not(gateway: FakeGateway, make_config: MakeConfig) -> None:
    client = NodeClient(make_config(), chance=lambda: 0.0)
    async with running(client):
        session = await gateway.accept()
        await session.welcome(heartbeat_s=0.1)
        for number in range(5):
            await session.say(Ping(id=str(number)))
            await session.hear(Pong)
            await trio.sleep(0.1)
        assert client.connected
        again = await gateway.accept()

    assert again.hello.boot_id == session.hello.boot_id
    assert client.last_end is not None
    assert "Nothing came" in str(client.last_end)


async def test_the_policy_for_a_lost_link_is_followed_once_and_survives_on_disk(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    async with running(NodeClient(make_config())):
        session = await gateway.accept()
        await session.welcome(policy=LinkLossPolicy.SAFE_SHUTDOWN)
        await session.say(Ping(id="1"))
        await session.hear(Pong)
    client = NodeClient(make_config(link_loss_after_s=0.05))
    followed: list[LinkLossPolicy] = []
    done = trio.Event()

    @client.on_link_lost
    async def follow(policy: LinkLossPolicy) -> None:
        followed.append(policy)
        done.set()

    gateway.refusals.append((403, []))
    async with running(client):
        with trio.fail_after(5):
            await done.wait()

    assert followed == [LinkLossPolicy.SAFE_SHUTDOWN]


async def test_a_revoked_node_follows_its_policy_at_once(gateway: FakeGateway, make_config: MakeConfig) -> None:
    client = NodeClient(make_config(link_loss_after_s=3600.0))
    done = trio.Event()

    @client.on_link_lost
    async def follow(policy: LinkLossPolicy) -> None:
        done.set()

    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        await session.close(4502, "revoked")
        with trio.fail_after(5):
            await done.wait()

    assert client.last_end is not None
    assert client.last_end.code == 4502


DEEP = '{"kind":"ping","x":' + "[" * 150 + "]" * 150 + "}"
HOSTILE: list[str | bytes] = [
    "",
    "not json",
    "[]",
    "[1,2]",
    "{}",
    '{"kind":7}',
    '{"kind":"launch_missiles"}',
    '{"kind":"ping","id":"a","id":"b"}',
    '{"kind":"event_command","command_id":"no uuid"}',
    '{"kind":"ack","seq":-1}',
    '{"kind":"ack","seq":9007199254740991,"outbox_uid":"00000000-0000-0000-0000-000000000001"}',
    '{"kind":"direct_credit","id":"00000000-0000-0000-0000-000000000001","bytes":5}',
    '{"kind":"direct_cancel","id":"00000000-0000-0000-0000-000000000001","reason":"x"}',
    '{"kind":"goaway","reason":"x","reconnect_after_ms":NaN}',
    '{"kind":"error","code":"no such code","message":"x"}',
    DEEP,
    "[" * 5_000,
    b"\x00binary",
    b"",
    json.dumps([{"kind": "pong"}] * 300),
]


async def test_no_message_of_a_hostile_gateway_ends_the_link_or_the_client(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    answered: list[str | None] = []
    async with running(NodeClient(make_config())):
        session = await gateway.accept()
        await session.welcome()
        for number, message in enumerate(HOSTILE):
            await session.say(message)
            await session.say(Ping(id=str(number)))
            answered.append((await session.hear(Pong)).id)

    assert answered == [str(number) for number in range(len(HOSTILE))]
    assert sum(isinstance(heard, Error) for heard in session.heard) <= 2 * len(HOSTILE)


@pytest.mark.parametrize(
    "raw",
    [
        struct.pack("!BB", 0x83, 0),  # an opcode that does not exist
        struct.pack("!BBQ", 0x81, 127, 2**62),  # a message of four exabytes
        struct.pack("!BB", 0x81, 0x85) + b"\0\0\0\0hello",  # a masked frame from a server
        struct.pack("!BB", 0x81, 3) + b"\xff\xfe\xfd",  # not UTF-8
        b"HTTP/1.1 200 OK\r\n\r\n",
        struct.pack("!BBH", 0x88, 2, 5),  # a close code nobody may send
        struct.pack("!BBH", 0x01, 126, 60_000) + b"x" * 60_000 + struct.pack("!BBH", 0x80, 126, 60_000),
    ],
)
async def test_a_broken_websocket_costs_the_link_and_not_the_client(
    gateway: FakeGateway, make_config: MakeConfig, raw: bytes
) -> None:
    async with running(NodeClient(make_config(), chance=lambda: 0.0)):
        session = await gateway.accept()
        await session.welcome()
        with trio.move_on_after(1):
            await session.connection._stream.send_all(raw)
            await session.connection._stream.aclose()
        again = await gateway.accept()
        await again.welcome()
        await again.say(Ping(id="back"))
        pong = await again.hear(Pong)

    assert pong.id == "back"


async def test_a_gateway_that_says_anything_but_welcome_is_not_worked_with(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    client = NodeClient(make_config(), chance=lambda: 0.0)
    async with running(client):
        session = await gateway.accept()
        await session.say("welcome!")
        again = await gateway.accept()

    assert again.hello.install_id == session.hello.install_id
    assert not client.connected


async def test_a_report_that_came_out_of_order_makes_the_node_start_over(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    client = NodeClient(make_config(), chance=lambda: 0.0)
    async with running(client):
        await client.publish_event({"number": 1})
        session = await gateway.accept()
        await session.welcome()
        await session.durable(1)
        await session.say('{"kind":"error","code":"invalid","message":"seq","details":{"reason":"out_of_order"}}')
        again = await gateway.accept()
        await again.welcome()
        (resent,) = await again.durable(1)

    assert resent.seq == 1
