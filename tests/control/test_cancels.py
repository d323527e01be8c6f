"""Who canceled is kept, in order and without a cancel waiting for it; and what a canceled command then says."""

from collections.abc import Callable
from math import inf
from pathlib import Path
from uuid import uuid4

import pytest
import trio
import trio.testing

from skygw.control.cancels import Cancellation
from skygw.control.ledger import Caller, CancelRequest, CommandState
from skygw.control.order import CommandOrder
from skygw.control.safing_spool import SafingSpool
from skygw.errors import NodeOffline, NotFound, RoutingUnavailable
from skygw.ids import CommandId
from skygw.nodes.session import SessionRules
from skygw.protocol.gateway_frames import CancelCommand, CancelMode, EventCommand
from skygw.protocol.node_frames import CanceledHow, CommandStatus, Ping, PublishCommandResult
from tests.fakes.rooms import Gateway, PlayedLink, Site, command_order

Clock = trio.testing.MockClock
S = CommandState
ONE, OTHER = Caller("console", {"uid": "9", "kind": "user"}), Caller("scheduler")


async def running(nursery: trio.Nursery, *, spool: SafingSpool | None = None) -> tuple[Gateway, Site, PlayedLink]:
    gateway, site = Gateway(nursery, SessionRules(dead_after_s=inf), spool=spool), Site()
    await nursery.start(gateway.commands.run)
    return gateway, site, await gateway.connect(site)


async def cancel(gateway: Gateway, order: CommandOrder, by: Caller, *, grace_s: float | None = None) -> Cancellation:
    mode = CancelMode.IMMEDIATE if grace_s is None else CancelMode.GRACEFUL
    return await gateway.commands.cancel(order.command_id, mode=mode, grace_s=grace_s, by=by)


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while not condition():  # noqa: ASYNC110 - the ledger's twin is a table, and tables have no events
            await trio.sleep(0.1)


def said(requests: list[CancelRequest]) -> list[tuple[Caller, CancelMode, float | None]]:
    return [(request.by, request.mode, request.grace_s) for request in requests]


async def test_every_cancel_is_in_the_record_at_once_and_in_the_ledger_when_it_is_back(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    order = command_order(site)
    await gateway.commands.submit(order)
    await link.hear_next(EventCommand)
    gateway.database.away = True
    began = trio.current_time()
    await cancel(gateway, order, ONE, grace_s=2.5)
    await cancel(gateway, order, OTHER)
    assert trio.current_time() == began
    expected = [(ONE, CancelMode.GRACEFUL, 2.5), (OTHER, CancelMode.IMMEDIATE, None)]
    assert said((await gateway.commands.get(order.command_id)).cancels) == expected
    assert gateway.ledger.rows[order.command_id].cancels == []
    gateway.database.away = False
    await until(lambda: said(gateway.ledger.rows[order.command_id].cancels) == expected)
    link.say(PublishCommandResult(seq=1, command_id=order.command_id, status=CommandStatus.COMPLETED))
    await gateway.commands.wait(order.command_id, 10)
    await cancel(gateway, order, ONE)  # which is too late, and was asked for all the same
    await until(lambda: len(gateway.ledger.rows[order.command_id].cancels) == 3)


@pytest.mark.parametrize("it", ["is being admitted", "is in an admission in doubt", "waits for the wire"])
async def test_whoever_takes_a_command_back_before_it_is_written_is_kept_once(
    autojump_clock: Clock, nursery: trio.Nursery, it: str
) -> None:
    gateway, site, link = await running(nursery)
    order = command_order(site)
    if it == "waits for the wire":
        link.stall()
        gateway.session(site).say(Ping(id="stuck"))
        await trio.testing.wait_all_tasks_blocked()
        await gateway.commands.submit(order)
    else:
        gateway.database.slow_s = 2.0
        gateway.database.answers_lost = "doubt" in it

        async def bring() -> None:
            try:
                await gateway.commands.submit(order)
            except RoutingUnavailable:
                assert "doubt" in it

        nursery.start_soon(bring)
        await trio.sleep(5)
    await cancel(gateway, order, ONE)
    await until(lambda: order.command_id in gateway.ledger.rows and gateway.ledger.rows[order.command_id].cancels != [])
    await gateway.commands.flush()
    row = gateway.ledger.rows[order.command_id]
    assert (row.state, said(row.cancels)) == (S.CANCELED, [(ONE, CancelMode.IMMEDIATE, None)])


async def test_a_cancel_for_a_node_that_is_away_is_kept_and_one_for_nothing_is_not(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    order = command_order(site)
    await gateway.commands.submit(order)
    await link.hear_next(EventCommand)
    link.hang_up()
    await link.served.wait()
    with pytest.raises(NodeOffline):
        await cancel(gateway, order, ONE)
    await until(lambda: said(gateway.ledger.rows[order.command_id].cancels) == [(ONE, CancelMode.IMMEDIATE, None)])
    with pytest.raises(NotFound):
        await cancel(gateway, command_order(site), ONE)


async def test_a_cancel_of_what_this_gateway_never_heard_of_is_kept_if_the_ledger_knows_it(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    order, nobodys = command_order(site), CommandId(uuid4())
    record = order.record(site.install_id, gateway.session(site).epoch, left_s=60)
    record.state = S.RUNNING
    gateway.ledger.rows[order.command_id] = record
    gateway.database.away = True
    for command_id in (order.command_id, nobodys):
        await gateway.commands.cancel(command_id, mode=CancelMode.GRACEFUL, grace_s=None, by=ONE)
        assert (await link.hear_next(CancelCommand)).command_id == command_id
    gateway.database.away = False
    await until(lambda: said(gateway.ledger.rows[order.command_id].cancels) == [(ONE, CancelMode.GRACEFUL, None)])
    await gateway.commands.flush()
    assert set(gateway.ledger.rows) == {order.command_id}


async def test_a_cancel_that_a_killed_gateway_could_not_record_is_recorded_by_the_next(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    folder = tmp_path / "spool"
    async with trio.open_nursery() as life:
        gateway, site, link = await running(life, spool=SafingSpool(folder))
        order = command_order(site)
        await gateway.commands.submit(order)
        await link.hear_next(EventCommand)
        gateway.database.away = True
        await cancel(gateway, order, ONE, grace_s=1.0)
        await until(lambda: any('"cancel"' in path.read_text() for path in folder.glob("*.jsonl")))
        life.cancel_scope.cancel()
    heir = Gateway(nursery, spool=SafingSpool(folder))
    heir.ledger.rows = gateway.ledger.rows
    await nursery.start(heir.commands.run)
    assert said(heir.ledger.rows[order.command_id].cancels) == [(ONE, CancelMode.GRACEFUL, 1.0)]
    assert list(folder.glob("*.jsonl")) == []


async def test_whoever_cancels_need_not_wait_for_what_cannot_be_canceled(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    order = command_order(site)
    await gateway.commands.submit(order)
    await link.hear_next(EventCommand)
    link.say(PublishCommandResult(seq=1, command_id=order.command_id, status=CommandStatus.RUNNING))
    await cancel(gateway, order, ONE)
    how = CanceledHow.NOT_CANCELABLE
    link.say(PublishCommandResult(seq=2, command_id=order.command_id, status=CommandStatus.RUNNING, canceled=how))
    began = trio.current_time()
    record = await gateway.commands.wait(order.command_id, 60, for_cancel=True)
    assert trio.current_time() - began < 1
    assert (record.state, record.canceled) == (S.RUNNING, how)
    record = await gateway.commands.wait(order.command_id, 5)  # and whoever waits for its end goes on waiting
    assert trio.current_time() - began >= 5
    link.say(PublishCommandResult(seq=3, command_id=order.command_id, status=CommandStatus.COMPLETED))
    assert (await gateway.commands.wait(order.command_id, 5)).state is S.COMPLETED
