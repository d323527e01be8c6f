"""A node follows what a lease says on its own clock: at the end of it, and when its holder is silent."""

import logging
from typing import Any
from uuid import UUID

import pytest
import trio
import trio.testing

from skygw.client.arrival import TooLate
from skygw.client.leases import LeaseOver, NodeLeases, WhyOver
from skygw.client.node import NodeClient
from skygw.client.node_state import NodeState
from skygw.ids import InstanceUid, TelescopeUid
from skygw.protocol.gateway_frames import EventManualControlLease, LeaseEnd, OnExpiry
from skygw.protocol.json_text import Opaque
from skygw.protocol.node_frames import CommandStatus
from tests.client.conftest import MakeConfig, running
from tests.fakes.gateway import FakeGateway

Clock = trio.testing.MockClock

TELESCOPE = TelescopeUid(UUID(int=7))
MOUNT = UUID(int=8)
HOLDER = Opaque.of({"service": "web", "actor": {"uid": "7", "kind": "user"}})


def frame(fence: int, **said: Any) -> EventManualControlLease:
    """Somebody has control for 100 s, unless something else is said."""
    members: dict[str, Any] = {
        "telescope_uid": TELESCOPE,
        "holder": HOLDER,
        "fence": fence,
        "revision": 1,
        "expires_in_ms": 100_000,
        "on_expiry": OnExpiry.STOP,
        "t_ms": 0,
    }
    return EventManualControlLease(**{**members, **said})


def nobody(fence: int, ended: LeaseEnd | None = None) -> EventManualControlLease:
    return EventManualControlLease(telescope_uid=TELESCOPE, fence=fence, ended=ended, t_ms=0)


class Watched:
    """The leases of a node without a link, and when it acted by itself."""

    def __init__(self) -> None:
        self._state = NodeState(InstanceUid(UUID(int=1)))
        self.leases = NodeLeases(self._accept, self._act)
        self.acts: list[tuple[float, WhyOver]] = []
        self.overs: list[LeaseOver] = []
        self._began = trio.current_time()

    def _accept(self, uid: UUID, fence: int) -> bool:
        known = self._state.last_fences.get(uid, 0)
        self._state = self._state.with_fence(uid, fence)
        return fence >= known

    async def _act(self, over: LeaseOver) -> None:
        self.acts.append((round(trio.current_time() - self._began, 3), over.why))
        self.overs.append(over)

    def take(self, said: EventManualControlLease, *, age_ms: float = 0) -> None:
        self.leases.take(said, age_ms=age_ms)

    def refusal(self, fence: int) -> str | None:
        found = self.leases.judge(TELESCOPE, fence)
        return found.reason if isinstance(found, TooLate) else None


@pytest.fixture
async def watched(nursery: trio.Nursery) -> Watched:
    """On the jumping clock only in a test that names `autojump_clock` itself: pytest-trio looks nowhere else."""
    made = Watched()
    nursery.start_soon(made.leases.run)
    return made


async def test_at_the_end_of_a_lease_its_policy_is_followed_once(autojump_clock: Clock, watched: Watched) -> None:
    watched.take(frame(5))
    await trio.sleep(500)
    assert watched.acts == [(100, WhyOver.EXPIRED)]
    assert watched.overs == [LeaseOver(TELESCOPE, None, OnExpiry.STOP, WhyOver.EXPIRED, HOLDER)]


async def test_what_a_frame_was_on_its_way_is_taken_off(autojump_clock: Clock, watched: Watched) -> None:
    watched.take(frame(5), age_ms=30_000)
    await trio.sleep(500)
    assert watched.acts == [(70, WhyOver.EXPIRED)]


async def test_a_lease_that_came_too_late_to_hold_is_over_at_once(autojump_clock: Clock, watched: Watched) -> None:
    watched.take(frame(5), age_ms=300_000)
    assert watched.refusal(5) == "lease_expired"
    await trio.sleep(1)
    assert watched.acts == [(0, WhyOver.EXPIRED)]


async def test_a_renewal_puts_the_end_off(autojump_clock: Clock, watched: Watched) -> None:
    watched.take(frame(5))
    await trio.sleep(60)
    watched.take(frame(5, revision=2))
    await trio.sleep(90)
    assert watched.acts == []
    await trio.sleep(500)
    assert watched.acts == [(160, WhyOver.EXPIRED)]


async def test_the_same_again_puts_nothing_off(autojump_clock: Clock, watched: Watched) -> None:
    watched.take(frame(5, deadman_ms=40_000))
    await trio.sleep(30)
    watched.take(frame(5, deadman_ms=40_000))
    await trio.sleep(500)
    assert watched.acts == [(40, WhyOver.SILENT), (100, WhyOver.EXPIRED)]


async def test_a_silent_holder_is_missed_and_a_command_or_a_renewal_is_a_sign_of_life(
    autojump_clock: Clock, watched: Watched
) -> None:
    watched.take(frame(5, deadman_ms=10_000))
    await trio.sleep(8)
    assert watched.refusal(5) is None
    await trio.sleep(8)
    watched.take(frame(5, revision=2, deadman_ms=10_000))
    await trio.sleep(8)
    assert watched.acts == []
    await trio.sleep(30)
    assert watched.acts == [(26, WhyOver.SILENT)]
    assert watched.refusal(5) is None  # the lease goes on, and so does the watch
    await trio.sleep(30)
    assert watched.acts == [(26, WhyOver.SILENT), (64, WhyOver.SILENT)]


async def test_nothing_runs_under_a_lease_that_is_over_until_it_is_renewed(
    autojump_clock: Clock, watched: Watched
) -> None:
    watched.take(frame(5))
    await trio.sleep(99)
    assert watched.refusal(5) is None
    await trio.sleep(2)
    assert watched.refusal(5) == "lease_expired"
    watched.take(frame(5, revision=2))
    assert watched.refusal(5) is None


async def test_what_is_older_than_the_newest_fence_changes_nothing(autojump_clock: Clock, watched: Watched) -> None:
    watched.take(frame(7))
    watched.take(frame(6, expires_in_ms=1))
    watched.take(nobody(6, LeaseEnd.EXPIRED))
    assert (watched.refusal(6), watched.refusal(7)) == ("stale_fence", None)
    await trio.sleep(500)
    assert watched.acts == [(100, WhyOver.EXPIRED)]


@pytest.mark.parametrize("ended", [LeaseEnd.RELEASED, LeaseEnd.BROKEN, None])
async def test_who_gives_control_back_or_loses_it_stops_nothing(
    autojump_clock: Clock, watched: Watched, ended: LeaseEnd | None
) -> None:
    watched.take(frame(5))
    watched.take(nobody(6, ended))
    assert watched.refusal(5) == "stale_fence"
    assert list(watched.leases) == []
    await trio.sleep(500)
    assert watched.acts == []


async def test_a_lease_that_the_hub_says_has_expired_is_over_here_too_and_its_policy_followed_once(
    autojump_clock: Clock,
    watched: Watched,
) -> None:
    watched.take(frame(5))
    await trio.sleep(10)
    watched.take(nobody(6, LeaseEnd.EXPIRED))
    watched.take(nobody(6, LeaseEnd.EXPIRED))
    await trio.sleep(500)
    watched.take(nobody(6, LeaseEnd.EXPIRED))
    await trio.sleep(500)
    assert watched.acts == [(10, WhyOver.EXPIRED)]


async def test_the_next_holder_has_timers_of_its_own(autojump_clock: Clock, watched: Watched) -> None:
    watched.take(frame(5, expires_in_ms=50_000))
    watched.take(frame(7))
    await trio.sleep(500)
    assert watched.acts == [(100, WhyOver.EXPIRED)]


async def test_a_person_on_site_is_warned_of_the_end(
    autojump_clock: Clock, watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    watched.take(frame(5, warn_in_ms=40_000))
    await trio.sleep(50)
    assert [record.getMessage() for record in caplog.records] == [
        f"the lease of {TELESCOPE} ends in 60 s unless it is renewed"
    ]


async def test_a_handler_that_fails_takes_nothing_with_it(
    autojump_clock: Clock, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    acts: list[LeaseOver] = []

    async def fail_once(over: LeaseOver) -> None:
        acts.append(over)
        if len(acts) == 1:
            raise ValueError("no such device")

    leases = NodeLeases(lambda *_: True, fail_once)
    nursery.start_soon(leases.run)
    leases.take(frame(5, deadman_ms=10_000), age_ms=0)
    await trio.sleep(500)
    assert [over.why for over in acts] == [WhyOver.SILENT, WhyOver.EXPIRED]
    failures = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(failures) == 1
    caplog.clear()


async def test_a_command_for_a_device_goes_under_the_fence_of_its_telescope(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    """Over a real socket, and after the program was started anew: the fence is on the disk."""
    client = NodeClient(make_config())
    async with running(client):
        session = await gateway.accept()
        await session.welcome(followed_by=[frame(9)])
        with trio.fail_after(5):
            while not client.leases:  # noqa: ASYNC110 - what a person reads off the client has no event
                await trio.sleep(0.005)
        stale = session.command({"command_type": "mount.park"}, fence=8, fence_uid=TELESCOPE)
        await session.say(stale)
        refused = await session.ended_command(stale.command_id)
        assert refused.error is not None
        assert (refused.status, refused.error.value["reason"]) == (CommandStatus.REJECTED, "stale_fence")

    async with running(NodeClient(make_config())):
        again = await gateway.accept()
        await again.welcome(acked_seq=1)
        assert again.hello.last_fences == {TELESCOPE: 9}
        stale = again.command({"command_type": "mount.park"}, fence=8, fence_uid=TELESCOPE)
        await again.say(stale)
        refused = await again.ended_command(stale.command_id)
    assert refused.error is not None
    assert refused.error.value["reason"] == "stale_fence"
