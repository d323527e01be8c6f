"""Control as a hub service has it: renewed while a block lasts, given back at its end, not claimed when it is lost."""

import json
import logging
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import httpx
import pytest
import trio

from skygw.client.caller import Caller
from skygw.errors import Busy, LeaseExpired, LeaseHeld, LinkLost
from skygw.ids import CommandId

if TYPE_CHECKING:
    from collections.abc import Callable

TELESCOPE = UUID(int=7)
ANNA = {"uid": "anna", "kind": "user"}
DURATION_S = 90.0

Answer = tuple[int, dict[str, Any]] | httpx.TransportError


class Hub:
    """Answers as a gateway does that grants what is asked, unless `says` knows better."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, str, dict[str, Any]]] = []
        self.says: Callable[[str], Answer | None] = lambda _: None

    def caller(self) -> Caller:
        return Caller("http://gateway", "t", client=httpx.AsyncClient(transport=httpx.MockTransport(self._answer)))

    @property
    def acts(self) -> list[str]:
        return [act for _, act, _ in self.asked]

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        act, body = request.url.path.rpartition("/")[2], json.loads(request.content)
        self.asked.append((trio.current_time(), act, body))
        answer = self.says(act)
        if isinstance(answer, httpx.TransportError):
            raise answer
        granted = {"id": str(UUID(int=1)), "fence": 3, "durationS": DURATION_S, "deadmanS": None, "onExpiry": "stop"}
        status, content = answer or (200, granted)
        return httpx.Response(status, json=content)


@pytest.fixture
def hub() -> Hub:
    return Hub()


def refusal(code: str) -> Answer:
    return 409, {"detail": f"It is {code}.", "code": code, "outcome": "not_sent", "retry": "never"}


async def test_a_lease_is_renewed_while_its_block_lasts_and_given_back(hub: Hub, autojump_clock: object) -> None:
    async with hub.caller() as caller, caller.lease(telescope_uid=TELESCOPE, duration_s=DURATION_S, actor=ANNA) as held:
        assert held.fence == 3
        await trio.sleep(DURATION_S - 5)

    began = hub.asked[0][0]
    assert [(at - began, act) for at, act, _ in hub.asked] == [
        (0, "leases"),
        (30, "renew"),
        (60, "renew"),
        (85, "release"),
    ]
    mine = {"leaseUid": str(held.lease_uid), "actor": ANNA}
    assert hub.asked[0][2] == {"telescopeUid": str(TELESCOPE), "durationS": DURATION_S, **mine}
    assert [body for _, _, body in hub.asked[1:]] == [mine] * 3


async def test_a_command_shows_the_lease_and_comes_from_its_holder(hub: Hub, autojump_clock: object) -> None:
    async with hub.caller() as caller, caller.lease(telescope_uid=TELESCOPE, actor=ANNA) as held:
        await caller.command(
            {"command_type": "mount.park"}, command_id=CommandId(uuid4()), telescope_uid=TELESCOPE, lease=held
        )

    body = hub.asked[1][2]
    assert (body["leaseUid"], body["actor"]) == (str(held.lease_uid), ANNA)


async def test_who_does_not_get_control_is_told_who_has_it(hub: Hub) -> None:
    holder = {"service": "night", "actor": ANNA}
    hub.says = lambda _: (409, {"detail": "held", "code": "lease_held", "details": {"holder": holder}})
    async with hub.caller() as caller:
        with pytest.raises(LeaseHeld) as refused:
            async with caller.lease(telescope_uid=TELESCOPE):
                raise AssertionError

    assert refused.value.details["holder"] == holder
    assert hub.acts == ["leases"]


async def test_a_lost_answer_is_asked_for_again_under_the_same_secret(hub: Hub, autojump_clock: object) -> None:
    hub.says = lambda _: httpx.ReadError("reset") if len(hub.asked) == 1 else None
    async with hub.caller() as caller, caller.lease(telescope_uid=TELESCOPE):
        pass

    assert hub.acts == ["leases", "leases", "release"]
    assert hub.asked[0][2] == hub.asked[1][2]


async def test_where_control_is_taken_away_the_block_ends_and_says_so(hub: Hub, autojump_clock: object) -> None:
    hub.says = lambda act: refusal("lease_expired") if act == "renew" else None
    async with hub.caller() as caller:
        with pytest.raises(LeaseExpired):
            async with caller.lease(telescope_uid=TELESCOPE):
                await trio.sleep_forever()

    assert hub.acts == ["leases", "renew"]


async def test_a_gateway_that_is_away_for_a_while_costs_no_control(hub: Hub, autojump_clock: object) -> None:
    hub.says = lambda _: httpx.ConnectError("away") if 2 <= len(hub.asked) <= 20 else None
    async with hub.caller() as caller, caller.lease(telescope_uid=TELESCOPE, duration_s=DURATION_S):
        await trio.sleep(2 * DURATION_S)

    assert hub.acts[-1] == "release"


async def test_a_gateway_that_stays_away_costs_it_before_the_lease_has_run_out(
    hub: Hub, autojump_clock: object
) -> None:
    hub.says = lambda act: httpx.ConnectError("away") if act == "renew" else None
    async with hub.caller() as caller:
        began = trio.current_time()
        with pytest.raises(LeaseExpired, match=r"could not be renewed in time: .*away"):
            async with caller.lease(telescope_uid=TELESCOPE, duration_s=DURATION_S):
                await trio.sleep_forever()

    assert DURATION_S / 2 < trio.current_time() - began <= DURATION_S


async def test_what_goes_wrong_in_the_block_comes_out_as_it_is(hub: Hub) -> None:
    wrong = Busy("enough")
    async with hub.caller() as caller:
        with pytest.raises(Busy) as raised:
            async with caller.lease(telescope_uid=TELESCOPE):
                raise wrong

    assert raised.value is wrong
    assert hub.acts == ["leases", "release"]


async def test_who_is_cancelled_gives_it_back_also_while_it_is_being_asked_for(
    hub: Hub, autojump_clock: object
) -> None:
    for at_once in (True, False):
        hub.asked.clear()
        with trio.CancelScope() as scope:
            if at_once:
                scope.cancel()
            async with hub.caller() as caller, caller.lease(telescope_uid=TELESCOPE):
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert hub.acts == ["leases", "release"]


async def test_a_lease_that_cannot_be_given_back_is_a_warning_of_what_the_node_will_do(
    hub: Hub, autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    hub.says = lambda act: httpx.ConnectError("away") if act == "release" else None
    with caplog.at_level(logging.WARNING, "skygw.client"):
        async with hub.caller() as caller, caller.lease(telescope_uid=TELESCOPE, duration_s=DURATION_S):
            pass

    assert "away.): it runs out in 90 s, and the node does what its on_expiry, stop, says" in caplog.text


async def test_a_gateway_that_never_answers_is_not_waited_for_long(hub: Hub, autojump_clock: object) -> None:
    hub.says = lambda _: httpx.ReadTimeout("nothing")
    async with hub.caller() as caller:
        with pytest.raises(LinkLost, match="it runs out by itself"):
            async with caller.lease(telescope_uid=TELESCOPE):
                raise AssertionError
