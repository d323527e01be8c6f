"""A node that needs more time takes it up to what the caller allows, and the deadline moves with it, no further."""

from datetime import timedelta
from math import inf
from typing import Any

import trio
import trio.testing

from skygw.control.live_command import KEEP_AFTER_DEADLINE_S
from skygw.control.order import CommandOrder
from skygw.nodes.session import SessionRules
from skygw.protocol.gateway_frames import Ack, EventCommand
from skygw.protocol.node_frames import CommandStatus, PublishCommandResult
from tests.fakes.rooms import Gateway, PlayedLink, Site, command_order

Clock = trio.testing.MockClock


async def sent(nursery: trio.Nursery, **changed: Any) -> tuple[Gateway, CommandOrder, PlayedLink, EventCommand]:
    gateway, site = Gateway(nursery, SessionRules(dead_after_s=inf)), Site()
    await nursery.start(gateway.commands.run)
    link = await gateway.connect(site)
    order = command_order(site, **changed)
    await gateway.commands.submit(order)
    return gateway, order, link, await link.hear_next(EventCommand)


async def asks(link: PlayedLink, order: CommandOrder, seq: int, more_ms: int | None) -> None:
    running = CommandStatus.RUNNING
    link.say(PublishCommandResult(seq=seq, command_id=order.command_id, status=running, deadline_ms=more_ms))
    while (await link.hear_next(Ack)).seq < seq:
        pass


async def test_the_deadline_moves_as_the_node_asks_and_no_further_than_the_caller_allows(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, order, link, event = await sent(nursery, timeout_s=10.0, max_timeout_s=25.0)
    assert event.deadline_ms is not None
    assert event.deadline_max_ms is not None
    assert event.deadline_max_ms - event.deadline_ms == 15_000
    first = (await gateway.commands.get(order.command_id)).deadline_at
    moved: list[float] = []
    for seq, more_ms in enumerate((5_000, None, 2_000, 5_000, 999_999_999, 2**53 - 1), 1):
        await asks(link, order, seq, more_ms)
        record, row = await gateway.commands.get(order.command_id), gateway.ledger.rows[order.command_id]
        assert record.deadline_at == row.deadline_at
        moved.append((record.deadline_at - first).total_seconds())
    assert moved == [5, 5, 5, 5, 15, 15]
    live = gateway.commands._live.find(order.command_id)
    assert live is not None
    assert live.deadline - live.began == 25
    assert live.forget_at == live.deadline + KEEP_AFTER_DEADLINE_S


async def test_without_a_word_of_the_caller_there_is_no_more_time(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, order, link, event = await sent(nursery, timeout_s=10.0, max_timeout_s=10.0)
    assert event.deadline_max_ms is None
    first = (await gateway.commands.get(order.command_id)).deadline_at
    await asks(link, order, 1, 60_000)
    assert (await gateway.commands.get(order.command_id)).deadline_at == first
    assert gateway.ledger.rows[order.command_id].deadline_at == first


async def test_what_is_over_does_not_get_more_time(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, order, link, _ = await sent(nursery, timeout_s=10.0, max_timeout_s=25.0)
    first = (await gateway.commands.get(order.command_id)).deadline_at
    link.say(PublishCommandResult(seq=1, command_id=order.command_id, status=CommandStatus.FAILED))
    await asks(link, order, 2, 15_000)
    assert (await gateway.commands.get(order.command_id)).deadline_at - first == timedelta(0)
