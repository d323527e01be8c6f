"""Whether a value is the present is judged by this end's clock and the gateway's, never by a node's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import trio
from trio.abc import Clock

from skygw.client.streams import LatestValues, StreamClient, StreamName, Unreadable
from skygw.protocol.streams import SubscribeStream
from tests.fakes.stream_links import GatewayEnd, Served, StreamDoor

DEVICE = StreamName.DEVICE_SNAPSHOT
UID = UUID("1b4e28ba-2fa1-41d2-883f-0016d3cca427")
A_WRONG_YEAR = datetime(1999, 1, 1, tzinfo=UTC)
"""What the gateway's clock shows; nobody's has to be right."""


class Room:
    """The latest values of a subscription, and the gateway that serves it, with a clock of its own."""

    def __init__(self, end: GatewayEnd, served: Served, values: LatestValues) -> None:
        self.end = end
        self.served = served
        self.values = values
        self.ahead = timedelta()
        self._began = trio.current_time()
        self._position = 0

    def now(self) -> datetime:
        return A_WRONG_YEAR + timedelta(seconds=trio.current_time() - self._began) + self.ahead

    def said(self, *, ago_s: float = 0.0, **members: Any) -> None:
        self._position += 1
        self.served.event(
            f"s{self._position}",
            received_at=(self.now() - timedelta(seconds=ago_s)).isoformat(),
            data={"uid": str(UID), "n": self._position},
            **members,
        )

    async def fresh(self, max_age_s: float) -> bool:
        await trio.testing.wait_all_tasks_blocked()
        return self.values.fresh_or_none(UID, max_age_s) is not None


@asynccontextmanager
async def following(*, tells_time: bool = True, answers_after_s: float = 0.0) -> AsyncIterator[Room]:
    door = StreamDoor()
    client = StreamClient("http://gateway:5003", "token", connect=door.connect, chance=lambda: 0.5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        async with client.subscribe(DEVICE, include_unchanged=True) as subscription:
            end = await door.accept()
            frame = await end.hear()
            assert isinstance(frame, SubscribeStream)
            values = LatestValues(subscription)
            nursery.start_soon(values.follow)
            room = Room(end, Served(end, frame), values)
            time = {"server_time": room.now().isoformat()} if tells_time else {}
            await trio.sleep(answers_after_s)
            end.say({"kind": "ack", "subscription_id": frame.subscription_id, **time})
            yield room
        nursery.cancel_scope.cancel()


async def test_a_value_is_fresh_as_long_as_its_age_allows(autojump_clock: Clock) -> None:
    async with following() as room:
        assert not await room.fresh(1.0)
        room.said()
        assert await room.fresh(1.0)
        await trio.sleep(0.9)
        assert await room.fresh(1.0)
        await trio.sleep(0.2)
        assert not await room.fresh(1.0)
        newest = room.values.newest(UID)

    assert newest is not None
    assert newest.age_s() == pytest.approx(1.1, abs=0.01)


async def test_a_uid_may_be_its_text_and_one_that_is_none_is_an_error_not_silence(autojump_clock: Clock) -> None:
    async with following() as room:
        room.said()
        await trio.testing.wait_all_tasks_blocked()
        by_text = room.values.fresh_or_none(str(UID).upper(), max_age_s=1.0)
        newest = room.values.newest(str(UID))
        with pytest.raises(ValueError, match="must be a UUID: 'the mount'"):
            room.values.fresh_or_none("the mount", max_age_s=1.0)
        with pytest.raises(TypeError, match="not int"):
            room.values.newest(7)  # type: ignore[arg-type]

    assert by_text is not None
    assert newest is not None


async def test_the_age_it_had_when_it_came_counts(autojump_clock: Clock) -> None:
    async with following() as room:
        room.said(ago_s=300.0)
        assert not await room.fresh(299.0)
        assert await room.fresh(301.0)


async def test_the_clock_of_a_node_is_asked_nothing(autojump_clock: Clock) -> None:
    async with following() as room:
        room.said(ago_s=60.0, observed_at="2099-01-01T00:00:00Z")
        assert not await room.fresh(59.0)
        room.said(observed_at="1970-01-01T00:00:00Z")
        assert await room.fresh(1.0)


async def test_a_slow_answer_makes_values_look_older_never_younger(autojump_clock: Clock) -> None:
    async with following(answers_after_s=2.0) as room:
        room.said(ago_s=10.0)
        assert not await room.fresh(9.9)
        assert await room.fresh(12.1)


async def test_without_the_gateways_time_nothing_is_called_fresh(autojump_clock: Clock) -> None:
    async with following(tells_time=False) as room:
        room.said()
        assert not await room.fresh(1e9)
        newest = room.values.newest(UID)

    assert newest is not None
    assert newest.age_s() is None


async def test_a_clock_of_the_gateway_that_jumped_ahead_is_put_right_by_the_next_fresh_value(
    autojump_clock: Clock,
) -> None:
    async with following() as room:
        room.ahead = timedelta(hours=1)
        room.said()
        assert await room.fresh(1.0)
        room.said(ago_s=30.0)
        assert not await room.fresh(29.0)
        assert await room.fresh(31.0)


async def test_a_stale_value_is_not_fresh_until_it_is_said_again(autojump_clock: Clock) -> None:
    async with following() as room:
        room.said()
        assert await room.fresh(10.0)
        room.served.say("event_stale", "s50", uid=str(UID), last_observed_at="2026-07-01T03:00:00Z", reason="silent")
        assert not await room.fresh(10.0)
        newest = room.values.newest(UID)
        room.said()
        assert await room.fresh(10.0)
        room.said(stale="gateway_restarted")
        assert not await room.fresh(10.0)

    assert newest is not None
    assert newest.stale == "silent"
    assert len(room.values) == 1


async def test_a_value_of_nothing_is_said_to_be_unreadable(autojump_clock: Clock) -> None:
    door = StreamDoor()
    client = StreamClient("http://gateway:5003", "token", connect=door.connect)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        async with client.subscribe(DEVICE, include_unchanged=True) as subscription:
            served = await (await door.accept()).asked()
            served.event("s1", data={"n": 1})
            with pytest.raises(Unreadable):
                await LatestValues(subscription).follow()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("stream", "unchanged"), [(DEVICE, False), (StreamName.TELESCOPE_LOG, True)])
async def test_ages_are_judged_only_where_every_value_is_told(stream: StreamName, unchanged: bool) -> None:
    client = StreamClient("http://gateway:5003", "token")
    async with client.subscribe(stream, include_unchanged=unchanged) as subscription:
        with pytest.raises(ValueError, match="include_unchanged"):
            LatestValues(subscription)
