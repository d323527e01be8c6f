"""Latest values are written through, a set and never a queue, and taken back as what they are: of before."""

import logging
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
import trio
from trio.abc import Clock

from skygw.ids import Epoch
from skygw.protocol.streams import StaleReason, StreamName
from skygw.telemetry import kept_values as room
from skygw.telemetry.hub import StreamHub
from skygw.telemetry.kept_values import FLUSH_EVERY_S, TRY_AGAIN_S, KeptValues, restore
from skygw.telemetry.value import Value
from tests.fakes.memory_log import MemoryLog
from tests.fakes.memory_values import MemoryDirectory, MemoryValues
from tests.fakes.moments import NOW
from tests.fakes.telemetry_rooms import Goodbye, Reader, Session, Site, asks, snapshot

DEVICE = StreamName.DEVICE_SNAPSHOT


class Room:
    """A gateway's hub over a store, and a site with a mount."""

    def __init__(self, store: MemoryValues, site: Site, *, era: int = 1) -> None:
        self.store = store
        self.hub = StreamHub(era=era, log=MemoryLog())
        self.kept = KeptValues(store)
        self.hub.watch(self.kept)
        self.site = site
        self.seq = 0

    def say(self, uid: UUID, *, epoch: int = 1, max_silence_s: float | None = None, **data: Any) -> None:
        self.seq += 1
        frame = snapshot(uid, self.seq, max_silence_s=max_silence_s, **data)
        assert self.hub.retained.offer(self.site, Epoch(epoch), frame) is None

    def text(self, uid: UUID, stream: StreamName = DEVICE) -> str | None:
        row = self.store.rows.get((stream, str(uid)))
        return None if row is None else row.data

    def held(self, uid: UUID, stream: StreamName = DEVICE) -> Value | None:
        return self.hub.retained.find(stream, uid)

    async def after_a_restart(self, *sites: Site) -> "Room":
        """The hub of the next process, when it has begun."""
        following = Room(self.store, self.site, era=self.hub.versions.era + 1)
        await restore(
            self.store,
            MemoryDirectory(*(sites or (self.site,))),
            following.hub.retained,
            known=following.hub.instruments.know,
        )
        following.hub.presence.resume()
        return following


@pytest.fixture
async def gateway() -> Room:
    return Room(MemoryValues(), Site())


async def test_what_is_said_is_written_within_a_second_and_only_the_newest(
    gateway: Room, autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    nursery.start_soon(gateway.kept.run)
    mount = gateway.site.device()
    for number in range(10):
        gateway.say(mount, n=number)
        await trio.sleep(FLUSH_EVERY_S / 10)
    await trio.sleep(FLUSH_EVERY_S)
    assert gateway.text(mount) == f'{{"uid":"{mount}","n":9}}'
    assert len(gateway.store.statements) <= 2


async def test_the_same_bytes_said_again_are_written_as_younger(
    gateway: Room, autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    nursery.start_soon(gateway.kept.run)
    mount = gateway.site.device()
    gateway.say(mount)
    await trio.sleep(10)
    gateway.say(mount)
    await trio.sleep(FLUSH_EVERY_S * 1.5)
    (row,) = gateway.store.rows.values()
    assert row.order == (1, 2)
    assert row.age_s <= FLUSH_EVERY_S


async def test_while_nothing_is_said_nothing_is_written(
    gateway: Room, autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    nursery.start_soon(gateway.kept.run)
    gateway.say(gateway.site.device(), max_silence_s=5.0)
    nursery.start_soon(gateway.hub.freshness.run)
    await trio.sleep(60)
    assert gateway.store.statements == [1]  # becoming stale is no news of the resource


async def test_a_database_that_is_away_is_owed_the_newest_of_each_and_no_more(
    gateway: Room, autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    nursery.start_soon(gateway.kept.run)
    gateway.store.away = True
    uids = [gateway.site.device() for _ in range(3)]
    for number in range(100):
        for uid in uids:
            gateway.say(uid, n=number)
        await trio.sleep(0.1)
    await trio.sleep(5)
    waiting = len(gateway.kept)
    gateway.store.away = False
    await trio.sleep(5)
    assert waiting == 3
    assert [gateway.text(uid) for uid in uids] == [f'{{"uid":"{uid}","n":99}}' for uid in uids]


async def test_a_value_the_database_cannot_hold_is_set_aside_once_and_keeps_nobody_out(
    gateway: Room, autojump_clock: Clock, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    gateway.store.unstorable = "poison"
    nursery.start_soon(gateway.kept.run)
    uids = [gateway.site.device() for _ in range(9)]
    for number in range(5):
        for uid in uids:
            gateway.say(uid, n=number, text="poison" if uid == uids[4] else "")
        await trio.sleep(FLUSH_EVERY_S * 1.5)
    await trio.sleep(2 * TRY_AGAIN_S)
    written = [gateway.text(uid) is not None for uid in uids]
    gateway.say(uids[4], n=5, text="sound again")
    await trio.sleep(TRY_AGAIN_S + 5)
    assert written == [uid != uids[4] for uid in uids]
    errors = [vars(record)["uid"] for record in caplog.records if record.levelno >= logging.ERROR]
    assert errors == [str(uids[4])]
    assert "sound again" in (gateway.text(uids[4]) or "")


async def test_what_is_unwritten_when_the_gateway_ends_is_written_then(gateway: Room, autojump_clock: Clock) -> None:
    mount = gateway.site.device()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gateway.kept.run)
        await trio.sleep(0.1)
        gateway.say(mount, n=1)
        nursery.cancel_scope.cancel()
    assert gateway.text(mount) is not None


async def test_many_values_are_several_statements_bounded_by_number_and_by_size(
    gateway: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "AT_ONCE", 4)
    monkeypatch.setattr(room, "CHARACTERS_AT_ONCE", 1_000)
    for _ in range(6):
        gateway.say(gateway.site.device())
    await gateway.kept.flush()
    for _ in range(3):
        gateway.say(gateway.site.device(), text="x" * 600)
    await gateway.kept.flush()
    assert gateway.store.statements == [4, 2, 1, 1, 1]


async def test_a_resource_that_moved_while_the_database_was_away_is_written_once_and_for_its_new_owner(
    gateway: Room,
) -> None:
    mount, after = gateway.site.device(), Site()
    gateway.say(mount, epoch=900, at="before")
    after.resources[mount] = replace(gateway.site.resources[mount], install_id=after.install_id)
    gateway.hub.retained.offer(after, Epoch(1), snapshot(mount, 1, at="after"))
    await gateway.kept.flush()
    (row,) = gateway.store.rows.values()
    assert (row.install_id, "after" in row.data) == (after.install_id, True)


async def test_after_a_restart_everything_is_there_and_says_that_it_is_of_before(
    gateway: Room, autojump_clock: Clock
) -> None:
    mount = gateway.site.device()
    gateway.hub.session_began(Session(gateway.site, Epoch(3)))
    gateway.say(mount, epoch=3, max_silence_s=30.0, n=1)
    await gateway.kept.flush()
    gateway.say(mount, epoch=3, n=2)  # not written: lost, and announced
    following = await gateway.after_a_restart()
    reader = Reader()
    following.hub.subscribe(reader.outlet, asks(DEVICE))
    (told, _) = await reader.until_live()
    presence = following.held(gateway.site.install_id, StreamName.NODE_PRESENCE)
    assert (told["data"]["n"], told["stale"], told["max_silence_s"]) == (1, "gateway_restarted", 30.0)
    assert presence is not None
    assert '"state":"uncertain"' in presence.data
    following.say(mount, epoch=4, n=2)
    (fresh,) = await reader.read(1)
    assert (fresh["data"]["n"], "stale" in fresh) == (2, False)


async def test_who_resumes_after_a_restart_is_told_that_what_it_holds_is_stale(
    gateway: Room, autojump_clock: Clock
) -> None:
    gateway.say(gateway.site.device(), n=1)
    reader = Reader()
    gateway.hub.subscribe(reader.outlet, asks(DEVICE))
    position = (await reader.until_live())[-1]["position"]
    await gateway.kept.flush()
    following = await gateway.after_a_restart()
    again = Reader()
    following.hub.subscribe(again.outlet, asks(DEVICE, options={"after": position}))
    messages = await again.until_live()
    assert [message["kind"] for message in messages] == ["event_gap", "event_device_snapshot", "event_live"]
    assert messages[1]["stale"] == "gateway_restarted"


async def test_what_the_hub_no_longer_knows_is_not_taken_back(gateway: Room) -> None:
    other = Site()
    kept, gone, elsewhere = gateway.site.device(), gateway.site.device(), other.device()
    gateway.say(kept)
    gateway.say(gone)
    gateway.hub.retained.offer(other, Epoch(1), snapshot(elsewhere, 1))
    await gateway.kept.flush()
    del gateway.site.resources[gone]
    following = await gateway.after_a_restart(gateway.site)
    assert [following.held(uid) is not None for uid in (kept, gone, elsewhere)] == [True, False, False]


async def test_an_instrument_is_taken_back_by_its_devices_and_not_written(gateway: Room) -> None:
    camera = gateway.site.device("camera")
    imager = gateway.site.instrument(camera)
    gateway.hub.session_began(Session(gateway.site, Epoch(1)))
    gateway.say(camera, n=1)
    reader = Reader()
    gateway.hub.subscribe(reader.outlet, asks(StreamName.INSTRUMENT_SNAPSHOT))
    await reader.until_live()
    await gateway.kept.flush()
    following = await gateway.after_a_restart()
    again = Reader()
    following.hub.subscribe(again.outlet, asks(StreamName.INSTRUMENT_SNAPSHOT))
    (told, _) = await again.until_live()
    assert {stream for stream, _ in gateway.store.rows} == {"device_snapshot", "node_presence"}
    assert (told["data"]["uid"], told["stale"]) == (str(imager), "gateway_restarted")


async def test_a_lease_is_not_written_because_its_own_table_knows_better(gateway: Room) -> None:
    telescope = gateway.site.resources[gateway.site.telescope()]
    gateway.hub.retained.say(StreamName.MANUAL_CONTROL_LEASE, telescope, '{"state":"held"}', order=(1, 1))
    await gateway.kept.flush()
    assert "manual_control_lease" not in {stream for stream, _ in gateway.store.rows}


async def test_who_said_goodbye_late_before_a_restart_is_not_taken_for_the_newer_session(gateway: Room) -> None:
    old = Session(gateway.site, Epoch(1))
    gateway.hub.session_began(old)
    await gateway.kept.flush()
    gateway.hub.session_began(Session(gateway.site, Epoch(2)))
    gateway.hub.session_ended(old, Goodbye())
    await gateway.kept.flush()
    (row,) = gateway.store.rows.values()
    assert row.order == (2, 0)
    assert '"state":"online"' in row.data


async def test_restored_values_are_as_old_as_they_are(gateway: Room, autojump_clock: Clock) -> None:
    mount = gateway.site.device()
    gateway.say(mount)
    await gateway.kept.flush()
    key = (str(DEVICE), str(mount))
    gateway.store.rows[key] = gateway.store.rows[key]._replace(age_s=500.0, received_at=NOW)
    following = await gateway.after_a_restart()
    value = following.held(mount)
    assert value is not None
    assert trio.current_time() - value.heard_at == pytest.approx(500.0)
    assert (value.received_at, value.stale) == (NOW, StaleReason.GATEWAY_RESTARTED)


async def test_a_value_of_an_age_that_nobody_knows_is_not_taken_for_a_young_one(
    gateway: Room, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    mount, camera = gateway.site.device(), gateway.site.device("camera")
    gateway.say(mount)
    gateway.say(camera)
    await gateway.kept.flush()
    for uid, age_s in ((mount, -3_600.0), (camera, -0.5)):
        key = (str(DEVICE), str(uid))
        gateway.store.rows[key] = gateway.store.rows[key]._replace(age_s=age_s)
    following = await gateway.after_a_restart()
    of_any_age, young = following.held(mount), following.held(camera)
    assert of_any_age is not None
    assert young is not None
    assert trio.current_time() - of_any_age.heard_at > 86_400
    assert young.heard_at == trio.current_time()
    assert "the database's clock went back" in caplog.text
