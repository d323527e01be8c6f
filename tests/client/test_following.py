"""What a node follows: told as new as it is, across links, and never younger than it truly is."""

import math
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from skygw.client.blocking import BlockingNode
from skygw.client.following import ASK_AGAIN_S, MAX_RESOURCES, Following, Followings
from skygw.client.node import NodeClient
from skygw.protocol.node_frames import Error, ErrorCode
from skygw.protocol.streams import (
    EndReason,
    EventLive,
    EventSubscriptionEnded,
    StaleReason,
    StreamFilter,
    StreamName,
    SubscribeStream,
    UnsubscribeStream,
)
from tests.client.conftest import MakeConfig, running
from tests.fakes.following_hub import FollowingHub, told
from tests.fakes.gateway import PATIENCE_S, FakeGateway, FakeSession

SENSOR = UUID(int=1)
ROOF = UUID(int=2)
WEATHER = StreamFilter(device_uid=(SENSOR,))


@pytest.fixture
def followings() -> Followings:
    return Followings()


@pytest.fixture
def following(followings: Followings) -> Following:
    return followings.add(StreamName.DEVICE_SNAPSHOT, WEATHER, max_rate_hz=None)


def age_of(following: Following, uid: UUID = SENSOR) -> float | None:
    found = following.fresh_or_none(uid, max_age_s=math.inf)
    return None if found is None else round(found.age_s, 3)


def state_of(following: Following, *, max_age_s: float = math.inf) -> Any:
    found = following.fresh_or_none(SENSOR, max_age_s=max_age_s)
    return None if found is None else found.data["state"]


async def test_a_value_grows_old_on_the_nodes_own_clock_and_is_then_no_longer_given(
    autojump_clock: MockClock, nursery: trio.Nursery, followings: Followings, following: Following
) -> None:
    hub = FollowingHub(nursery, followings)
    await hub.tell(SENSOR, age_ms=2_000)
    await trio.sleep(27.9)
    just_before = following.fresh_or_none(SENSOR, max_age_s=30)
    await trio.sleep(0.2)

    assert just_before is not None
    assert round(just_before.age_s, 3) == 29.9
    assert following.fresh_or_none(SENSOR, max_age_s=30) is None
    assert following.fresh_or_none(ROOF, max_age_s=30) is None


async def test_a_uid_may_be_its_text_and_one_that_is_none_is_an_error_not_silence(
    autojump_clock: MockClock, nursery: trio.Nursery, followings: Followings, following: Following
) -> None:
    hub = FollowingHub(nursery, followings)
    await hub.tell(SENSOR)

    assert following.fresh_or_none(str(SENSOR), 30) is not None
    with pytest.raises(ValueError, match="must be a UUID: 'the sensor'"):
        following.fresh_or_none("the sensor", 30)


async def test_what_to_follow_may_be_said_in_the_protocols_own_words(make_config: MakeConfig) -> None:
    client = NodeClient(make_config())
    asked = client.follow("device_snapshot", filter={"device_uid": str(SENSOR)}).asked_as("1")

    assert asked.stream is StreamName.DEVICE_SNAPSHOT
    assert asked.asked_filter() == WEATHER
    with pytest.raises(ValueError, match="weather"):
        client.follow("weather")
    with pytest.raises(ValueError, match="device"):
        client.follow("device_snapshot", filter={"device": str(SENSOR)})


async def test_without_a_link_a_value_grows_old_as_with_one(
    autojump_clock: MockClock, nursery: trio.Nursery, followings: Followings, following: Following
) -> None:
    hub = FollowingHub(nursery, followings)
    await hub.tell(SENSOR)
    await hub.end()
    await trio.sleep(10)

    assert age_of(following) == 10.0
    assert following.fresh_or_none(SENSOR, max_age_s=9.9) is None
    assert not following.live


async def test_what_a_frame_was_late_is_part_of_the_age(
    autojump_clock: MockClock, nursery: trio.Nursery, followings: Followings, following: Following
) -> None:
    hub = FollowingHub(nursery, followings)
    await trio.sleep(20)
    await hub.tell(SENSOR, age_ms=1_000, late_ms=4_000)

    assert age_of(following) == pytest.approx(5.0, abs=0.01)


async def test_a_value_that_came_with_a_late_welcome_turns_out_older_when_a_faster_frame_comes(
    autojump_clock: MockClock, nursery: trio.Nursery, followings: Followings, following: Following
) -> None:
    hub = FollowingHub(nursery, followings)
    await hub.tell(SENSOR, age_ms=1_000)
    before = age_of(following)
    await hub.tell(ROOF, late_ms=-3_000)  # so the welcome, and what came with it, had been on its way for 3 s

    assert (before, age_of(following)) == (1.0, 4.0)


async def test_a_reason_to_distrust_is_shown_and_the_age_decides(
    autojump_clock: MockClock, nursery: trio.Nursery, followings: Followings, following: Following
) -> None:
    hub = FollowingHub(nursery, followings)
    await hub.tell(SENSOR, age_ms=31_000, stale=StaleReason.SILENT)
    shown = following.fresh_or_none(SENSOR, max_age_s=60)
    await hub.tell(SENSOR, age_ms=500, stale=StaleReason.NODE_OFFLINE)
    young = following.fresh_or_none(SENSOR, max_age_s=60)

    assert shown is not None
    assert shown.stale is StaleReason.SILENT
    assert young is not None
    assert young.stale is StaleReason.NODE_OFFLINE
    await trio.sleep(60)
    assert following.fresh_or_none(SENSOR, max_age_s=60) is None


async def test_a_new_session_that_knows_less_replaces_no_younger_value(
    autojump_clock: MockClock, nursery: trio.Nursery, followings: Followings, following: Following
) -> None:
    first = FollowingHub(nursery, followings)
    await first.tell(SENSOR, state="unsafe")
    await first.end()
    await trio.sleep(3)
    second = FollowingHub(nursery, followings)
    await second.tell(SENSOR, age_ms=5_000, state="safe", stale=StaleReason.GATEWAY_RESTARTED)
    kept = following.fresh_or_none(SENSOR, max_age_s=60)
    await second.tell(SENSOR, age_ms=2_000, state="safe")

    assert kept is not None
    assert (kept.data["state"], kept.age_s, kept.stale) == ("unsafe", 3.0, StaleReason.GATEWAY_RESTARTED)
    assert (state_of(following), age_of(following)) == ("safe", 2.0)


async def test_within_a_session_the_later_frame_is_the_newer_one(
    autojump_clock: MockClock, nursery: trio.Nursery, followings: Followings, following: Following
) -> None:
    hub = FollowingHub(nursery, followings)
    await hub.tell(SENSOR, age_ms=100, state="safe")
    await hub.tell(SENSOR, age_ms=900, state="unsafe")

    assert (state_of(following), age_of(following)) == ("unsafe", 0.9)


async def test_every_session_is_asked_anew_and_what_comes_for_an_old_subscription_is_nobodys(
    autojump_clock: MockClock, nursery: trio.Nursery, followings: Followings, following: Following
) -> None:
    first = FollowingHub(nursery, followings)
    (asked,) = await first.asked()
    await first.end()
    second = FollowingHub(nursery, followings)
    (again,) = await second.asked()
    followings.take(told(asked.subscription_id, uid=SENSOR, t_ms=0), second.arrivals)
    late = age_of(following)
    await second.tell(SENSOR)

    assert again.subscription_id != asked.subscription_id
    assert again.asked_filter() == WEATHER
    assert again.asked_options().include_unchanged
    assert (late, age_of(following)) == (None, 0.0)


@pytest.mark.parametrize("how", ["refused", "ended"])
async def test_a_subscription_that_is_refused_or_ends_says_why_and_is_asked_for_again(
    autojump_clock: MockClock, nursery: trio.Nursery, followings: Followings, following: Following, how: str
) -> None:
    hub = FollowingHub(nursery, followings)
    (asked,) = await hub.asked()
    followings.became_live(EventLive(subscription_id=asked.subscription_id, position="s1"))
    was_live = following.live
    if how == "refused":
        followings.refused(asked.subscription_id, "Not for you.")
    else:
        ended = EventSubscriptionEnded(
            subscription_id=asked.subscription_id, reason=EndReason.SLOW_CONSUMER, message="Not for you."
        )
        followings.ended(ended)
    said = (following.live, following.problem)
    await trio.sleep(ASK_AGAIN_S - 1)
    waited = len(await hub.asked())
    await trio.sleep(1)
    (_, again) = await hub.asked()
    followings.became_live(EventLive(subscription_id=again.subscription_id, position="s2"))

    assert was_live
    assert said == (False, "Not for you.")
    assert waited == 1
    assert (following.live, following.problem) == (True, None)


async def test_what_is_closed_is_unsubscribed_and_forgotten(
    autojump_clock: MockClock, nursery: trio.Nursery, followings: Followings, following: Following
) -> None:
    hub = FollowingHub(nursery, followings)
    await hub.tell(SENSOR)
    following.close()
    following.close()
    await wait_all_tasks_blocked()
    (asked,) = await hub.asked()
    ends = [frame for frame in hub.said if isinstance(frame, UnsubscribeStream)]
    await hub.tell(SENSOR)

    assert [frame.subscription_id for frame in ends] == [asked.subscription_id]
    assert age_of(following) is None


async def test_news_wakes_who_waits_and_none_is_missed_between_looking_and_waiting(
    autojump_clock: MockClock, nursery: trio.Nursery, followings: Followings, following: Following
) -> None:
    hub = FollowingHub(nursery, followings)
    seen = following.news
    await hub.tell(SENSOR)
    await following.changed(seen)  # it came before the waiting
    woken: list[float] = []

    async def wait() -> None:
        await following.changed()
        woken.append(trio.current_time())

    nursery.start_soon(wait)
    await trio.sleep(5)
    before = list(woken)
    await hub.tell(SENSOR)
    await wait_all_tasks_blocked()

    assert before == []
    assert woken == [trio.current_time()]


async def test_of_too_many_resources_the_oldest_gives_way(
    autojump_clock: MockClock, nursery: trio.Nursery, followings: Followings, following: Following
) -> None:
    hub = FollowingHub(nursery, followings)
    (asked,) = await hub.asked()
    for number in range(MAX_RESOURCES + 1):
        frame = told(asked.subscription_id, t_ms=0, uid=UUID(int=number), age_ms=1_000 if number == 77 else 0)
        followings.take(frame, hub.arrivals)

    assert len(following.uids) == MAX_RESOURCES
    assert set(map(int, following.uids)) == {*range(MAX_RESOURCES + 1)} - {77}


def test_a_stream_that_no_node_may_follow_is_refused_at_once(followings: Followings) -> None:
    with pytest.raises(ValueError, match="cannot follow telescope_log"):
        followings.add(StreamName.TELESCOPE_LOG, StreamFilter(), max_rate_hz=None)
    with pytest.raises(ValueError, match="max_rate_hz"):
        followings.add(StreamName.DEVICE_SNAPSHOT, StreamFilter(), max_rate_hz=0)


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - the state is another task's
            await trio.sleep(0.005)


async def _tell(session: FakeSession, asked: SubscribeStream, state: str) -> None:
    await session.say(told(asked.subscription_id, uid=SENSOR, t_ms=session.t_ms(), age_ms=40, state=state))
    await session.say(EventLive(subscription_id=asked.subscription_id, position="s1"))


async def test_a_client_follows_across_links_and_takes_a_refusal_calmly(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    client = NodeClient(make_config(), chance=lambda: 0.0)
    before_run = client.follow(StreamName.DEVICE_SNAPSHOT, filter=WEATHER)
    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        await _tell(session, await session.hear(SubscribeStream), "safe")
        await until(lambda: before_run.live)
        first = state_of(before_run, max_age_s=60)
        meanwhile = client.follow(StreamName.SHUTDOWN_INTERLOCK_SNAPSHOT)
        asked = await session.hear(SubscribeStream)
        await session.say(Error(code=ErrorCode.FORBIDDEN, message="Not this one.", id=asked.subscription_id))
        await until(lambda: meanwhile.problem == "Not this one.")
        await session.close(4001)
        await until(lambda: not before_run.live)
        without_a_link = state_of(before_run, max_age_s=60)
        again = await gateway.accept()
        await again.welcome()
        asked_again = [await again.hear(SubscribeStream) for _ in range(2)]
        await _tell(again, asked_again[0], "unsafe")
        await until(lambda: state_of(before_run, max_age_s=60) == "unsafe")

    assert first == without_a_link == "safe"
    assert asked.stream is StreamName.SHUTDOWN_INTERLOCK_SNAPSHOT
    assert {asked.stream for asked in asked_again} == {StreamName.DEVICE_SNAPSHOT, asked.stream}


async def test_a_thread_follows_too_and_sees_a_value_age_after_the_node_has_ended(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    node = BlockingNode(make_config())
    following = node.follow(StreamName.DEVICE_SNAPSHOT, filter=WEATHER)
    await trio.to_thread.run_sync(node.start)
    try:
        session = await gateway.accept()
        await session.welcome()
        seen = following.news
        await _tell(session, await session.hear(SubscribeStream), "safe")
        came = await trio.to_thread.run_sync(lambda: following.wait_changed(seen, timeout_s=PATIENCE_S))
        none = await trio.to_thread.run_sync(lambda: following.wait_changed(following.news + 9, timeout_s=0.01))
        also = await trio.to_thread.run_sync(node.follow, StreamName.TELESCOPE_SNAPSHOT)
        asked = await session.hear(SubscribeStream)
        await trio.to_thread.run_sync(also.close)
        end = await session.hear(UnsubscribeStream)
    finally:
        await trio.to_thread.run_sync(node.stop)
    found = following.fresh_or_none(SENSOR, max_age_s=60)

    assert (came, none) == (True, False)
    assert end.subscription_id == asked.subscription_id
    assert found is not None
    assert found.age_s >= 0.04
