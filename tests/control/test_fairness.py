"""Two services at one node, of which one floods it: the other is served as if it were alone, but for its turn."""

from uuid import uuid4

import pytest
import trio
import trio.testing

from skygw.control.direct_rpc import DirectOrder
from skygw.errors import Busy, GatewayError
from skygw.ids import CommandId
from skygw.nodes.session import SessionRules
from skygw.protocol.gateway_frames import DirectRequest, EventCommand
from tests.fakes.answers import whole_answer
from tests.fakes.rooms import Gateway, PlayedLink, Site, command_order, direct_order

Clock = trio.testing.MockClock

BLINK = {"command_type": "beacon.blink"}
"""Of no known type: nothing but room stands in its way."""


async def stalled(nursery: trio.Nursery, rules: SessionRules | None = None) -> tuple[Gateway, Site, PlayedLink]:
    """A node that takes nothing of what it is sent until the link flows."""
    gateway, site = Gateway(nursery, rules, asks_for_leases=False), Site()
    link = await gateway.connect(site)
    link.stall()
    return gateway, site, link


async def read(gateway: Gateway, order: DirectOrder) -> bytes:
    async with gateway.rpc.call(order) as answer:
        return b"".join([piece async for piece in answer])


async def test_a_flood_of_direct_requests_leaves_places_for_another_service(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery, SessionRules(max_calls=16), asks_for_leases=False), Site()
    link = await gateway.connect(site)
    refused: list[Busy] = []

    async def ask() -> None:
        try:
            await read(gateway, direct_order(site, service="flooder"))
        except Busy as busy:
            refused.append(busy)

    async with trio.open_nursery() as flood:
        for _ in range(100):
            flood.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert len(refused) == 100 - 12
        assert refused[0].details == {"usedUp": "calls", "service": "flooder"}
        assert refused[0].retry_after_s == 1.0
        assert "flooder has 12" in refused[0].message
        requests = [await link.hear_next(DirectRequest) for _ in range(12)]
        answers: list[bytes] = []

        async def other() -> None:
            answers.append(await read(gateway, direct_order(site, service="other")))

        flood.start_soon(other)
        request = await link.hear_next(DirectRequest)
        for message in whole_answer(request.id, b"here"):
            link.say(message)
        await trio.testing.wait_all_tasks_blocked()
        assert answers == [b"here"]
        for held in requests:
            for message in whole_answer(held.id):
                link.say(message)


async def test_what_waits_of_one_service_delays_another_by_one_message(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await stalled(nursery, SessionRules(max_calls=1_000))
    async with trio.open_nursery() as callers:
        for number in range(50):
            callers.start_soon(read, gateway, direct_order(site, service="flooder", operation=f"flood {number}"))
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(50):
            order = command_order(site, {**BLINK, "text": "x" * 10_000}, service="flooder")
            await gateway.commands.submit(order)
        callers.start_soon(read, gateway, direct_order(site, service="other", operation="read"))
        move = command_order(site, service="other")
        await gateway.commands.submit(move)
        link.flow()
        written: list[str] = []
        while str(move.command_id) not in written:
            frame = await link.hear()
            if isinstance(frame, DirectRequest):
                written.append(frame.operation)
            elif isinstance(frame, EventCommand):
                written.append(str(frame.command_id))
        callers.cancel_scope.cancel()
    first, second = (index for index, what in enumerate(written) if what in ("read", str(move.command_id)))
    assert first <= 50, "it waits for what is being written and for one message of the flood"
    assert second == first + 2
    assert written[first + 1] not in ("read", str(move.command_id))


async def test_commands_of_one_service_fill_the_lane_to_its_share_and_another_finds_room(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await stalled(nursery)
    large = {**BLINK, "text": "x" * 60_000}
    refused: GatewayError | None = None
    sent = 0
    while refused is None:
        try:
            await gateway.commands.submit(command_order(site, large, service="flooder"))
            sent += 1
        except Busy as busy:
            refused = busy
    assert refused.details == {"usedUp": "bytes", "service": "flooder"}
    assert 48 <= sent <= 53  # three quarters of 4 MiB
    dry_run, _ = await gateway.commands.validate(command_order(site, large, service="flooder"))
    assert [error.details for error in dry_run] == [{"usedUp": "bytes", "service": "flooder"}]
    mine = command_order(site, large, service="other")
    await gateway.commands.submit(mine)
    link.flow()
    assert mine.command_id in {(await link.hear_next(EventCommand)).command_id for _ in range(sent + 1)}


async def test_one_service_does_not_use_up_what_can_be_followed(
    autojump_clock: Clock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skygw.control.live_commands.MAX_LIVE_COMMANDS", 16)
    gateway, site = Gateway(nursery, asks_for_leases=False), Site()
    await gateway.connect(site)
    for _ in range(12):
        await gateway.commands.submit(command_order(site, BLINK, service="flooder"))
    with pytest.raises(Busy) as busy:
        await gateway.commands.submit(command_order(site, BLINK, service="flooder", command_id=CommandId(uuid4())))
    assert busy.value.details == {"usedUp": "commands", "service": "flooder"}
    await gateway.commands.submit(command_order(site, BLINK, service="other"))
    assert gateway.commands.followed == 13
