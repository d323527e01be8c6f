"""An instrument is its devices: put together when somebody listens, as fresh as the oldest of them."""

import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import trio
import trio.testing
from trio.abc import Clock

from skygw.ids import Epoch
from skygw.protocol.json_text import Opaque
from skygw.protocol.streams import StaleReason, StreamName
from skygw.telemetry.hub import StreamHub
from skygw.telemetry.value import Value
from tests.fakes.memory_log import MemoryLog
from tests.fakes.moments import NOW
from tests.fakes.telemetry_rooms import Goodbye, Reader, Session, Site, asks, snapshot

INSTRUMENT = StreamName.INSTRUMENT_SNAPSHOT


class Room:
    """A hub that runs, and a site with an imager made of a camera and a filter wheel, and a mount besides."""

    def __init__(self) -> None:
        self.hub = StreamHub(era=1, log=MemoryLog())
        self.site = Site()
        self.camera, self.wheel, self.mount = (self.site.device(kind) for kind in ("camera", "filter_wheel", "mount"))
        self.imager = self.site.instrument(self.camera, self.wheel)
        self.session = Session(self.site, Epoch(1))
        self.hub.session_began(self.session)
        self.seq = 0

    def say(self, uid: UUID, *, observed_s: float = 0.0, max_silence_s: float | None = None, **data: Any) -> None:
        self.seq += 1
        frame = snapshot(uid, self.seq, max_silence_s=max_silence_s, **data)
        frame = frame.model_copy(update={"observed_at": NOW + timedelta(seconds=observed_s)})
        assert self.hub.retained.offer(self.site, Epoch(1), frame) is None

    def reader(self, **wanted: Any) -> Reader:
        reader = Reader()
        self.hub.subscribe(reader.outlet, asks(INSTRUMENT, **wanted))
        return reader

    @property
    def value(self) -> Value | None:
        return self.hub.retained.find(INSTRUMENT, self.imager)


def devices(message: dict[str, Any]) -> dict[str, int]:
    return {uid: data["n"] for uid, data in message["data"]["devices"].items()}


@pytest.fixture
async def room(nursery: trio.Nursery) -> Room:
    room = Room()
    await nursery.start(room.hub.run)
    return room


async def test_a_subscriber_gets_the_instrument_as_its_devices_are_and_then_each_change(room: Room) -> None:
    room.say(room.camera, n=1)
    room.say(room.wheel, n=2)
    reader = room.reader(telescope_uid=room.site.telescope_uid)
    existing = await reader.until_live()
    room.say(room.wheel, n=3)
    (changed,) = await reader.read(1)
    assert [message["kind"] for message in existing] == ["event_instrument_snapshot", "event_live"]
    assert existing[0]["data"]["uid"] == str(room.imager)
    assert devices(existing[0]) == {str(room.camera): 1, str(room.wheel): 2}
    assert devices(changed) == {str(room.camera): 1, str(room.wheel): 3}


async def test_an_instrument_is_found_by_the_devices_it_is_made_of(room: Room) -> None:
    room.say(room.camera, n=1)
    with_it, without = room.reader(device_uid=room.wheel), room.reader(device_uid=room.mount)
    assert len(await with_it.until_live()) == 2
    assert len(await without.until_live()) == 1


async def test_what_devices_said_is_carried_byte_for_byte(room: Room) -> None:
    text = f'{{ "uid" : "{room.camera}", "t": -10.000000000000001, "name": "\\u00e9" }}'
    frame = snapshot(room.camera, 1).model_copy(update={"data": Opaque(text, {"uid": str(room.camera)})})
    room.hub.retained.offer(room.site, Epoch(1), frame)
    reader = room.reader()
    (message,) = await reader.outlet.next_texts(at_most=1)
    assert message.endswith(f'"data":{{"uid":"{room.imager}","devices":{{"{room.camera}":{text}}}}}}}')


async def test_while_nobody_listens_nothing_is_put_together(room: Room, autojump_clock: Clock) -> None:
    elsewhere = room.reader(telescope_uid=Site().telescope_uid)
    await elsewhere.until_live()
    for number in range(10):
        room.say(room.camera, n=number)
    await trio.sleep(1)
    assert room.value is None


async def test_devices_said_together_are_one_change_of_their_instrument(room: Room, autojump_clock: Clock) -> None:
    reader = room.reader(options={"include_existing": False})
    await reader.until_live()
    room.say(room.camera, n=1)
    room.say(room.wheel, n=2)
    room.say(room.camera, n=3)
    (message,) = await reader.read(1)
    await trio.sleep(1)
    assert devices(message) == {str(room.camera): 3, str(room.wheel): 2}
    assert room.value is not None
    assert room.value.order == (0, 1)


async def test_an_instrument_is_as_old_as_the_oldest_of_its_devices_and_as_bound(room: Room) -> None:
    room.say(room.camera, observed_s=10, max_silence_s=30.0, n=1)
    room.say(room.wheel, observed_s=5, max_silence_s=60.0, n=1)
    reader = room.reader(options={"include_unchanged": True})
    (message, _) = await reader.until_live()
    assert (message["observed_at"], message["max_silence_s"]) == ("2026-07-01T03:00:05Z", 30.0)
    room.say(room.wheel, observed_s=20, max_silence_s=20.0, n=1)  # the same bytes, and younger
    (message,) = await reader.read(1)
    assert (message["observed_at"], message["max_silence_s"]) == ("2026-07-01T03:00:10Z", 20.0)


async def test_an_instrument_with_a_stale_device_is_stale_for_its_reason_until_it_is_said(
    room: Room, autojump_clock: Clock
) -> None:
    room.say(room.camera, n=1)
    room.say(room.wheel, max_silence_s=5.0, n=2)
    reader = room.reader()
    await reader.until_live()
    (silent,) = await reader.read(1)
    room.say(room.camera, n=3)
    (changed,) = await reader.read(1)
    room.say(room.wheel, max_silence_s=5.0, n=2)
    (fresh,) = await reader.read(1)
    assert (silent["kind"], silent["uid"], silent["reason"]) == ("event_stale", str(room.imager), "silent")
    assert (changed["stale"], devices(changed)[str(room.camera)]) == ("silent", 3)
    assert "stale" not in fresh


async def test_an_instrument_of_a_node_that_left_is_stale(room: Room) -> None:
    room.say(room.camera, n=1)
    reader = room.reader()
    await reader.until_live()
    room.hub.session_ended(room.session, Goodbye())
    (message,) = await reader.read(1)
    assert (message["kind"], message["reason"]) == ("event_stale", "node_offline")


async def test_restored_devices_make_a_restored_instrument(room: Room) -> None:
    site = Site()
    camera = site.device("camera")
    imager = site.instrument(camera)
    room.hub.instruments.know(site)
    room.hub.retained.restore(
        StreamName.DEVICE_SNAPSHOT,
        site.resources[camera],
        data=json.dumps({"n": 1}),
        observed_at=NOW,
        received_at=NOW,
        max_silence_s=5.0,
        order=(1, 1),
        age_s=60.0,
    )
    reader = room.reader(install_id=site.install_id)
    (message, _) = await reader.until_live()
    assert (message["data"]["uid"], message["stale"]) == (str(imager), "gateway_restarted")


async def test_an_instrument_that_was_rebuilt_is_made_of_what_the_records_say_now(room: Room) -> None:
    reader = room.reader()
    await reader.until_live()
    del room.site.resources[room.imager]
    rebuilt = room.site.instrument(room.camera)
    room.hub.session_began(Session(room.site, Epoch(2)))
    room.say(room.wheel, n=1)
    room.say(room.camera, n=2)
    (message,) = await reader.read(1)
    assert message["data"]["uid"] == str(rebuilt)
    assert devices(message) == {str(room.camera): 2}
    await trio.testing.wait_all_tasks_blocked()
    assert room.value is None


async def test_an_instrument_the_records_no_longer_have_is_not_the_present(room: Room) -> None:
    room.say(room.camera, n=1)
    reader = room.reader()
    await reader.until_live()
    room.say(room.camera, n=2)  # it is to be put together, and then there is no such instrument
    del room.site.resources[room.imager]
    room.hub.session_began(Session(room.site, Epoch(2)))
    await trio.testing.wait_all_tasks_blocked()
    assert room.value is not None
    assert room.value.stale is StaleReason.SILENT
