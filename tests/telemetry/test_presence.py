"""Who is here is a stream: in the order of epochs, and uncertain for as long as nobody can know."""

import json
from typing import Any

import pytest
import trio
from trio.abc import Clock

from skygw.ids import Epoch
from skygw.protocol.close_codes import CloseCode
from skygw.protocol.streams import StreamName
from skygw.telemetry.hub import StreamHub
from skygw.telemetry.presence import RETURN_GRACE_S, installation_resource
from skygw.telemetry.value import Value
from tests.fakes.memory_log import MemoryLog
from tests.fakes.moments import NOW
from tests.fakes.telemetry_rooms import Goodbye, Reader, Session, Site, asks

PRESENCE = StreamName.NODE_PRESENCE
HEARTBEAT_S = 10.0


class Room:
    """A hub and an installation."""

    def __init__(self) -> None:
        self.hub = StreamHub(era=1, log=MemoryLog(), heartbeat_s=HEARTBEAT_S)
        self.site = Site()

    def begins(self, epoch: int) -> Session:
        session = Session(self.site, Epoch(epoch))
        self.hub.session_began(session)
        return session

    def ends(self, session: Session, **goodbye: Any) -> None:
        self.hub.session_ended(session, Goodbye(**goodbye))

    @property
    def value(self) -> Value:
        found = self.hub.retained.find(PRESENCE, self.site.install_id)
        assert found is not None
        return found

    @property
    def said(self) -> dict[str, Any]:
        return dict(json.loads(self.value.data))

    @property
    def state(self) -> tuple[str, int]:
        return self.said["state"], self.said["epoch"]

    def restore(self, state: str, *, epoch: int = 4, step: int = 2) -> None:
        """As the gateway before had left it."""
        said = {"uid": str(self.site.install_id), "name": "North dome", "state": state, "epoch": epoch, "since": "then"}
        self.hub.retained.restore(
            PRESENCE,
            installation_resource(self.site),
            data=json.dumps({**said, "last_seen": "then", "address": "192.0.2.7", "code": 4001}),
            observed_at=NOW,
            received_at=NOW,
            max_silence_s=None,
            order=(epoch, step),
            age_s=3.0,
        )


@pytest.fixture
async def room() -> Room:
    return Room()


async def test_who_comes_is_online_and_who_leaves_is_offline_with_the_reason(room: Room) -> None:
    session = room.begins(1)
    came = room.said
    room.ends(session, code=4002, reason="nothing came for 25 s", by_node=False)
    left = room.said
    assert (came["uid"], came["name"], came["state"], came["epoch"]) == (
        str(room.site.install_id),
        "North dome",
        "online",
        1,
    )
    assert (came["address"], came["software_version"]) == ("192.0.2.7", "1.2.3")
    assert not {"code", "reason"} & came.keys()
    assert (left["state"], left["code"], left["reason"]) == ("offline", 4002, "nothing came for 25 s")
    assert came["last_seen"] <= left["last_seen"] <= left["since"]


async def test_the_late_goodbye_of_an_old_session_changes_nothing(room: Room) -> None:
    old = room.begins(1)
    new = room.begins(2)
    room.ends(old, code=4501, reason="superseded", by_node=False)
    assert room.state == ("online", 2)
    assert room.hub.presence.is_here(room.site.install_id)
    room.ends(new)
    assert room.state == ("offline", 2)
    assert not room.hub.presence.is_here(room.site.install_id)


async def test_what_is_said_of_an_older_epoch_is_passed_over_by_its_order(room: Room) -> None:
    room.restore("offline", epoch=7)
    room.hub.presence.resume()
    room.begins(3)  # of a gateway that does not know yet that it was left
    assert room.state == ("offline", 7)


async def test_a_subscriber_is_told_who_is_here_and_every_change(room: Room) -> None:
    session = room.begins(1)
    reader = Reader()
    room.hub.subscribe(reader.outlet, asks(PRESENCE, install_id=room.site.install_id))
    existing = await reader.until_live()
    room.ends(session)
    (left,) = await reader.read(1)
    assert [existing[0]["data"]["state"], left["data"]["state"]] == ["online", "offline"]
    assert "stale" not in left


async def test_a_node_that_is_silent_and_not_given_up_is_uncertain_until_it_is_heard(
    room: Room, autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    await nursery.start(room.hub.run)
    session = room.begins(1)
    await trio.sleep(1.5 * HEARTBEAT_S - 1)
    assert room.state == ("online", 1)
    await trio.sleep(2.5)
    assert (room.state, room.said["reason"]) == (("uncertain", 1), "silent")
    assert room.hub.presence.is_here(room.site.install_id)
    session.last_received_at = trio.current_time()
    await trio.sleep(1.5)
    assert room.state == ("online", 1)
    assert "reason" not in room.said
    await trio.sleep(30)
    room.ends(session, code=4002)
    assert room.state == ("offline", 1)


@pytest.mark.parametrize("before", ["online", "uncertain"])
async def test_after_a_restart_it_is_uncertain_who_is_here_until_they_come(room: Room, before: str) -> None:
    room.restore(before)
    room.hub.presence.resume()
    assert (room.state, room.said["reason"]) == (("uncertain", 4), "gateway_restarted")
    assert (room.said["last_seen"], room.value.stale) == ("then", None)
    assert "code" not in room.said
    room.begins(5)
    assert room.state == ("online", 5)


async def test_who_does_not_come_back_after_a_restart_is_offline_when_the_grace_is_over(
    room: Room, autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    await nursery.start(room.hub.run)
    room.restore("online")
    room.hub.presence.resume()
    await trio.sleep(RETURN_GRACE_S - 1)
    assert room.state == ("uncertain", 4)
    await trio.sleep(2.5)
    assert room.state == ("offline", 4)
    assert "did not come back" in room.said["reason"]


async def test_who_came_back_within_the_grace_stays_online(
    room: Room, autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    await nursery.start(room.hub.run)
    room.restore("online")
    room.hub.presence.resume()
    session = room.begins(5)
    for _ in range(10):
        await trio.sleep(5)
        session.last_received_at = trio.current_time()
    assert room.state == ("online", 5)


async def test_who_was_away_before_a_restart_is_away_after_it(room: Room) -> None:
    room.restore("offline")
    room.hub.presence.resume()
    assert (room.state, room.value.stale, room.said["since"]) == (("offline", 4), None, "then")


@pytest.mark.parametrize("code", [CloseCode.DRAINING, None])
async def test_a_gateway_that_ends_leaves_open_whether_its_nodes_are_there(room: Room, code: int | None) -> None:
    session = room.begins(1)
    room.ends(session, code=code, reason="the gateway ends", by_node=False)
    assert room.state == ("uncertain", 1)


async def test_a_node_of_a_telescope_is_found_by_it_and_one_of_an_observatory_is_not() -> None:
    telescope, observatory = Site(), Site(telescope_uid=None)
    assert installation_resource(telescope).telescope_uid == telescope.telescope_uid
    assert installation_resource(observatory).telescope_uid is None
