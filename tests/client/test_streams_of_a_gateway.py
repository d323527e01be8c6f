"""The client against the gateway's own stream sessions, cut again and again: each event once, and the same values."""

import random

import pytest
import trio
import trio.testing
from trio.abc import Clock

from skygw.client.streams import (
    MAX_MESSAGE_BYTES,
    Changed,
    Gap,
    LatestValues,
    Live,
    StreamClient,
    StreamName,
    Subscription,
)
from skygw.conversations.session import ServiceSession
from skygw.conversations.streams import StreamConversation
from skygw.errors import Forbidden
from skygw.ids import Epoch
from skygw.telemetry.hub import StreamHub
from skygw.telemetry.retained import MAX_BYTES_PER_INSTALLATION
from tests.fakes.memory_log import MemoryLog, an_event
from tests.fakes.stream_links import StreamDoor
from tests.fakes.telemetry_rooms import Site, snapshot

LOG, DEVICE = StreamName.TELESCOPE_LOG, StreamName.DEVICE_SNAPSHOT
EVENTS = 1_000


async def no_renewal(token: str) -> float:
    raise Forbidden("Not here.")


async def serve(door: StreamDoor, hub: StreamHub, chance: random.Random, cuts: int) -> None:
    """A session per socket; the first `cuts` of them are cut at some moment."""
    for number in range(10_000):
        end = await door.accept()
        conversation = StreamConversation(hub, owner="a service", extensions=True)
        session = ServiceSession(end, conversation, owner="a service", expires_at=4e9, renew=no_renewal)
        with trio.move_on_after(chance.uniform(0.0, 3.0) if number < cuts else 1e9):
            await session.run()


async def read_log(subscription: Subscription, found: list[int], chance: random.Random) -> None:
    async for item in subscription:
        if isinstance(item, Changed):
            found.append(item.data["n"])
        if chance.random() < 0.02:
            await trio.sleep(chance.uniform(0.0, 0.5))


@pytest.mark.parametrize("seed", range(3))
async def test_every_event_comes_once_and_in_order_and_the_latest_values_agree_in_the_end(
    autojump_clock: Clock, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - nothing is to be guessed
    site, log = Site(), MemoryLog()
    devices = [site.device() for _ in range(5)]
    hub = StreamHub(era=1, log=log)
    door = StreamDoor(capacity=3)
    client = StreamClient("http://gateway:5003", "token", connect=door.connect, chance=lambda: chance.random() / 50)
    events: list[int] = []
    said = dict.fromkeys(devices, -1)
    async with trio.open_nursery() as nursery:
        await nursery.start(hub.feed.run)
        nursery.start_soon(serve, door, hub, chance, 20)
        nursery.start_soon(client.run)
        async with (
            client.subscribe(LOG, after="earliest") as logs,
            client.subscribe(DEVICE, include_unchanged=True) as values,
        ):
            latest = LatestValues(values)
            nursery.start_soon(read_log, logs, events, chance)
            nursery.start_soon(latest.follow)
            for number in range(EVENTS):
                log.append(an_event(LOG, f'{{"n":{number}}}'))
                hub.feed.poke()
                uid = chance.choice(devices)
                said[uid] = number
                assert hub.retained.offer(site, Epoch(1), snapshot(uid, number + 1, n=number)) is None
                await trio.sleep(chance.uniform(0.0, 0.1))
            with trio.fail_after(1_000):
                while len(events) < EVENTS or len(latest) < len(devices):  # noqa: ASYNC110 - the test's clock jumps
                    await trio.sleep(1.0)
            await trio.testing.wait_all_tasks_blocked()
            told = {uid: found.value.data["n"] for uid in devices if (found := latest.newest(uid)) is not None}
            fresh = [latest.fresh_or_none(uid, 1_000.0) is not None for uid in devices]
        nursery.cancel_scope.cancel()

    assert events == list(range(EVENTS))
    assert told == said
    assert all(fresh)
    assert len(door.tokens) > 20


async def test_what_a_slow_reader_of_values_missed_is_told_as_a_gap(autojump_clock: Clock) -> None:
    site = Site()
    hub = StreamHub(era=1, log=MemoryLog())
    device = site.device()
    door = StreamDoor(capacity=1)
    client = StreamClient("http://gateway:5003", "token", connect=door.connect)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, door, hub, random.Random(0), 0)  # noqa: S311
        nursery.start_soon(client.run)
        async with client.subscribe(DEVICE) as subscription:
            live = await anext(subscription)
            for number in range(200):
                hub.retained.offer(site, Epoch(1), snapshot(device, number + 1, n=number, pad="x" * 50_000))
                await trio.sleep(0.1)
            told: list[int] = []
            missed = 0
            while not told or told[-1] != 199:
                item = await anext(subscription)
                if isinstance(item, Gap):
                    assert item.reason == "conflated"
                    missed += item.count or 0
                elif isinstance(item, Changed):
                    told.append(item.data["n"])
        nursery.cancel_scope.cancel()

    assert isinstance(live, Live)
    assert len(door.tokens) == 1
    assert len(told) < 50
    assert len(told) + missed == 200


def test_an_instrument_of_everything_that_one_installation_may_say_can_be_read() -> None:
    assert MAX_MESSAGE_BYTES > MAX_BYTES_PER_INSTALLATION
