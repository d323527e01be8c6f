"""What stands in the way of a command: each guard is asked, in order."""

from uuid import uuid4

import pytest

from skygw.control.guards import Guards
from skygw.control.lease_guard import Fence
from skygw.control.order import CommandOrder
from skygw.errors import Forbidden, GatewayError, LeaseRequired
from skygw.ids import CommandId, InstallId, TelescopeUid
from skygw.protocol.json_text import Opaque

SITE = InstallId(uuid4())


class Answer:
    """A guard that always says the same."""

    def __init__(self, answer: Fence | GatewayError | None) -> None:
        self._answer = answer
        self.asked = 0

    async def admit(self, order: CommandOrder, install_id: InstallId) -> Fence | None:
        assert (order.command_type, install_id) == ("mount.park", SITE)
        self.asked += 1
        if isinstance(self._answer, GatewayError):
            raise self._answer
        return self._answer


def order() -> CommandOrder:
    return CommandOrder(
        command_id=CommandId(uuid4()),
        telescope_uid=TelescopeUid(uuid4()),
        device_uid=None,
        command=Opaque.of({"command_type": "mount.park"}),
        origin=None,
        service="scheduler",
        actor=None,
        timeout_s=10,
    )


async def test_a_command_goes_under_the_fence_that_one_of_the_guards_knows() -> None:
    fence = Fence(uuid4(), 7)
    assert await Guards([Answer(None), Answer(fence), Answer(None)]).admit(order(), SITE) == fence


async def test_the_first_guard_that_refuses_is_the_last_that_is_asked() -> None:
    behind = Answer(None)
    with pytest.raises(Forbidden, match="this one"):
        await Guards([Answer(None), Answer(Forbidden("this one")), behind]).admit(order(), SITE)
    assert behind.asked == 0


async def test_a_dry_run_hears_of_everything_that_stands_in_the_way() -> None:
    guards = Guards([Answer(Forbidden("no")), Answer(None), Answer(LeaseRequired("nor this"))])
    assert [error.reason for error in await guards.examine(order(), SITE)] == ["forbidden", "lease_required"]
