"""Silence is heard: a value that is not said again in time is stale, and says since when and why."""

from dataclasses import replace
from uuid import UUID

import pytest
import trio
import trio.testing
from trio.abc import Clock

from skygw.ids import Epoch
from skygw.protocol.streams import StaleReason, StreamName
from skygw.telemetry import freshness as room
from skygw.telemetry.freshness import TURNS_TO_READ, next_look
from skygw.telemetry.hub import StreamHub
from skygw.telemetry.value import Value, utc
from tests.fakes.memory_log import MemoryLog
from tests.fakes.moments import NOW
from tests.fakes.telemetry_rooms import Goodbye, Reader, Session, Site, asks, snapshot

DEVICE = StreamName.DEVICE_SNAPSHOT


class Room:
    """A hub that runs, and a site whose node is here."""

    def __init__(self) -> None:
        self.hub = StreamHub(era=1, log=MemoryLog())
        self.site = Site()
        self.mount = self.site.device()
        self.session = Session(self.site, Epoch(1))
        self.hub.session_began(self.session)
        self.seq = 0

    def say(self, max_silence_s: float | None = None, *, epoch: int = 1, text: str = "") -> None:
        self.seq += 1
        frame = snapshot(self.mount, self.seq, max_silence_s=max_silence_s, text=text)
        assert self.hub.retained.offer(self.site, Epoch(epoch), frame) is None

    def comes_back(self, epoch: int) -> Session:
        session = Session(self.site, Epoch(epoch))
        self.hub.session_began(session)
        return session

    @property
    def value(self) -> Value:
        return held(self.hub, self.mount)


class Silenced:
    """Hears of values that became stale."""

    def __init__(self) -> None:
        self.values: list[Value] = []
        self.first = trio.Event()

    def changed(self, value: Value) -> None:
        if value.stale is not None:
            self.values.append(value)
            self.first.set()

    def unchanged(self, value: Value) -> None:
        """It is of no interest here."""


def held(hub: StreamHub, uid: UUID) -> Value:
    found = hub.retained.find(DEVICE, uid)
    assert found is not None
    return found


@pytest.fixture
async def gateway(nursery: trio.Nursery) -> Room:
    room = Room()
    await nursery.start(room.hub.run)
    return room


async def test_silence_beyond_the_limit_is_told_within_a_second_with_the_last_good_time(
    gateway: Room, autojump_clock: Clock
) -> None:
    reader = Reader()
    gateway.hub.subscribe(reader.outlet, asks(DEVICE, options={"include_existing": False}))
    gateway.say(30.0)
    said_at = trio.current_time()
    await reader.read(2)  # `event_live` and the value
    beats = []
    while (message := (await reader.read(1))[0])["kind"] == "event_live":
        beats.append(message)
    assert 30.0 <= trio.current_time() - said_at <= 31.0
    assert (message["kind"], message["uid"], message["reason"]) == ("event_stale", str(gateway.mount), "silent")
    assert message["last_observed_at"] == utc(NOW)
    assert gateway.value.stale is StaleReason.SILENT


async def test_what_is_said_in_time_stays_fresh_however_long(gateway: Room, autojump_clock: Clock) -> None:
    for number in range(50):
        gateway.say(2.0, text=str(number % 2) if number < 25 else "the same bytes")
        await trio.sleep(1.9)
        assert gateway.value.stale is None
    await trio.sleep(1.2)
    assert gateway.value.stale is StaleReason.SILENT


async def test_a_value_said_again_after_silence_is_fresh_and_watched_again(
    gateway: Room, autojump_clock: Clock
) -> None:
    gateway.say(5.0)
    await trio.sleep(6)
    assert gateway.value.stale is StaleReason.SILENT
    gateway.say(5.0)
    assert gateway.value.stale is None
    await trio.sleep(6)
    assert gateway.value.stale is StaleReason.SILENT


async def test_a_shortened_limit_counts_from_when_it_was_said(gateway: Room, autojump_clock: Clock) -> None:
    gateway.say(3600.0)
    await trio.sleep(10)
    gateway.say(5.0)
    await trio.sleep(4.9)
    assert gateway.value.stale is None
    await trio.sleep(1.1)
    assert gateway.value.stale is StaleReason.SILENT


async def test_a_limit_made_longer_or_taken_back_is_kept_to(gateway: Room, autojump_clock: Clock) -> None:
    gateway.say(5.0)
    gateway.say(60.0)
    await trio.sleep(50)
    assert gateway.value.stale is None
    gateway.say(None)
    await trio.sleep(100)
    assert gateway.value.stale is None


async def test_limits_shortened_over_and_over_fill_no_memory(gateway: Room, autojump_clock: Clock) -> None:
    for number in range(5_000):
        gateway.say(1e6 - number)
    assert gateway.hub.freshness.waiting <= 2 + room.AT_ONCE


async def test_without_a_limit_a_value_is_stale_when_its_node_leaves(gateway: Room, autojump_clock: Clock) -> None:
    gateway.say(None)
    gateway.hub.session_ended(gateway.session, Goodbye())
    assert gateway.value.stale is StaleReason.NODE_OFFLINE
    gateway.comes_back(2)
    assert gateway.value.stale is StaleReason.NODE_OFFLINE  # nothing is fresh until it is said
    gateway.say(None, epoch=2)
    assert gateway.value.stale is None


async def test_a_link_lost_for_less_than_the_limit_is_no_alarm(gateway: Room, autojump_clock: Clock) -> None:
    gateway.say(30.0)
    gateway.hub.session_ended(gateway.session, Goodbye())
    await trio.sleep(20)
    assert gateway.value.stale is None
    gateway.comes_back(2)
    gateway.say(30.0, epoch=2)
    await trio.sleep(20)
    assert gateway.value.stale is None


async def test_silence_of_a_node_that_is_away_says_so(gateway: Room, autojump_clock: Clock) -> None:
    gateway.say(30.0)
    gateway.hub.session_ended(gateway.session, Goodbye())
    await trio.sleep(31)
    assert gateway.value.stale is StaleReason.NODE_OFFLINE


async def test_the_late_goodbye_of_a_superseded_session_leaves_what_the_new_one_said(
    gateway: Room, autojump_clock: Clock
) -> None:
    gateway.say(None)
    gateway.comes_back(2)
    assert gateway.value.stale is StaleReason.NODE_OFFLINE
    gateway.say(None, epoch=2)
    gateway.hub.session_ended(gateway.session, Goodbye())
    assert gateway.value.stale is None


async def test_a_restored_value_stays_of_before_the_restart_until_it_is_said(
    gateway: Room, autojump_clock: Clock
) -> None:
    dome = gateway.site.device("enclosure")
    gateway.hub.retained.restore(
        DEVICE,
        gateway.site.resources[dome],
        data="{}",
        observed_at=NOW,
        received_at=NOW,
        max_silence_s=5.0,
        order=(0, 1),
        age_s=2.0,
    )
    await trio.sleep(60)
    assert held(gateway.hub, dome).stale is StaleReason.GATEWAY_RESTARTED


async def test_what_a_resource_said_to_its_former_installation_is_not_watched(
    gateway: Room, autojump_clock: Clock
) -> None:
    gateway.say(5.0)
    other = Site()
    other.resources[gateway.mount] = replace(gateway.site.resources[gateway.mount], install_id=other.install_id)
    gateway.hub.session_began(Session(other, Epoch(1)))
    gateway.hub.retained.offer(other, Epoch(1), snapshot(gateway.mount, 1, max_silence_s=60.0))
    silenced = Silenced()
    gateway.hub.watch(silenced)
    await trio.sleep(20)
    assert silenced.values == []


async def test_thousands_that_fall_silent_at_once_leave_others_their_turns(
    gateway: Room, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "AT_ONCE", 10)
    for _ in range(100):
        gateway.hub.retained.offer(gateway.site, Epoch(1), snapshot(gateway.site.device(), 1, max_silence_s=5.0))
    silenced = Silenced()
    gateway.hub.watch(silenced)
    await silenced.first.wait()
    counts = [0]
    while counts[-1] < 100:
        await trio.lowlevel.checkpoint()
        counts.append(len(silenced.values))
    assert len(counts) > 5


async def test_a_process_that_stood_still_reads_before_it_calls_anybody_silent(
    mock_clock: trio.testing.MockClock,
) -> None:
    mock_clock.rate = 0
    order: list[str] = []

    async def look() -> None:
        await next_look(0.25)
        order.append("looked")

    async def reads() -> None:
        await trio.sleep(0.25)
        for _ in range(TURNS_TO_READ - 1):
            await trio.lowlevel.checkpoint()
        order.append("read")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        nursery.start_soon(reads)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(10)
    assert order == ["read", "looked"]
