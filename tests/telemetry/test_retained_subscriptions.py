"""A subscription to values: existing first, then changes; what a slow reader missed is said, never passed over."""

import gc
import itertools
import weakref
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
import trio
from trio.abc import Clock

from skygw.ids import Epoch
from skygw.protocol.streams import StaleReason, StreamName
from skygw.telemetry import outlet as outlet_room
from skygw.telemetry.hub import StreamHub
from skygw.telemetry.subscription import BEAT_S
from skygw.telemetry.value import Value
from tests.fakes.memory_log import MemoryLog
from tests.fakes.telemetry_rooms import Reader, Site, asks, snapshot

DEVICE = StreamName.DEVICE_SNAPSHOT


class Room:
    """A hub, a site with devices, and what the site has said so far."""

    def __init__(self) -> None:
        self.hub = StreamHub(era=1, log=MemoryLog())
        self.site = Site()
        self.seq = 0

    def say(self, uid: UUID, **data: Any) -> None:
        self.seq += 1
        assert self.hub.retained.offer(self.site, Epoch(1), snapshot(uid, self.seq, **data)) is None

    def reader(self, *, options: object = None, **wanted: Any) -> Reader:
        reader = Reader()
        self.hub.subscribe(reader.outlet, asks(DEVICE, options=options, **wanted))
        return reader


@pytest.fixture
async def room() -> Room:
    return Room()


def told(messages: list[dict[str, Any]]) -> list[object]:
    return [message["data"].get("n") for message in messages if message["kind"] == "event_device_snapshot"]


def chain_holds(messages: list[dict[str, Any]]) -> bool:
    """Whether each message's `prev` is the `position` of the one before."""
    return all(after["prev"] == before["position"] for before, after in itertools.pairwise(messages))


async def test_what_exists_comes_first_then_live_then_changes(room: Room) -> None:
    mount, camera = room.site.device(), room.site.device("camera")
    room.say(mount, n=1)
    room.say(camera, n=2)
    reader = room.reader()
    existing = await reader.until_live()
    room.say(mount, n=3)
    news = await reader.read(1)
    assert told(existing) == [1, 2]
    assert told(news) == [3]
    assert existing[0]["prev"] is None
    assert chain_holds(existing + news)


async def test_payloads_are_carried_byte_for_byte(room: Room) -> None:
    mount = room.site.device()
    frame = snapshot(mount, 1)
    text = f'{{ "uid" : "{mount}", "ra": 83.822080000000001, "name": "Ärmel\\u00e9" }}'
    frame = frame.model_copy(update={"data": type(frame.data)(text, {"uid": str(mount)})})
    room.hub.retained.offer(room.site, Epoch(1), frame)
    reader = room.reader()
    (message,) = await reader.outlet.next_texts(at_most=1)
    assert message.endswith(f'"data":{text}}}')


async def test_without_existing_only_news_is_told(room: Room) -> None:
    mount = room.site.device()
    room.say(mount, n=1)
    reader = room.reader(options={"include_existing": False})
    (live,) = await reader.read(1)
    room.say(mount, n=2)
    assert live["kind"] == "event_live"
    assert told(await reader.read(1)) == [2]


async def test_a_reader_that_was_slow_gets_the_latest_and_is_told_how_many_it_missed(room: Room) -> None:
    mount = room.site.device()
    reader = room.reader()
    await reader.until_live()
    for number in range(1, 8):
        room.say(mount, n=number)
    gap, latest = await reader.read(2)
    assert (gap["kind"], gap["count"], gap["reason"]) == ("event_gap", 6, "conflated")
    assert (gap["from"], gap["prev"]) == (gap["prev"], gap["prev"])
    assert told([latest]) == [7]
    assert latest["prev"] == gap["position"] == gap["to"]


async def test_a_slow_reader_costs_one_reference_however_much_happens(room: Room, autojump_clock: Clock) -> None:
    mount = room.site.device()
    reader = room.reader()
    await reader.until_live()
    for number in range(10_000):
        room.say(mount, n=number)
    assert len(await reader.read(2)) == 2
    with trio.move_on_after(BEAT_S / 2) as nothing_more:
        await reader.outlet.next()
    assert nothing_more.cancelled_caught


async def test_a_position_is_one_up_to_which_everything_was_told(room: Room, autojump_clock: Clock) -> None:
    """Values leave in another order than they changed in: whoever resumes must not lose the one that waited."""
    fast, slow = room.site.device(), room.site.device("camera")
    reader = room.reader(options={"max_rate_hz": 0.1})
    await reader.until_live()
    room.say(fast, n=1)
    room.say(slow, n=2)
    first = await reader.read(2)
    room.say(fast, n=3)  # held back: it was told a moment ago
    third = room.site.device("focuser")
    room.say(third, n=4)
    (unheld,) = await reader.read(1)
    assert told([*first, unheld]) == [1, 2, 4]
    again = room.reader(options={"after": unheld["position"]})
    resumed = await again.until_live()
    assert set(told(resumed)) >= {3}


async def test_a_resource_is_told_no_faster_than_asked_and_its_last_state_is_told(
    room: Room, autojump_clock: Clock
) -> None:
    mount = room.site.device()
    reader = room.reader(options={"max_rate_hz": 2})
    await reader.until_live()
    times: list[float] = []
    seen: list[object] = []

    async def read() -> None:
        while len(seen) < 3:
            for message in await reader.read(1):
                if message["kind"] == "event_device_snapshot":
                    times.append(trio.current_time())
                    seen.append(message["data"]["n"])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        for number in range(11):
            room.say(mount, n=number)
            await trio.sleep(0.1)
    assert len(seen) == 3
    assert seen[-1] in (9, 10)  # the last is told, though it had to wait
    assert all(after - before >= 0.5 for before, after in itertools.pairwise(times))


async def test_resuming_tells_what_changed_since_and_one_gap(room: Room) -> None:
    mount, camera = room.site.device(), room.site.device("camera")
    room.say(mount, n=1)
    room.say(camera, n=2)
    reader = room.reader()
    live = (await reader.until_live())[-1]
    for number in range(3, 6):
        room.say(mount, n=number)
    resumed = await room.reader(options={"after": live["position"]}).until_live()
    assert [message["kind"] for message in resumed] == ["event_gap", "event_device_snapshot", "event_live"]
    assert told(resumed) == [5]
    assert resumed[0]["prev"] == live["position"]
    assert resumed[0]["reason"] == "resumed"
    assert chain_holds(resumed)


async def test_resuming_where_nothing_happened_tells_nothing(room: Room) -> None:
    room.say(room.site.device(), n=1)
    live = (await room.reader().until_live())[-1]
    resumed = await room.reader(options={"after": live["position"]}).until_live()
    assert [message["kind"] for message in resumed] == ["event_live"]


async def test_a_position_of_a_later_era_is_answered_with_everything_and_a_gap(room: Room) -> None:
    """The database was set back: what the reader holds may be newer than anything here, and nobody can say."""
    room.say(room.site.device(), n=1)
    resumed = await room.reader(options={"after": "s90000000001"}).until_live()
    assert [message["kind"] for message in resumed] == ["event_gap", "event_device_snapshot", "event_live"]


async def test_whoever_resumes_after_a_restart_is_told_so_also_when_nothing_is_left(room: Room) -> None:
    reader = room.reader(options={"after": "s5"})  # of era 0, and this is 1
    assert [message["kind"] for message in await reader.until_live()] == ["event_gap", "event_live"]
    room.say(room.site.device(), n=1)
    again = await room.reader(options={"after": "s5"}).until_live()
    assert [message["kind"] for message in again] == ["event_gap", "event_device_snapshot", "event_live"]
    assert again[0]["reason"] == "gateway_restarted"
    assert again[0]["prev"] == "s5"
    assert chain_holds(again)


async def test_stale_is_told_once_and_what_is_fresh_again_is_told_whole(room: Room) -> None:
    mount = room.site.device()
    reader = room.reader()
    await reader.until_live()
    room.say(mount, n=1)
    await reader.read(1)
    value = room.hub.retained.find(DEVICE, mount)
    assert value is not None
    room.hub.retained.mark_stale(value, StaleReason.SILENT)
    (stale,) = await reader.read(1)
    assert (stale["kind"], stale["uid"], stale["reason"]) == ("event_stale", str(mount), "silent")
    assert stale["last_observed_at"] == "2026-07-01T03:00:00Z"
    room.say(mount, n=1)  # the same bytes
    (fresh,) = await reader.read(1)
    assert (fresh["kind"], "stale" in fresh) == ("event_device_snapshot", False)


async def test_whoever_resumes_learns_that_what_it_holds_became_stale(room: Room) -> None:
    mount = room.site.device()
    room.say(mount, n=1)
    live = (await room.reader().until_live())[-1]
    value = room.hub.retained.find(DEVICE, mount)
    assert value is not None
    room.hub.retained.mark_stale(value, StaleReason.NODE_OFFLINE)
    resumed = await room.reader(options={"after": live["position"]}).until_live()
    assert [message.get("stale") for message in resumed] == [None, "node_offline", None]


async def test_unchanged_values_are_told_to_those_who_ask(room: Room, autojump_clock: Clock) -> None:
    mount = room.site.device()
    asking, other = room.reader(options={"include_unchanged": True}), room.reader()
    await asking.until_live()
    await other.until_live()
    room.say(mount, n=1)
    room.say(mount, n=1)
    assert told(await asking.read(1)) == [1]
    assert told(await other.read(1)) == [1]
    room.say(mount, n=1)
    assert told(await asking.read(1)) == [1]
    (beat,) = await other.read(1)
    assert beat["kind"] == "event_live"


async def test_fields_leave_the_rest_out_and_the_bytes_as_they_are(room: Room) -> None:
    mount = room.site.device()
    room.say(mount, ra=1.50, state="tracking", name="M")
    reader = room.reader(options={"fields": ["state", "unknown"]})
    (message,) = await reader.read(1)
    assert message["data"] == {"uid": str(mount), "state": "tracking"}


async def test_a_beat_comes_when_nothing_else_does_and_repeats_the_last_position(
    room: Room, autojump_clock: Clock
) -> None:
    mount = room.site.device()
    reader = room.reader()
    before = (await reader.until_live())[-1]
    began = trio.current_time()
    (beat,) = await reader.read(1)
    assert trio.current_time() - began == pytest.approx(BEAT_S)
    assert (beat["kind"], beat["prev"]) == ("event_live", before["position"])
    await trio.sleep(BEAT_S / 2)
    room.say(mount, n=1)
    (event,) = await reader.read(1)
    said_at = trio.current_time()
    (beat,) = await reader.read(1)
    assert beat["prev"] == event["position"]
    assert trio.current_time() - said_at == pytest.approx(BEAT_S)


async def test_many_subscriptions_of_one_socket_take_turns(room: Room) -> None:
    devices = [room.site.device() for _ in range(200)]
    for number, device in enumerate(devices):
        room.say(device, n=number)
    reader = Reader()
    room.hub.subscribe(reader.outlet, asks(DEVICE, "whole"))
    room.hub.subscribe(reader.outlet, asks(DEVICE, "one", device_uid=devices[7]))
    messages = await reader.read(60)
    assert "one" in {message["subscription_id"] for message in messages}


async def test_an_ended_subscription_is_told_nothing_more(room: Room, autojump_clock: Clock) -> None:
    mount = room.site.device()
    reader = room.reader()
    await reader.until_live()
    room.say(mount, n=1)
    assert reader.outlet.remove("mine")
    assert not reader.outlet.remove("mine")
    room.say(mount, n=2)
    with trio.move_on_after(BEAT_S * 3) as nothing:
        await reader.outlet.next()
    assert nothing.cancelled_caught


async def test_that_a_value_is_stale_waits_for_no_rate(room: Room, autojump_clock: Clock) -> None:
    mount = room.site.device()
    reader = room.reader(options={"max_rate_hz": 0.01})
    await reader.until_live()
    room.say(mount, n=1)
    room.say(mount, n=2)
    await reader.read(1)
    room.say(mount, n=3)
    held = room.hub.retained.find(DEVICE, mount)
    assert held is not None
    began = trio.current_time()
    room.hub.retained.mark_stale(held, StaleReason.SILENT)
    gap, stale = await reader.read(2)
    assert (gap["kind"], stale["data"]["n"], stale["stale"]) == ("event_gap", 3, "silent")
    room.say(mount, n=3)
    room.hub.retained.mark_stale(held, StaleReason.SILENT)
    assert [message["kind"] for message in await reader.read(2)] == ["event_gap", "event_device_snapshot"]
    assert trio.current_time() == began
    room.say(mount, n=4)
    assert told(await reader.read(1)) == []  # a beat: the rate holds for everything else
    assert trio.current_time() > began


async def test_a_subscription_that_was_ended_leaves_no_timer_behind(room: Room) -> None:
    mount = room.site.device()
    reader = Reader()
    gone = []
    for number in range(3):
        subscription = room.hub.subscribe(reader.outlet, asks(DEVICE, str(number), options={"max_rate_hz": 1e-6}))
        gone.append(weakref.ref(subscription))
        await reader.until_live()
        for _ in range(2):
            room.say(mount, n=room.seq)
            with trio.move_on_after(0.01):
                await reader.read(1)
        reader.outlet.remove(str(number))
        del subscription
    room.say(mount)  # who listens is remembered until then
    gc.collect()
    assert [one() for one in gone] == [None, None, None]


async def test_a_resource_that_moves_is_stale_where_it_was_and_told_where_it_is(room: Room) -> None:
    mount, there = room.site.device(), Site()
    there.resources[mount] = replace(
        room.site.resources[mount], install_id=there.install_id, telescope_uid=there.telescope_uid
    )
    before = room.reader(telescope_uid=room.site.telescope_uid)
    after = room.reader(telescope_uid=there.telescope_uid)
    both = room.reader()
    for reader in (before, after, both):
        await reader.until_live()
    room.say(mount, n=1)
    await before.read(1)
    await both.read(1)
    assert room.hub.retained.offer(there, Epoch(1), snapshot(mount, 1, n=2)) is None
    (stale,) = await before.read(1)
    assert (stale["kind"], stale["uid"], stale["reason"]) == ("event_stale", str(mount), "silent")
    assert told(await after.read(1)) == [2]
    assert [message["kind"] for message in await both.read(2)] == ["event_stale", "event_device_snapshot"]


async def test_a_resource_that_goes_to_and_fro_leaves_nothing_behind(room: Room) -> None:
    mount, there = room.site.device(), Site()
    there.resources[mount] = replace(room.site.resources[mount], install_id=there.install_id)
    there_id = str(there.install_id)
    reader = room.reader()
    await reader.until_live()

    async def move() -> int:
        """To the other and back; how many values there are then."""
        room.say(mount, n=room.seq)
        assert room.hub.retained.offer(there, Epoch(1), snapshot(mount, room.seq)) is None
        messages: list[dict[str, Any]] = []
        while not messages or messages[-1].get("install_id") != there_id:
            messages += await reader.read(1)
        gc.collect()
        return sum(isinstance(one, Value) for one in gc.get_objects())

    first = await move()
    assert [await move() for _ in range(5)] == [first] * 5


async def test_what_a_payload_costs_to_parse_counts_with_what_is_written(room: Room) -> None:
    for _ in range(50):
        room.say(room.site.device(), rows=[[1, 2]] * 3_000)
    reader = room.reader(options={"fields": ["state"]})
    first = await reader.outlet.next(at_most=outlet_room.BATCH_CHARACTERS)
    assert len(first) < 20
