"""A hub service's streams: resumed whole, read no faster than they are taken, and never silent without a word."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.abc import Clock

from skygw.client.link import LinkEnded
from skygw.client.streams import (
    Away,
    Changed,
    Ended,
    Gap,
    Item,
    Live,
    Stale,
    StreamClient,
    StreamName,
    Subscription,
    Token,
    stream_url,
)
from skygw.client.subscription import ITEM_OVERHEAD, MAX_WAITING_BYTES
from skygw.protocol.node_frames import AuthRefresh, Ping, Pong
from skygw.protocol.streams import SubscribeStream, UnsubscribeStream
from tests.fakes.stream_links import GatewayEnd, Served, StreamDoor

LOG, DEVICE = StreamName.TELESCOPE_LOG, StreamName.DEVICE_SNAPSHOT
UID = "1b4e28ba-2fa1-41d2-883f-0016d3cca427"


@pytest.fixture
def door() -> StreamDoor:
    return StreamDoor()


@asynccontextmanager
async def running(
    door: StreamDoor, provider: Callable[[], Awaitable[str | Token]] | None = None
) -> AsyncIterator[StreamClient]:
    client = StreamClient("http://gateway:5003", provider or "token-1", connect=door.connect, chance=lambda: 0.5)
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        yield client
        nursery.cancel_scope.cancel()


async def items(subscription: Subscription, count: int) -> list[Item]:
    found: list[Item] = []
    with trio.fail_after(1_000):
        async for item in subscription:
            found.append(item)
            if len(found) == count:
                break
    return found


def positions(found: list[Item]) -> list[str]:
    return [item.position for item in found if isinstance(item, Changed)]


def test_the_stream_socket_is_found_by_the_base_url_of_the_internal_listener() -> None:
    assert stream_url("http://127.0.0.1:5003/") == "ws://127.0.0.1:5003/internal/ws/stream"
    assert stream_url("https://hub.example/gateway") == "wss://hub.example/gateway/internal/ws/stream"
    with pytest.raises(ValueError, match="must begin with http"):
        stream_url("ws://127.0.0.1:5003")


async def test_what_is_asked_for_is_what_was_said(autojump_clock: Clock, door: StreamDoor) -> None:
    async with running(door) as client:
        options: dict[str, Any] = {"after": "s1", "max_rate_hz": 2.0, "fields": ["a"], "include_existing": False}
        async with client.subscribe("device_snapshot", filter={"device_type": "mount"}, **options):
            served = await (await door.accept()).asked()

    assert served.frame.stream is DEVICE
    assert served.frame.filter is not None
    assert served.frame.filter.value == {"device_type": ["mount"]}
    assert served.options == options


async def test_what_no_gateway_would_take_is_an_error_at_once(autojump_clock: Clock, door: StreamDoor) -> None:
    async with running(door) as client:
        with pytest.raises(ValueError, match="telescop"):
            async with client.subscribe(DEVICE, filter={"telescop": UID}):
                raise AssertionError
        with pytest.raises(ValueError, match="weather"):
            async with client.subscribe("weather"):
                raise AssertionError


async def test_each_message_becomes_an_item(autojump_clock: Clock, door: StreamDoor) -> None:
    async with running(door) as client, client.subscribe(DEVICE) as subscription:
        served = await (await door.accept()).asked()
        served.event("s1", data={"uid": UID, "n": 1}, stale="silent", max_silence_s=30.0)
        served.live("s1")
        served.say("event_gap", "s2", **{"from": "s1", "to": "s2", "count": 3, "reason": "conflated"})
        served.say("event_stale", "s3", uid=UID, last_observed_at="2026-07-01T03:00:00Z", reason="node_offline")
        changed, live, gap, stale = await items(subscription, 4)

    assert isinstance(changed, Changed)
    assert (str(changed.uid), changed.data["n"], changed.stale, changed.max_silence_s) == (UID, 1, "silent", 30.0)
    assert isinstance(live, Live)
    assert isinstance(gap, Gap)
    assert (gap.from_, gap.to, gap.count, gap.reason) == ("s1", "s2", 3, "conflated")
    assert isinstance(stale, Stale)
    assert (str(stale.uid), stale.reason) == (UID, "node_offline")


async def test_a_lost_link_is_said_and_every_subscription_is_resumed_from_its_own_position(
    autojump_clock: Clock, door: StreamDoor
) -> None:
    async with (
        running(door) as client,
        client.subscribe(LOG, after="earliest") as logs,
        client.subscribe(DEVICE) as devices,
        client.subscribe(StreamName.COMMAND) as commands,
    ):
        first = await door.accept()
        served_log, served_devices, _ = await first.asked(), await first.asked(), await first.asked()
        served_log.event("l7")
        served_devices.event("s3")
        first.hang_up(4001, "draining")
        second = await door.accept()
        resumed = [await second.asked() for _ in range(3)]
        resumed[0].event("l8")
        resumed[0].live("l8")
        told = await items(logs, 4)
        held = await items(devices, 2)
        nothing_yet = await items(commands, 1)

    assert [one.options.get("after") for one in resumed] == ["l7", "s3", None]
    assert [type(item) for item in told] == [Changed, Away, Changed, Live]
    assert positions(told) == ["l7", "l8"]
    away = told[1]
    assert isinstance(away, Away)
    assert away.code == 4001
    assert away.again_in_s == 0.25
    assert [type(item) for item in held] == [Changed, Away]
    assert [type(item) for item in nothing_yet] == [Away]


async def test_a_broken_chain_is_said_and_resumed_from_before_the_break(
    autojump_clock: Clock, door: StreamDoor
) -> None:
    async with running(door) as client, client.subscribe(LOG) as subscription, client.subscribe(DEVICE) as bystander:
        end = await door.accept()
        served, other = await end.asked(), await end.asked()
        served.event("l1")
        served.event("l3", prev="l2")
        served.event("l4")
        dropped = await end.hear()
        resumed = await end.asked()
        resumed.event("l2")
        other.event("s1")
        told = await items(subscription, 4)
        untouched = await items(bystander, 1)

    assert isinstance(dropped, UnsubscribeStream)
    assert dropped.subscription_id == served.frame.subscription_id
    assert resumed.options["after"] == "l1"
    assert resumed.frame.subscription_id != served.frame.subscription_id
    assert [type(item) for item in told] == [Changed, Gap, Away, Changed]
    assert positions(told) == ["l1", "l2"]
    gap = told[1]
    assert isinstance(gap, Gap)
    assert (gap.from_, gap.to, gap.reason, gap.position) == ("l1", "l3", "lost", "l1")
    assert positions(untouched) == ["s1"]


async def test_a_beat_that_does_not_follow_breaks_the_chain_too(autojump_clock: Clock, door: StreamDoor) -> None:
    async with running(door) as client, client.subscribe(LOG) as subscription:
        end = await door.accept()
        served = await end.asked()
        served.live("l1")
        served.say("event_live", "l3", prev="l2")
        await end.hear()
        resumed = await end.asked()
        told = await items(subscription, 2)

    assert resumed.options["after"] == "l1"
    assert [type(item) for item in told] == [Live, Gap]


async def test_a_gateway_that_breaks_every_chain_is_not_asked_without_end(
    autojump_clock: Clock, door: StreamDoor
) -> None:
    asked = 0
    async with running(door) as client, client.subscribe(LOG):
        end = await door.accept()
        with trio.move_on_after(60):
            while True:
                frame = await end.hear()
                if isinstance(frame, SubscribeStream):
                    asked += 1
                    Served(end, frame).say("event_live", "l1", prev="l0")

    assert 3 <= asked <= 10


async def test_what_a_gateway_of_another_era_says_first_is_taken(autojump_clock: Clock, door: StreamDoor) -> None:
    async with running(door) as client, client.subscribe(DEVICE, after="sff") as subscription:
        served = await (await door.accept()).asked()
        served.prev = None
        served.say("event_gap", "s1", **{"from": None, "to": "s1", "reason": "resumed"})
        (gap,) = await items(subscription, 1)

    assert isinstance(gap, Gap)
    assert gap.reason == "resumed"


async def test_beats_are_not_items_and_move_the_position(autojump_clock: Clock, door: StreamDoor) -> None:
    async with running(door) as client, client.subscribe(LOG) as subscription:
        served = await (await door.accept()).asked()
        served.live("l1")
        (live,) = await items(subscription, 1)
        with trio.move_on_after(100):
            while True:
                await trio.sleep(10)
                served.live(f"l{trio.current_time():.0f}")
        served.event("l999999")
        (changed,) = await items(subscription, 1)

    assert isinstance(live, Live)
    assert isinstance(changed, Changed)
    assert len(door.tokens) == 1


async def test_a_position_never_passes_over_what_was_not_read(autojump_clock: Clock, door: StreamDoor) -> None:
    async with running(door) as client, client.subscribe(LOG) as subscription:
        end = await door.accept()
        served = await end.asked()
        served.live("l1")
        served.event("l2")
        served.event("l5")
        served.live("l9")
        end.say(Ping(id="read"))
        await end.hear()  # its pong: all of it has come
        seen = [subscription.position]
        for _ in range(3):
            await items(subscription, 1)
            seen.append(subscription.position)

    assert seen == [None, "l1", "l2", "l9"]


async def test_a_subscription_whose_beats_do_not_come_ends_the_link(autojump_clock: Clock, door: StreamDoor) -> None:
    async with running(door) as client, client.subscribe(LOG) as quiet, client.subscribe(DEVICE):
        first = await door.accept()
        served, beating = await first.asked(), await first.asked()
        served.live("l1")
        began = trio.current_time()
        while not first.left.is_set():
            beating.live("s1")
            with trio.move_on_after(5):
                await first.left.wait()
        missed_after_s = trio.current_time() - began
        second = await door.accept()
        resumed = await second.asked()
        told = await items(quiet, 2)

    assert missed_after_s == pytest.approx(25.0, abs=0.1)
    assert resumed.options["after"] == "l1"
    assert [type(item) for item in told] == [Live, Away]
    assert "not even a beat" in str(told[1])


async def test_a_replay_may_take_its_time(autojump_clock: Clock, door: StreamDoor) -> None:
    async with running(door) as client, client.subscribe(LOG, after="earliest") as subscription:
        served = await (await door.accept()).asked()
        await trio.sleep(120)
        served.live("l1")
        (live,) = await items(subscription, 1)

    assert isinstance(live, Live)
    assert len(door.tokens) == 1


async def test_an_answer_that_does_not_come_ends_the_link(autojump_clock: Clock, door: StreamDoor) -> None:
    async with running(door) as client, client.subscribe(LOG):
        end = await door.accept()
        await end.hear()
        with trio.fail_after(30):
            await end.left.wait()
        again = await door.accept()
        served = await again.asked()

    assert "after" not in served.options


async def test_what_is_not_read_waits_at_the_gateway_and_nothing_of_it_is_lost(
    autojump_clock: Clock, door: StreamDoor
) -> None:
    size = 60_000
    async with running(door) as client, client.subscribe(LOG) as subscription:
        end = await door.accept()
        served = await end.asked()
        served.live("l0")
        for number in range(1, 41):
            served.event(f"l{number}", data={"pad": "x" * size})
        await trio.sleep(100)  # no beat comes through, and that is nobody's fault but the reader's
        waits_at_gateway = end.unread
        told = await items(subscription, 41)

    taken = 40 - waits_at_gateway
    assert taken == pytest.approx(MAX_WAITING_BYTES / (size + ITEM_OVERHEAD), abs=2)
    assert positions(told) == [f"l{number}" for number in range(1, 41)]
    assert len(door.tokens) == 1


async def test_leaving_a_full_subscription_lets_the_others_go_on(autojump_clock: Clock, door: StreamDoor) -> None:
    async with running(door) as client, client.subscribe(DEVICE) as other:
        end = await door.accept()
        served_other = await end.asked()
        async with client.subscribe(LOG):
            served = await end.asked()
            for number in range(1, 41):
                served.event(f"l{number}", data={"pad": "x" * 60_000})
            served_other.event("s1")
            await trio.sleep(1)
            waits = end.unread
        (changed,) = await items(other, 1)
        goodbye = await end.hear()

    assert waits > 0
    assert positions([changed]) == ["s1"]
    assert isinstance(goodbye, UnsubscribeStream)
    assert goodbye.subscription_id == served.frame.subscription_id


async def test_iteration_ends_when_the_block_is_left(autojump_clock: Clock, door: StreamDoor) -> None:
    async with running(door) as client:
        async with client.subscribe(LOG) as subscription:
            await door.accept()
        assert await items(subscription, 1) == []


async def test_cancelling_whoever_reads_loses_no_item(autojump_clock: Clock, door: StreamDoor) -> None:
    async with running(door) as client, client.subscribe(LOG) as subscription:
        served = await (await door.accept()).asked()
        with trio.move_on_after(5):
            await anext(subscription)
        for number in range(40):
            served.event(f"l{number}")
        told: list[Item] = []
        while len(told) < 40:
            with trio.CancelScope() as scope:
                scope.cancel()
                told.append(await anext(subscription))
            await trio.lowlevel.checkpoint()

    assert positions(told) == [f"l{number}" for number in range(40)]


async def test_a_token_is_renewed_on_the_socket_before_it_expires(autojump_clock: Clock, door: StreamDoor) -> None:
    given = 0

    async def provider() -> Token:
        nonlocal given
        given += 1
        if given == 2:
            raise OSError("the issuer is away")
        return Token(f"token-{given}", lifetime_s=100.0)

    async with running(door, provider) as client, client.subscribe(LOG, after="earliest"):
        end = await door.accept()
        await end.asked()
        began = trio.current_time()
        renewed = await end.hear()
        after_s = trio.current_time() - began

    assert isinstance(renewed, AuthRefresh)
    assert renewed.token == "token-3"
    assert 75 <= after_s < 100
    assert door.tokens == ["token-1"]


async def test_a_token_that_is_refused_is_asked_for_again_at_once(autojump_clock: Clock, door: StreamDoor) -> None:
    door.refusals = [LinkEnded("refused", status=401)]
    given = 0

    async def provider() -> str:
        nonlocal given
        given += 1
        return f"token-{given}"

    async with running(door, provider):
        await door.accept()

    assert door.tokens == ["token-1", "token-2"]


@pytest.mark.parametrize(
    ("token", "why"), [("", "is empty"), (" \n", "is empty"), ("a\nb", "no header"), ("tokén", "no header")]
)
def test_a_token_that_is_none_is_an_error_at_once(token: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        StreamClient("http://gateway:5003", token)


async def test_the_end_of_a_line_is_no_part_of_a_token(autojump_clock: Clock, door: StreamDoor) -> None:
    client = StreamClient("http://gateway:5003", "token-1\n", connect=door.connect)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        await door.accept()
        nursery.cancel_scope.cancel()

    assert door.tokens == ["token-1"]


async def test_one_token_that_is_refused_asks_for_a_person_and_is_tried_late(
    autojump_clock: Clock, door: StreamDoor
) -> None:
    door.refusals = [LinkEnded("The token has expired.", status=401)]
    async with running(door) as client, client.subscribe(LOG) as subscription:
        (away,) = await items(subscription, 1)
        await door.accept()
        came_back_s = trio.current_time()

    assert isinstance(away, Away)
    assert (away.needs_attention, away.status) == (True, 401)
    assert came_back_s >= 300


async def test_no_token_is_no_streams_and_nothing_else(autojump_clock: Clock, door: StreamDoor) -> None:
    async def provider() -> str:
        raise ValueError("no key")

    async with running(door, provider) as client, client.subscribe(LOG) as subscription:
        (away,) = await items(subscription, 1)

    assert isinstance(away, Away)
    assert away.reason == "No token to connect with: no key."


async def test_a_refusal_for_want_of_a_scope_asks_for_a_person_and_is_tried_late(
    autojump_clock: Clock, door: StreamDoor
) -> None:
    door.refusals = [LinkEnded("The token lacks the scope streams:read.", status=403)]
    async with running(door) as client, client.subscribe(LOG) as subscription:
        (away,) = await items(subscription, 1)
        await door.accept()
        came_back_s = trio.current_time()
        async with client.subscribe(DEVICE) as later:
            nothing = None
            with trio.move_on_after(10):
                nothing = await anext(later)

    assert isinstance(away, Away)
    assert away.needs_attention
    assert away.status == 403
    assert "streams:read" in away.reason
    assert came_back_s >= 300
    assert nothing is None


async def test_who_subscribes_while_there_is_no_link_is_told_so(autojump_clock: Clock, door: StreamDoor) -> None:
    door.refusals = [LinkEnded("No.", status=403)]
    async with running(door) as client:
        await trio.sleep(1)
        async with client.subscribe(LOG) as subscription:
            (away,) = await items(subscription, 1)

    assert isinstance(away, Away)
    assert away.reason == "No."


async def test_a_link_that_fails_again_and_again_is_said_once_to_who_does_not_read(
    autojump_clock: Clock, door: StreamDoor
) -> None:
    door.refusals = [LinkEnded(f"No {number}.", status=503) for number in range(20)]
    async with running(door) as client, client.subscribe(LOG) as subscription:
        end = await door.accept()
        (await end.asked()).live("l1")
        told = await items(subscription, 2)

    assert [type(item) for item in told] == [Away, Live]
    assert "No 19." in str(told[0])


async def test_a_refused_subscription_ends_and_is_not_asked_for_again(autojump_clock: Clock, door: StreamDoor) -> None:
    async with running(door) as client, client.subscribe(LOG, after="l999") as subscription:
        end = await door.accept()
        frame = await end.hear()
        assert isinstance(frame, SubscribeStream)
        end.say(
            {
                "kind": "error",
                "code": "invalid",
                "message": "It is beyond the end of this log.",
                "details": {"reason": "invalid"},
                "id": frame.subscription_id,
            }
        )
        told = await items(subscription, 2)
        end.hang_up()
        again = await door.accept()
        async with client.subscribe(DEVICE):
            served = await again.asked()

    (ended,) = told
    assert isinstance(ended, Ended)
    assert (ended.reason, ended.text) == ("invalid", "It is beyond the end of this log.")
    assert served.frame.stream is DEVICE


async def test_an_end_that_passes_is_resumed_from_the_position(autojump_clock: Clock, door: StreamDoor) -> None:
    async with running(door) as client, client.subscribe(LOG) as subscription:
        end = await door.accept()
        served = await end.asked()
        served.event("l1")
        served.end("slow_consumer")
        resumed = await end.asked()
        resumed.event("l2")
        told = await items(subscription, 3)

    assert resumed.options["after"] == "l1"
    assert [type(item) for item in told] == [Changed, Away, Changed]


async def test_an_end_before_anything_was_told_is_resumed_from_where_it_began(
    autojump_clock: Clock, door: StreamDoor
) -> None:
    async with running(door) as client, client.subscribe(LOG):
        end = await door.accept()
        served = await end.asked()
        served.end("slow_consumer", position="l7")
        resumed = await end.asked()

    assert resumed.options["after"] == "l7"


async def test_an_end_that_does_not_pass_is_the_last_item(autojump_clock: Clock, door: StreamDoor) -> None:
    async with running(door) as client, client.subscribe(LOG) as subscription:
        served = await (await door.accept()).asked()
        served.event("l1")
        served.end("forbidden")
        told = await items(subscription, 3)

    assert [type(item) for item in told] == [Changed, Ended]
    assert isinstance(told[1], Ended)
    assert (told[1].reason, told[1].position) == ("forbidden", "l1")


async def test_an_event_that_cannot_be_read_is_a_gap_and_not_the_end(autojump_clock: Clock, door: StreamDoor) -> None:
    async with running(door) as client, client.subscribe(LOG) as subscription:
        served = await (await door.accept()).asked()
        served.event("l1", received_at="yesterday")
        served.event("l2")
        gap, changed = await items(subscription, 2)

    assert isinstance(gap, Gap)
    assert (gap.reason, gap.count, gap.to) == ("unreadable", 1, "l1")
    assert isinstance(changed, Changed)


@pytest.mark.parametrize("message", ["no JSON", "[]", "{}", '{"kind":"event_telescope_log"}', '{"kind":7}'])
async def test_what_is_no_message_ends_the_link(autojump_clock: Clock, door: StreamDoor, message: str) -> None:
    async with running(door) as client, client.subscribe(LOG) as subscription:
        end = await door.accept()
        await end.asked()
        end.say(message)
        (away,) = await items(subscription, 1)

    assert isinstance(away, Away)
    assert "The gateway said a message" in away.reason


async def test_words_that_are_newer_than_this_program_are_passed_over(autojump_clock: Clock, door: StreamDoor) -> None:
    async with running(door) as client, client.subscribe(LOG) as subscription:
        end: GatewayEnd = await door.accept()
        served = await end.asked()
        served.say("event_of_tomorrow", "l1", what="else")
        served.event("l2")
        end.say(Ping(id="p"))
        pong = await end.hear()
        (changed,) = await items(subscription, 1)

    assert isinstance(pong, Pong)
    assert positions([changed]) == ["l2"]
