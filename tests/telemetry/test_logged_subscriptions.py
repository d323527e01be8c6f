"""A subscription to events: each once and in order, from where it began, whatever happens while it is read."""

import itertools
from typing import Any

import pytest
import trio
import trio.testing
from trio.abc import Clock

from skygw.errors import Busy, Invalid
from skygw.ids import InstallId
from skygw.protocol.streams import StreamName
from skygw.telemetry import logged_subscription as room_of_subscriptions
from skygw.telemetry import outlet as outlet_room
from skygw.telemetry.hub import StreamHub
from skygw.telemetry.log import LogKind
from skygw.telemetry.logged_subscription import LoggedSubscription
from tests.fakes.memory_log import MemoryLog, an_event
from tests.fakes.telemetry_rooms import Reader, Site, asks

LOG = StreamName.TELESCOPE_LOG


class Room:
    """A hub that is fed, and the log behind it."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.log = MemoryLog()
        self.hub = StreamHub(era=1, log=self.log)
        self.nursery = nursery

    def write(self, *numbers: int, **about: Any) -> None:
        """Log lines, committed together."""
        for number in numbers:
            self.log.append(an_event(LOG, f'{{"n":{number}}}', **about))
        self.hub.feed.poke()

    def reader(self, *, options: object = None, **wanted: Any) -> Reader:
        reader = Reader()
        subscription = self.hub.subscribe(reader.outlet, asks(LOG, options=options, **wanted))
        assert isinstance(subscription, LoggedSubscription)
        self.nursery.start_soon(subscription.run, self.hub.log, self.hub.feed.position)
        return reader


@pytest.fixture
async def room(nursery: trio.Nursery) -> Room:
    room = Room(nursery)
    await nursery.start(room.hub.feed.run)
    return room


def told(messages: list[dict[str, Any]]) -> list[object]:
    return [message["data"]["n"] for message in messages if message["kind"] == "event_telescope_log"]


def chain_holds(messages: list[dict[str, Any]]) -> bool:
    return all(after["prev"] == before["position"] for before, after in itertools.pairwise(messages))


async def test_it_begins_now_unless_told_otherwise(room: Room) -> None:
    room.write(1, 2)
    while room.hub.feed.head < 2:
        await trio.lowlevel.checkpoint()
    reader = room.reader()
    (live,) = await reader.until_live()
    room.write(3)
    assert live["position"] == "l2"
    assert told(await reader.read(1)) == [3]


async def test_the_earliest_that_is_kept_can_be_asked_for(room: Room) -> None:
    room.write(*range(1_200))
    while room.hub.feed.head < 1_200:
        await trio.lowlevel.checkpoint()
    everything = await room.reader(options={"after": "earliest"}).until_live()
    assert told(everything) == list(range(1_200))
    assert chain_holds(everything)


async def test_replay_and_news_meet_without_a_hole_or_a_repetition(room: Room) -> None:
    room.write(*range(1_000))
    while room.hub.feed.head < 1_000:
        await trio.lowlevel.checkpoint()
    reader = room.reader(options={"after": "l400"})
    messages: list[dict[str, Any]] = []
    for number in range(1_000, 1_400):
        room.write(number)
        messages += await reader.read(1)
        await trio.lowlevel.checkpoint()
    while told(messages)[-1] != 1_399:
        messages += await reader.read(1)
    assert told(messages) == list(range(400, 1_400))
    assert chain_holds(messages)


async def test_only_what_the_filter_wants_is_told_and_a_quiet_reader_resumes_from_the_head(
    room: Room, autojump_clock: Clock
) -> None:
    here, elsewhere = Site(), Site()
    reader = room.reader(telescope_uid=here.telescope_uid)
    await reader.until_live()
    room.write(1, 2, telescope_uid=elsewhere.telescope_uid)
    (beat,) = await reader.read(1)
    assert (beat["kind"], beat["position"]) == ("event_live", "l2")
    room.write(3, telescope_uid=here.telescope_uid)
    assert told(await reader.read(1)) == [3]


async def test_a_declared_gap_is_told_to_every_stream_of_its_node(room: Room) -> None:
    install_id = InstallId(Site().install_id)
    mine, others = room.reader(install_id=install_id), room.reader(install_id=Site().install_id)
    for reader in (mine, others):
        await reader.until_live()
    room.log.append(an_event(None, '{"count":7}', install_id=install_id, missing=7))
    room.write(1, install_id=install_id)
    gap, event = await mine.read(2)
    assert (gap["kind"], gap["count"], gap["reason"]) == ("event_gap", 7, "declared_by_node")
    assert gap["install_id"] == str(install_id)
    assert chain_holds([gap, event])
    others.outlet.close()


@pytest.mark.parametrize("stream", [LOG, None], ids=["of this stream", "of nobody knows which"])
async def test_what_was_never_taken_is_told_as_that_and_not_as_declared(room: Room, stream: StreamName | None) -> None:
    reader = room.reader()
    await reader.until_live()
    never = an_event(stream, kind=LogKind.GAP, install_id=Site().install_id, missing=1, nacked="no data")
    room.log.append(never)
    room.hub.feed.poke()
    (gap,) = await reader.read(1)
    assert (gap["kind"], gap["count"], gap["reason"]) == ("event_gap", 1, "never_taken")


async def test_who_was_told_nothing_yet_resumes_from_where_it_began(
    room: Room, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    monkeypatch.setattr(room_of_subscriptions, "MAX_WAITING_BYTES", 1_000)
    room.write(1, 2)
    while room.hub.feed.head < 2:
        await trio.lowlevel.checkpoint()
    reader = room.reader()
    await trio.sleep(1)
    room.write(3, 4, 5, 6, 7)
    await trio.sleep(1)
    (ended,) = await reader.read(1)
    assert (ended["reason"], ended["position"]) == ("slow_consumer", "l2")


async def test_resuming_before_what_is_still_kept_begins_with_a_gap(room: Room) -> None:
    room.write(*range(10))
    while room.hub.feed.head < 10:
        await trio.lowlevel.checkpoint()
    room.log.drop(6)
    resumed = await room.reader(options={"after": "l2"}).until_live()
    assert (resumed[0]["kind"], resumed[0]["reason"], resumed[0]["to"]) == ("event_gap", "no_longer_kept", "l6")
    assert told(resumed) == [6, 7, 8, 9]
    assert chain_holds(resumed)


async def test_what_is_dropped_while_it_is_replayed_is_told_as_a_gap(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room_of_subscriptions, "MAX_WAITING_BYTES", 4_000)
    room.write(*range(1, 1_501))
    while room.hub.feed.head < 1_500:
        await trio.lowlevel.checkpoint()
    reader = room.reader(options={"after": "earliest"})
    begun = await reader.read(1)
    room.log.drop(1_400)
    messages = begun + await reader.until_live()
    (gap,) = [message for message in messages if message["kind"] == "event_gap"]
    assert (gap["reason"], gap["position"]) == ("no_longer_kept", "l1400")
    assert told(messages)[-100:] == list(range(1_401, 1_501))
    assert told(messages)[:-100] == list(range(1, len(told(messages)) - 99))
    assert chain_holds(messages)


async def test_a_log_that_went_back_to_a_backup_goes_on_behind_a_gap_and_nothing_new_is_lost(
    room: Room, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    room.write(1, 2, 3, 4)
    while room.hub.feed.head < 4:
        await trio.lowlevel.checkpoint()
    reader = room.reader()
    (live,) = await reader.until_live()
    room.log.go_back(2)
    room.write(10)
    (gap,) = await reader.read(1)
    room.write(11, 12)
    news = await reader.read(2)
    assert (gap["kind"], gap["reason"], gap["from"], gap["to"]) == ("event_gap", "no_longer_kept", "l4", "l5")
    assert told(news) == [11, 12]
    assert chain_holds([live, gap, *news])
    assert "the log went back" in caplog.text


async def test_a_reader_that_does_not_keep_up_ends_with_the_position_to_resume_from(
    room: Room, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(room_of_subscriptions, "MAX_WAITING_BYTES", 4_000)
    slow, quick = room.reader(), room.reader()
    for reader in (slow, quick):
        await reader.until_live()
    room.write(0)
    (first,) = await slow.read(1)
    seen = told(await quick.read(1))
    for number in range(1, 30):
        room.write(number)
        seen += told(await quick.read(1))
    (ended,) = await slow.read(1)
    assert (ended["kind"], ended["reason"], ended["position"]) == (
        "event_subscription_ended",
        "slow_consumer",
        first["position"],
    )
    assert seen == list(range(30))
    resumed = await room.reader(options={"after": ended["position"]}).until_live()
    assert told(resumed) == list(range(1, 30))
    said = [record for record in caplog.records if record.message == "subscriber does not keep up"]
    assert len(said) == 1
    assert len(slow.outlet) == 0


async def test_a_burst_larger_than_what_may_wait_ends_nobody_who_reads(room: Room) -> None:
    quick, stuck = room.reader(), room.reader()
    for reader in (quick, stuck):
        await reader.until_live()
    numbers = list(range(3 * room_of_subscriptions.MAX_WAITING_BYTES // 10_000))
    room.log.append(*(an_event(LOG, f'{{"n":{number},"x":"{"x" * 10_000}"}}') for number in numbers))
    room.hub.feed.poke()
    assert told(await quick.read(len(numbers))) == numbers
    assert [message["kind"] for message in await stuck.read(1)] == ["event_subscription_ended"]


async def test_a_replay_waits_for_its_reader_and_holds_no_more_than_its_share(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room_of_subscriptions, "MAX_WAITING_BYTES", 8_000)
    room.write(*range(400))
    while room.hub.feed.head < 400:
        await trio.lowlevel.checkpoint()
    reader = room.reader(options={"after": "earliest"})
    for _ in range(200):
        await trio.lowlevel.checkpoint()
    subscription = reader.outlet.find("mine")
    assert isinstance(subscription, LoggedSubscription)
    assert 0 < subscription.waiting_bytes <= 8_000
    assert told(await reader.until_live()) == list(range(400))


async def test_a_database_that_is_away_delays_and_loses_nothing(room: Room, autojump_clock: Clock) -> None:
    reader = room.reader()
    await reader.until_live()
    room.log.away = True
    room.write(1)
    resuming = room.reader(options={"after": "l0"})
    await trio.sleep(30)
    room.log.away = False
    assert told(await reader_without_beats(reader, 1)) == [1]
    assert told(await resuming.until_live()) == [1]


async def reader_without_beats(reader: Reader, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while len(found) < count:
        found += [message for message in await reader.read(1) if message["kind"] != "event_live"]
    return found


@pytest.mark.parametrize("after", ["s12", "12", "l", "l-1", "l1x", "l9", "", "l" + "1" * 19])
async def test_a_position_of_another_stream_or_log_is_refused(room: Room, after: str) -> None:
    with pytest.raises(Invalid):
        room.hub.subscribe(Reader().outlet, asks(LOG, options={"after": after}))


@pytest.mark.parametrize("options", [{"max_rate_hz": 1.0}, {"fields": ["n"]}])
async def test_what_only_values_can_do_is_refused_for_events(room: Room, options: object) -> None:
    with pytest.raises(Invalid, match="retained streams"):
        room.hub.subscribe(Reader().outlet, asks(LOG, options=options))


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"after": 7}, {}),
        ({"max_rate_hz": 0}, {}),
        ({"max_rate_hz": 1e9}, {}),
        ({"everything": True}, {}),
        (None, {"telescope": "x"}),
        (None, {"telescope_uid": "x"}),
        (None, {"telescope_uid": [Site().telescope_uid] * 1_001}),
    ],
)
async def test_what_cannot_be_meant_is_refused(room: Room, options: object, wanted: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        room.hub.subscribe(Reader().outlet, asks(StreamName.DEVICE_SNAPSHOT, options=options, **wanted))


async def test_a_socket_has_so_many_subscriptions_and_no_more(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader()
    for number in range(outlet_room.MAX_SUBSCRIPTIONS):
        room.hub.subscribe(reader.outlet, asks(StreamName.DEVICE_SNAPSHOT, str(number)))
    with pytest.raises(Busy, match="256"):
        room.hub.subscribe(reader.outlet, asks(StreamName.DEVICE_SNAPSHOT, "one more"))
    with pytest.raises(Invalid, match="in use"):
        room.hub.subscribe(reader.outlet, asks(StreamName.DEVICE_SNAPSHOT, "7"))
    reader.outlet.close()
    assert len(reader.outlet) == 0


async def test_nothing_is_read_any_more_for_who_has_left(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    room.write(1)
    while room.hub.feed.head < 1:
        await trio.lowlevel.checkpoint()
    asked: list[object] = []

    async def hang(*about: object, **also: object) -> list[Any]:
        asked.append(about)
        await trio.sleep_forever()
        return []

    monkeypatch.setattr(room.log, "page", hang)
    reader = Reader()
    with trio.fail_after(30):
        async with trio.open_nursery() as replays:
            for name in ("one", "other"):
                subscription = room.hub.subscribe(reader.outlet, asks(LOG, name, options={"after": "earliest"}))
                assert isinstance(subscription, LoggedSubscription)
                replays.start_soon(subscription.run, room.hub.log, room.hub.feed.position)
            await trio.testing.wait_all_tasks_blocked()
            reader.outlet.remove("other")
            reader.outlet.remove("one")
    assert len(asked) == 1


async def test_who_left_is_not_fed(room: Room) -> None:
    reader = room.reader()
    await reader.until_live()
    subscription = reader.outlet.find("mine")
    assert isinstance(subscription, LoggedSubscription)
    reader.outlet.close()
    room.write(1)
    while room.hub.feed.head < 1:
        await trio.lowlevel.checkpoint()
    assert subscription.waiting_bytes == 0
