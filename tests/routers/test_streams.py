"""The stream socket on a real listener: what a hub's service asks, hears and is refused, and what others notice."""

import json
import time
from uuid import uuid4

import pytest
import trio
import trio.testing

from skygw.auth.principals import Scope
from skygw.protocol.close_codes import CloseCode
from skygw.protocol.limits import MAX_FRAMES_PER_MESSAGE
from skygw.protocol.schemas import STREAM_SOCKET_PATH
from skygw.protocol.streams import StaleReason, StreamName
from skygw.protocol.subscriber_frames import SUBSCRIBER_SUBPROTOCOL
from skygw.serving import End
from skygw.telemetry.log import PAGE
from skygw.telemetry.outlet import MAX_SUBSCRIPTIONS
from skygw.websocket.frames import TEXT, frame
from tests.hazards.peers import upgrade
from tests.routers.stream_doors import stream_doors
from tests.serving.served import PATIENCE_S

DEVICES = StreamName.DEVICE_SNAPSHOT
LOG = StreamName.TELESCOPE_LOG


def text(message: str) -> bytes:
    """A text message as a client sends it."""
    return frame(TEXT, message.encode(), bytes(4))


async def test_ack_then_what_there_is_then_live_then_changes_until_it_is_unsubscribed() -> None:
    async with stream_doors() as doors, doors.socket() as socket:
        assert socket.subprotocol == SUBSCRIBER_SUBPROTOCOL
        mount = doors.device()
        doors.publish(mount, ra=1)
        await socket.subscribe(DEVICES, "mine")
        ack, value, live = await socket.hear_kinds("ack", "event_device_snapshot", "event_live")
        assert (ack["subscription_id"], "server_time" in ack) == ("mine", True)
        assert (value["data"]["ra"], value["install_id"]) == (1, str(doors.install_id))
        assert (value["prev"], live["prev"]) == (None, value["position"])
        doors.publish(mount, ra=2)
        [change] = await socket.hear_kinds("event_device_snapshot")
        assert (change["data"]["ra"], change["prev"]) == (2, live["position"])
        await socket.say({"kind": "unsubscribe_stream", "subscription_id": "mine"})
        await socket.hear_kinds("ack")
        doors.publish(mount, ra=3)
        await socket.say({"kind": "ping", "id": "7"})
        assert await socket.hear() == {"kind": "pong", "id": "7"}
        assert doors.subscribers_of(DEVICES) == 0


async def test_the_text_of_a_node_is_carried_byte_for_byte() -> None:
    async with stream_doors() as doors, doors.served.peer() as peer:
        data = '{"uid":"u", "ra" : 1.50,\t"b":1E3}'
        doors.hub.retained.say(DEVICES, doors.device(), data, order=(1, 1))
        await peer.send(upgrade(STREAM_SOCKET_PATH, "Authorization: Bearer reader"))
        await peer.read_until(b"\r\n\r\n")
        asked = {"kind": "subscribe_stream", "subscription_id": "1", "stream": "device_snapshot"}
        await peer.send(text(json.dumps(asked)))
        assert (await peer.read_until(data.encode())).endswith(data.encode())


async def test_a_log_is_replayed_followed_and_resumed_where_another_socket_left_it() -> None:
    async with stream_doors() as doors:
        for number in range(3):
            doors.happen(f'{{"n":{number}}}')
        await doors.until_fed()
        async with doors.socket() as socket:
            await socket.subscribe(
                LOG, options={"after": "earliest"}, filter={"telescope_uid": str(doors.telescope_uid)}
            )
            heard = await socket.hear_kinds("ack", *["event_telescope_log"] * 3, "event_live")
            assert [event["data"]["n"] for event in heard[1:4]] == [0, 1, 2]
            doors.happen('{"n":3}')
            [event] = await socket.hear_kinds("event_telescope_log")
            assert event["prev"] == heard[-1]["position"]
        doors.happen('{"n":4}')
        async with doors.socket() as again:
            await again.subscribe(LOG, options={"after": event["position"]})
            _, missed, _ = await again.hear_kinds("ack", "event_telescope_log", "event_live")
            assert (missed["data"]["n"], missed["prev"]) == (4, event["position"])
        await doors.until_nobody_listens()


async def test_what_is_no_longer_kept_of_a_log_is_a_gap() -> None:
    async with stream_doors() as doors:
        doors.happen(times=5)
        await doors.until_fed()
        doors.log.drop(through=3)
        async with doors.socket() as socket:
            await socket.subscribe(LOG, options={"after": "l1"})
            _, gap, *_ = await socket.hear_kinds("ack", "event_gap", *["event_telescope_log"] * 2, "event_live")
            assert (gap["reason"], gap["from"], gap["to"]) == ("no_longer_kept", "l1", "l3")


async def test_the_published_protocol_has_no_kinds_of_ours() -> None:
    async with stream_doors() as doors, doors.socket(extensions=False) as socket:
        assert socket.subprotocol is None
        mount = doors.device()
        doors.publish(mount, n=1)
        await socket.subscribe(DEVICES)
        await socket.hear_kinds("ack", "event_device_snapshot")
        doors.publish(mount, n=2)
        await socket.hear_kinds("event_device_snapshot")
        value = doors.hub.retained.find(DEVICES, mount.uid)
        assert value is not None
        doors.hub.retained.mark_stale(value, StaleReason.NODE_OFFLINE)
        [again] = await socket.hear_kinds("event_device_snapshot")
        assert (again["data"]["n"], again["stale"]) == (2, "node_offline")


async def test_another_subprotocol_is_426_and_names_ours() -> None:
    async with stream_doors() as doors, doors.served.peer() as peer:
        offer = "Sec-WebSocket-Protocol: skynet.internal.v2, chat"
        await peer.send(upgrade(STREAM_SOCKET_PATH, "Authorization: Bearer reader", offer))
        head = await peer.read_until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 426 ")
        assert b"sec-websocket-protocol: skynet.internal.v1\r\n" in head.lower()
        assert b"skynet.internal.v1 is spoken here" in await peer.read_until(b"}")


async def test_ours_may_be_offered_among_others() -> None:
    async with stream_doors() as doors, doors.served.peer() as peer:
        offer = "Sec-WebSocket-Protocol: skynet.internal.v2, skynet.internal.v1"
        await peer.send(upgrade(STREAM_SOCKET_PATH, "Authorization: Bearer reader", offer))
        head = await peer.read_until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"sec-websocket-protocol: skynet.internal.v1\r\n" in head.lower()


# Who may.


async def test_a_missing_scope_is_403_and_names_it() -> None:
    async with stream_doors() as doors, doors.served.peer() as peer:
        await peer.send(upgrade(STREAM_SOCKET_PATH, "Authorization: Bearer poor"))
        status, body = await peer.response()
        assert (status, json.loads(body)["details"]) == (403, {"missingScopes": ["streams:read"]})


async def test_no_token_is_401_and_a_plain_request_426() -> None:
    async with stream_doors() as doors, doors.served.peer() as peer:
        assert (await peer.ask(STREAM_SOCKET_PATH))[0] == 426
        await peer.send(upgrade(STREAM_SOCKET_PATH))
        assert (await peer.response())[0] == 401


async def test_a_token_that_ends_ends_the_socket_with_4004() -> None:
    async with stream_doors() as doors:
        doors.tokens.enter("short", lasts_s=0.3)
        async with doors.socket(token="short") as socket:
            await socket.subscribe(DEVICES)
            assert (await socket.closed())[0] == CloseCode.TOKEN_EXPIRED
        await doors.until_nobody_listens()


async def test_a_newer_token_of_the_same_service_keeps_it_open_until_that_one_ends() -> None:
    async with stream_doors() as doors:
        doors.tokens.enter("short", lasts_s=0.5)
        doors.tokens.enter("longer", lasts_s=1.0)
        doors.tokens.enter("poorer", scopes=(Scope.NODES_READ,))
        doors.tokens.enter("another", service="intruder")
        async with doors.socket(token="short") as socket:
            for token in ("poorer", "another", "stolen"):
                await socket.say({"kind": "auth_refresh", "token": token})
                [refused] = await socket.hear_kinds("error")
                assert refused["code"] == "forbidden"
            await socket.say({"kind": "auth_refresh", "token": "longer"})
            [renewed] = await socket.hear_kinds("event_token")
            assert renewed["state"] == "renewed"
            assert (await socket.closed())[0] == CloseCode.TOKEN_EXPIRED
            assert time.time() > doors.tokens.of["short"].expires_at + 0.25


# What is refused, and what ends it.


@pytest.mark.parametrize(
    ("asked", "code", "word"),
    [
        ({"stream": "weather"}, "invalid", "stream"),
        (
            {"filter": {"device": "x"}},
            "invalid",
            "filter.device is not known here; known: telescope_uid, observatory_uid",
        ),
        ({"filter": {"device_uid": ["x"]}}, "invalid", "filter.device_uid.0: "),
        ({"filter": {"device_uid": [str(uuid4())] * 1_001}}, "invalid", "1000"),
        ({"filter": {"device_uid": [], "deviceUid": []}}, "invalid", "filter: The key 'device_uid' stands in both"),
        ({"options": {"max_rate_hz": 0}}, "invalid", "options.max_rate_hz: "),
        ({"options": {"max_rate": 2}}, "invalid", "options.max_rate is not known here; known: include_existing, after"),
        ({"options": {"after": "l1"}}, "invalid", "no position"),
        ({"stream": "telescope_log", "options": {"after": "l9"}}, "invalid", "beyond"),
        ({"stream": "telescope_log", "options": {"fields": ["a"]}}, "invalid", "retained"),
    ],
)
async def test_a_subscription_that_cannot_be_is_refused_and_the_socket_stays(
    asked: dict[str, object], code: str, word: str
) -> None:
    async with stream_doors() as doors, doors.socket() as socket:
        await socket.say({"kind": "subscribe_stream", "subscription_id": "s", "stream": "device_snapshot", **asked})
        [refused] = await socket.hear_kinds("error")
        assert (refused["code"], refused["id"]) == (code, "s")
        assert word in refused["message"]
        await socket.subscribe(DEVICES, "s")
        await socket.hear_kinds("ack", "event_live")


async def test_an_id_in_use_and_one_that_is_not_are_both_said() -> None:
    async with stream_doors() as doors, doors.socket() as socket:
        await socket.subscribe(DEVICES, "a")
        await socket.hear_kinds("ack", "event_live")
        await socket.subscribe(LOG, "a")
        await socket.say({"kind": "unsubscribe_stream", "subscription_id": "b"}, {"kind": "publish_log", "seq": 1})
        in_use, unknown, no_kind = await socket.hear_kinds("error", "error", "error")
        assert (in_use["code"], in_use["id"]) == ("invalid", "a")
        assert (unknown["code"], unknown["id"]) == ("not_found", "b")
        assert no_kind["code"] == "invalid"


async def test_a_binary_message_and_broken_json_are_4500() -> None:
    async with stream_doors() as doors:
        async with doors.socket() as socket:
            await socket.say(b"x")
            assert (await socket.closed())[0] == CloseCode.PROTOCOL_VIOLATION
        async with doors.served.peer() as peer:
            await peer.send(upgrade(STREAM_SOCKET_PATH, "Authorization: Bearer reader"))
            await peer.read_until(b"\r\n\r\n")
            await peer.send(text("{"))
            assert (await peer.read_exactly(4))[2:] == CloseCode.PROTOCOL_VIOLATION.to_bytes(2, "big")
        await doors.until_nobody_listens()


# Many, slow and deaf.


async def test_ten_thousand_subscriptions_on_one_socket_each_get_their_answer_and_others_go_on() -> None:
    async with stream_doors() as doors, doors.socket() as greedy, doors.socket() as bystander:
        mount = doors.device()
        await bystander.subscribe(DEVICES)
        await bystander.hear_kinds("ack", "event_live")
        ids = [f"{number:05}" for number in range(10_000)]
        nothing = {"device_uid": str(uuid4())}
        asked = [
            {"kind": "subscribe_stream", "subscription_id": one, "stream": "device_snapshot", "filter": nothing}
            for one in ids
        ]
        answered: dict[str, str] = {}
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                for first in range(0, len(asked), MAX_FRAMES_PER_MESSAGE):
                    await greedy.say(asked[first : first + MAX_FRAMES_PER_MESSAGE])

            nursery.start_soon(ask)
            while len(answered) < len(ids):
                answer = await greedy.hear()
                if answer["kind"] == "ack":
                    answered[answer["subscription_id"]] = "ack"
                elif answer["kind"] == "error":
                    answered[answer["id"]] = answer["details"]["reason"]
        doors.publish(mount, n=1)
        await bystander.hear_kinds("event_device_snapshot")
        assert [answered[one] for one in ids[:MAX_SUBSCRIPTIONS]] == ["ack"] * MAX_SUBSCRIPTIONS
        assert {answered[one] for one in ids[MAX_SUBSCRIPTIONS:]} == {"busy"}
        assert doors.subscribers_of(DEVICES) == MAX_SUBSCRIPTIONS + 1


async def test_a_subscriber_that_does_not_read_is_cut_and_others_are_told_meanwhile() -> None:
    async with stream_doors(send_timeout_s=0.5) as doors, doors.served.peer(receive_buffer=4_096) as deaf:
        await deaf.send(upgrade(STREAM_SOCKET_PATH, "Authorization: Bearer reader"))
        await deaf.read_until(b"\r\n\r\n")
        asked = {"kind": "subscribe_stream", "subscription_id": "1", "stream": "device_snapshot"}
        await deaf.send(text(json.dumps(asked)))
        async with doors.socket() as socket:
            await socket.subscribe(DEVICES)
            await socket.hear_kinds("ack", "event_live")
            devices = [doors.device() for _ in range(400)]
            with trio.fail_after(PATIENCE_S):
                round_ = 0
                while doors.served.metrics.closed_by[End.NOT_READING] == 0:
                    round_ += 1
                    for device in devices:
                        doors.publish(device, n=round_, padding="x" * 1_000)
                    while (told := await socket.hear())["kind"] != "event_device_snapshot" or told["data"][
                        "n"
                    ] < round_:
                        pass
            assert doors.subscribers_of(DEVICES) == 1
        await doors.until_nobody_listens()


async def test_who_asks_and_never_reads_the_answers_is_cut() -> None:
    async with stream_doors(send_timeout_s=0.5) as doors, doors.served.peer(receive_buffer=4_096) as deaf:
        await deaf.send(upgrade(STREAM_SOCKET_PATH, "Authorization: Bearer reader"))
        await deaf.read_until(b"\r\n\r\n")
        question = text(json.dumps([{"kind": "no_such_kind", "id": "x" * 100}] * MAX_FRAMES_PER_MESSAGE))
        with trio.fail_after(PATIENCE_S):
            try:
                while True:
                    await deaf.send(question)
            except trio.BrokenResourceError:
                await doors.served.metrics.until_all_closed()
        assert doors.counts.open["websocket"] == 0


async def test_what_is_told_is_counted_by_stream() -> None:
    async with stream_doors() as doors, doors.socket() as socket:
        doors.publish(doors.device(), n=1)
        await socket.subscribe(DEVICES, "a")
        await socket.subscribe(LOG, "b")
        heard = [(await socket.hear())["kind"] for _ in range(5)]
        assert sorted(heard) == ["ack", "ack", "event_device_snapshot", "event_live", "event_live"]
        assert doors.counts.told == {"device_snapshot": 2, "telescope_log": 1}
        assert doors.counts.open == {"websocket": 1}


async def test_how_many_values_are_not_current_is_known_by_stream() -> None:
    async with stream_doors() as doors:
        devices = [doors.device() for _ in range(3)]
        for device in devices:
            doors.publish(device, n=1)
        for device in devices[:2]:
            value = doors.hub.retained.find(DEVICES, device.uid)
            assert value is not None
            doors.hub.retained.mark_stale(value, StaleReason.SILENT)
        assert doors.hub.retained.stale() == {"device_snapshot": 2}
        doors.publish(devices[0], n=1)
        assert doors.hub.retained.stale() == {"device_snapshot": 1}


async def test_the_feed_knows_how_far_it_is_behind() -> None:
    async with stream_doors() as doors:
        doors.happen(times=PAGE + 3)
        await doors.until_fed()
        assert doors.hub.feed.behind <= 3
        assert 0.0 <= doors.hub.feed.lag_s() < PATIENCE_S
