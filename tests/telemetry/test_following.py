"""What a node is shown of others: what its graph lets it see, each value with its age, the newest first."""

import json
from typing import Any
from uuid import uuid4

import pytest
import trio
from trio.abc import Clock

from skygw.errors import Invalid
from skygw.ids import Epoch
from skygw.protocol.codec import BadFrame, from_gateway
from skygw.protocol.gateway_frames import EventDeviceSnapshot
from skygw.protocol.node_frames import NodeType
from skygw.protocol.streams import EventLive, StaleReason, StreamName
from skygw.telemetry.following import NodeFollowing, NodeSight
from skygw.telemetry.hub import StreamHub
from tests.fakes.memory_log import MemoryLog
from tests.fakes.telemetry_rooms import Site, asks, snapshot

DEVICE = StreamName.DEVICE_SNAPSHOT


class Observatory:
    """Two telescopes and what they share, each with a device that has said something."""

    def __init__(self) -> None:
        self.hub = StreamHub(era=1, log=MemoryLog())
        self.shared = Site(telescope_uid=None)
        self.here = Site(observatory_uid=self.shared.observatory_uid)
        self.beside = Site(observatory_uid=self.shared.observatory_uid)
        self.abroad = Site(telescope_uid=None)
        self.uids = {}
        for name in ("shared", "here", "beside", "abroad"):
            site = getattr(self, name)
            self.uids[str(site.device())] = name
            self.hub.retained.offer(site, Epoch(1), snapshot(next(iter(site.resources)), 1, max_silence_s=30.0))

    def following(self, node_type: NodeType = NodeType.TELESCOPE) -> NodeFollowing:
        telescope = self.here.telescope_uid
        sight = NodeSight(
            node_type=node_type,
            observatory_uid=self.shared.observatory_uid,
            telescopes=[] if node_type is NodeType.OBSERVATORY or telescope is None else [telescope],
        )
        return NodeFollowing(self.hub, sight, owner="node", t_ms=lambda: 60_000)


async def seen(observatory: Observatory, following: NodeFollowing) -> set[str]:
    following.subscribe(asks(DEVICE))
    found: set[str] = set()
    while True:
        for text in await following.next():
            message = json.loads(text)
            if message["kind"] == "event_live":
                return found
            found.add(observatory.uids[message["uid"]])


async def test_a_telescopes_node_sees_what_is_shared_and_its_own() -> None:
    observatory = Observatory()
    assert await seen(observatory, observatory.following()) == {"shared", "here"}


@pytest.mark.parametrize("data", [{"pad": "x" * 64_400}, {"rows": [0] * 9_970}])
async def test_the_largest_snapshot_is_told_in_a_frame_that_a_node_can_read(data: dict[str, Any]) -> None:
    observatory = Observatory()
    (uid,) = observatory.here.resources
    frame = snapshot(uid, 2, max_silence_s=30.123456789, **data)
    assert observatory.hub.retained.offer(observatory.here, Epoch(1), frame) is None
    following = observatory.following()
    following.subscribe(asks(DEVICE, "s" * 128, device_uid=uid))
    for text in await following.next():
        assert not isinstance(from_gateway.decode(text)[0], BadFrame)


async def test_the_observatorys_node_sees_the_mounts_under_its_roof() -> None:
    observatory = Observatory()
    assert await seen(observatory, observatory.following(NodeType.OBSERVATORY)) == {"shared", "here", "beside"}


async def test_a_filter_for_what_is_elsewhere_shows_nothing_of_it() -> None:
    observatory = Observatory()
    following = observatory.following()
    following.subscribe(asks(DEVICE, observatory_uid=observatory.abroad.observatory_uid))
    (only,) = await following.next()
    assert json.loads(only)["kind"] == "event_live"


async def test_each_value_comes_with_its_age_and_grows_no_younger_while_it_waits(autojump_clock: Clock) -> None:
    observatory = Observatory()
    await trio.sleep(12)
    following = observatory.following()
    following.subscribe(asks(DEVICE, device_uid=next(iter(observatory.shared.resources))))
    await trio.sleep(3)
    event, live = [read for text in await following.next() for read in from_gateway.decode(text)]
    assert not isinstance(event, BadFrame)
    assert isinstance(event.frame, EventDeviceSnapshot)
    assert (event.frame.age_ms, event.frame.t_ms, event.frame.max_silence_s) == (15_000, 60_000, 30.0)
    assert not isinstance(live, BadFrame)
    assert isinstance(live.frame, EventLive)


async def test_what_became_stale_is_said_again_with_the_reason() -> None:
    observatory = Observatory()
    following = observatory.following()
    await seen(observatory, following)
    value = observatory.hub.retained.find(DEVICE, next(iter(observatory.shared.resources)))
    assert value is not None
    observatory.hub.retained.mark_stale(value, StaleReason.NODE_OFFLINE)
    (text,) = await following.next()
    (read,) = from_gateway.decode(text)
    assert not isinstance(read, BadFrame)
    assert isinstance(read.frame, EventDeviceSnapshot)
    assert read.frame.stale is StaleReason.NODE_OFFLINE


@pytest.mark.parametrize("stream", [StreamName.TELESCOPE_LOG, StreamName.NODE_PRESENCE, StreamName.INSTRUMENT_SNAPSHOT])
async def test_what_no_node_follows_is_refused_by_name(stream: StreamName) -> None:
    with pytest.raises(Invalid, match=stream.value):
        Observatory().following().subscribe(asks(stream))


@pytest.mark.parametrize("options", [{"after": "s0"}, {"fields": ["state"]}])
async def test_a_node_is_told_the_whole_of_the_present(options: object) -> None:
    with pytest.raises(Invalid, match="options"):
        Observatory().following().subscribe(asks(DEVICE, options=options))


async def test_a_session_that_is_over_follows_nothing() -> None:
    observatory = Observatory()
    following = observatory.following()
    await seen(observatory, following)
    following.close()
    assert not following.unsubscribe("mine")
    observatory.hub.retained.offer(
        observatory.here, Epoch(1), snapshot(next(iter(observatory.here.resources)), 2, n=uuid4().hex)
    )
    with trio.move_on_after(0.01) as nothing:
        await following.next()
    assert nothing.cancelled_caught
