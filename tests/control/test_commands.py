"""Commands: admitted before they are sent, followed to their end, and safing past everything."""

from collections.abc import Callable
from math import inf
from typing import Any
from uuid import uuid4

import pytest
import trio
import trio.testing

from skygw.control.commands import Cancellation
from skygw.control.ledger import Caller, CommandQuery, CommandRecord, CommandState
from skygw.control.live_command import REMEMBER_SAFING_S
from skygw.control.order import CommandOrder
from skygw.errors import (
    Draining,
    Forbidden,
    GatewayError,
    IdReused,
    IllegalTransition,
    Invalid,
    LinkLost,
    NodeOffline,
    NotFound,
    Outcome,
    RoutingUnavailable,
)
from skygw.ids import CommandId, TelescopeUid
from skygw.nodes.link import LAST_WORDS_S
from skygw.nodes.ports import NOT_ITS
from skygw.nodes.session import SessionRules
from skygw.protocol.close_codes import CloseCode
from skygw.protocol.gateway_frames import Ack, CancelCommand, CancelMode, EventCommand, EventToken, Nack
from skygw.protocol.json_text import Opaque
from skygw.protocol.node_frames import CanceledHow, CommandStatus, Ping, PublishCommandResult
from tests.fakes.memory_database import MemoryDatabase
from tests.fakes.rooms import Gateway, PlayedLink, Site, command_order, fill_data_lane

Clock = trio.testing.MockClock
S = CommandState
STOP = {"command_type": "mount.stop"}
PERSON = Caller("console", {"uid": "9", "kind": "user"})


async def running(nursery: trio.Nursery, **hello: Any) -> tuple[Gateway, Site, PlayedLink]:
    gateway, site = Gateway(nursery, SessionRules(dead_after_s=inf)), Site()
    nursery.start_soon(gateway.commands.run)
    return gateway, site, await gateway.connect(site, **hello)


def result(order: CommandOrder, seq: int, status: CommandStatus, **members: Any) -> PublishCommandResult:
    return PublishCommandResult(seq=seq, command_id=order.command_id, status=status, **members)


async def stuck(gateway: Gateway, site: Site, link: PlayedLink) -> None:
    """The peer stops reading, with one message half out: what is put now waits."""
    link.stall()
    gateway.session(site).say(Ping(id="stuck"))
    await trio.testing.wait_all_tasks_blocked()


async def in_ledger(gateway: Gateway, order: CommandOrder, state: CommandState) -> list[CommandState]:
    """Waits until the ledger has the command in that state."""

    def there() -> bool:
        row = gateway.ledger.rows.get(order.command_id)
        return row is not None and row.state is state

    with trio.fail_after(30):
        while not there():  # noqa: ASYNC110 - the ledger's twin is a table, and tables have no events
            await trio.sleep(0.1)
    return gateway.ledger.states(order.command_id)


# The way of a command.


async def test_a_command_climbs_from_received_to_completed_and_the_ledger_has_every_step(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    order = command_order(site, origin=Opaque('{"a":  1.0}', {"a": 1.0}))
    record, duplicate = await gateway.commands.submit(order)
    assert not duplicate
    event = await link.hear_next(EventCommand)
    assert (event.command, event.origin, event.telescope_uid) == (order.command, order.origin, site.telescope_uid)
    assert event.epoch == gateway.session(site).epoch
    assert event.deadline_ms is not None
    assert 0 < event.deadline_ms <= 60_000
    link.say(result(order, 1, CommandStatus.ACCEPTED))
    link.say(result(order, 2, CommandStatus.RUNNING, progress=0.5))
    link.say(result(order, 3, CommandStatus.COMPLETED, result=Opaque('{"x":1.50}', {"x": 1.5})))
    ended = await gateway.commands.wait(order.command_id, 10)
    assert (ended.state, ended.outcome, ended.result) == (S.COMPLETED, Outcome.SUCCEEDED, '{"x":1.50}')
    assert [step.state for step in ended.transitions] == [S.RECEIVED, S.WRITTEN, S.ACCEPTED, S.RUNNING, S.COMPLETED]
    assert (await in_ledger(gateway, order, S.COMPLETED))[-3:] == [S.ACCEPTED, S.RUNNING, S.COMPLETED]
    assert gateway.command_outcomes == [Outcome.SUCCEEDED]
    assert (await gateway.commands.get(record.command_id)).state is S.COMPLETED


async def test_nothing_is_sent_before_the_ledger_has_admitted_it(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, link = await running(nursery)
    gateway.database.away = True
    with pytest.raises(RoutingUnavailable) as caught:
        await gateway.commands.submit(command_order(site))
    assert caught.value.outcome is Outcome.NOT_SENT
    await trio.testing.wait_all_tasks_blocked()
    assert link.heard_so_far() == []


async def test_waiting_gives_the_record_as_it_stands_when_the_wait_is_over(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, _ = await running(nursery)
    order = command_order(site)
    await gateway.commands.submit(order)
    began = trio.current_time()
    assert (await gateway.commands.wait(order.command_id, 3)).state is S.WRITTEN
    assert trio.current_time() - began == pytest.approx(3)


async def test_a_result_is_believed_when_it_is_committed(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, link = await running(nursery)
    order = command_order(site)
    await gateway.commands.submit(order)
    await link.hear_next(EventCommand)
    gateway.database.away = True
    link.say(result(order, 1, CommandStatus.COMPLETED))
    assert (await gateway.commands.wait(order.command_id, 5)).state is S.WRITTEN
    gateway.database.away = False
    assert (await gateway.commands.wait(order.command_id, 5)).state is S.COMPLETED


# Repeats and refusals.


async def test_a_repeat_is_told_what_the_ledger_has_not_heard_yet(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, link = await running(nursery)
    await stuck(gateway, site, link)
    order = command_order(site)
    await gateway.commands.submit(order)
    await gateway.commands.cancel(order.command_id, mode=CancelMode.GRACEFUL, grace_s=None, by=PERSON)
    again, duplicate = await gateway.commands.submit(order)
    assert (again.state, duplicate) == (S.CANCELED, True)


async def test_a_repeat_gets_the_stored_record_and_is_sent_once(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, link = await running(nursery)
    order = command_order(site)
    await gateway.commands.submit(order)
    record, duplicate = await gateway.commands.submit(order)
    assert duplicate
    assert record.command_id == order.command_id
    await trio.testing.wait_all_tasks_blocked()
    assert len(link.heard_so_far()) == 1


async def test_a_repeat_gets_the_stored_record_also_when_the_node_is_gone(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    order = command_order(site)
    await gateway.commands.submit(order)
    await link.hear_next(EventCommand)
    link.hang_up()
    await link.served.wait()
    record, duplicate = await gateway.commands.submit(order)
    assert duplicate
    assert record.identity == (await gateway.commands.get(order.command_id)).identity


@pytest.mark.parametrize("first", ["moving", "safing"])
async def test_an_id_of_another_command_is_refused(autojump_clock: Clock, nursery: trio.Nursery, first: str) -> None:
    gateway, site, link = await running(nursery)
    order = command_order(site, STOP if first == "safing" else None)
    await gateway.commands.submit(order)
    await in_ledger(gateway, order, S.WRITTEN)
    kind = "mount.abort" if first == "safing" else "mount.park"
    with pytest.raises(IdReused) as caught:
        await gateway.commands.submit(command_order(site, {"command_type": kind}, command_id=order.command_id))
    assert caught.value.outcome is Outcome.NOT_SENT
    assert len(link.heard_so_far()) == 1


async def not_connected(gateway: Gateway, site: Site, link: PlayedLink) -> type[GatewayError]:
    link.hang_up()
    await link.served.wait()
    return NodeOffline


async def ending(gateway: Gateway, site: Site, link: PlayedLink) -> type[GatewayError]:
    await stuck(gateway, site, link)
    gateway.session(site).end(CloseCode.REVOKED, "revoked")
    return NodeOffline


async def in_grace(gateway: Gateway, site: Site, link: PlayedLink) -> type[GatewayError]:
    gateway.session(site).token.in_grace = True
    return Forbidden


async def database_away(gateway: Gateway, site: Site, link: PlayedLink) -> type[GatewayError]:
    gateway.database.away = True
    return RoutingUnavailable


async def draining(gateway: Gateway, site: Site, link: PlayedLink) -> type[GatewayError]:
    gateway.commands.drain()
    return Draining


@pytest.mark.parametrize("prepare", [not_connected, ending, in_grace, database_away, draining])
async def test_a_refusal_that_sent_nothing_does_not_use_up_the_id(
    autojump_clock: Clock, nursery: trio.Nursery, prepare: Callable[..., Any]
) -> None:
    gateway, site, link = await running(nursery)
    order = command_order(site)
    error = await prepare(gateway, site, link)
    with pytest.raises(error) as caught:
        await gateway.commands.submit(order)
    assert caught.value.outcome is Outcome.NOT_SENT
    assert gateway.ledger.rows == {}


async def test_what_nobody_controls_is_not_found(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, _ = await running(nursery)
    with pytest.raises(NotFound):
        await gateway.commands.submit(command_order(site, telescope_uid=TelescopeUid(uuid4())))
    with pytest.raises(NotFound):
        await gateway.commands.get(CommandId(uuid4()))


@pytest.mark.parametrize("command", [{}, {"command_type": 7}, {"command_type": ""}, {"command_type": "x" * 101}])
async def test_a_command_without_a_type_is_invalid(
    autojump_clock: Clock, nursery: trio.Nursery, command: dict[str, Any]
) -> None:
    gateway, site, _ = await running(nursery)
    with pytest.raises(Invalid):
        await gateway.commands.submit(command_order(site, command))


# The link.


async def test_a_command_written_to_a_link_that_is_lost_is_unknown_until_the_node_tells(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    order = command_order(site)
    await gateway.commands.submit(order)
    await link.hear_next(EventCommand)
    link.hang_up()
    lost = await gateway.commands.wait(order.command_id, 30)
    assert (lost.state, lost.outcome) == (S.UNKNOWN, Outcome.UNKNOWN)
    assert (await in_ledger(gateway, order, S.UNKNOWN))[-1] is S.UNKNOWN
    again = await gateway.connect(site)
    again.say(result(order, 1, CommandStatus.COMPLETED))
    await again.hear_next(Ack)
    assert (await gateway.commands.wait(order.command_id, 30)).state is S.COMPLETED
    assert (await in_ledger(gateway, order, S.COMPLETED))[-2:] == [S.UNKNOWN, S.COMPLETED]


async def test_a_result_committed_by_a_session_that_was_cut_before_its_ack_is_found(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    order = command_order(site)
    await gateway.commands.submit(order)
    await link.hear_next(EventCommand)
    link.hang_up()
    assert (await gateway.commands.wait(order.command_id, 30)).state is S.UNKNOWN
    await in_ledger(gateway, order, S.UNKNOWN)
    gateway.ledger.apply(site.install_id, result(order, 1, CommandStatus.COMPLETED))
    assert (await gateway.commands.get(order.command_id)).state is S.COMPLETED


async def test_with_the_ledger_away_what_memory_knows_is_the_answer(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    order = command_order(site)
    await gateway.commands.submit(order)
    await link.hear_next(EventCommand)
    link.hang_up()
    await link.served.wait()
    gateway.database.away = True
    assert (await gateway.commands.get(order.command_id)).state is S.UNKNOWN


async def test_a_command_that_was_never_written_has_expired_and_was_not_sent(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    await stuck(gateway, site, link)
    order = command_order(site)
    await gateway.commands.submit(order)
    link.hang_up()
    record = await gateway.commands.wait(order.command_id, 30)
    assert (record.state, record.outcome) == (S.EXPIRED, Outcome.NOT_SENT)
    assert await in_ledger(gateway, order, S.EXPIRED) == [S.RECEIVED, S.EXPIRED]


async def test_a_command_in_the_middle_of_whose_write_the_link_died_is_unknown(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    link.stall()
    order = command_order(site)
    await gateway.commands.submit(order)
    await trio.testing.wait_all_tasks_blocked()
    gateway.session(site).end(CloseCode.SLOW_CONSUMER, "slow")
    await trio.sleep(3 * LAST_WORDS_S)
    assert (await gateway.commands.wait(order.command_id, 30)).state is S.UNKNOWN


async def test_a_session_that_ends_while_its_command_is_admitted_leaves_it_expired(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    order = command_order(site)
    gateway.database.slow_s = 2.0

    async def cut() -> None:
        await trio.sleep(5)  # asked who controls it and whether it is known; now it is being admitted
        link.hang_up()

    nursery.start_soon(cut)
    with pytest.raises(LinkLost) as caught:
        await gateway.commands.submit(order)
    assert caught.value.outcome is Outcome.NOT_SENT
    assert await in_ledger(gateway, order, S.EXPIRED) == [S.RECEIVED, S.EXPIRED]


async def test_results_of_another_installation_move_nothing(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, link = await running(nursery)
    other = Site()
    stranger = await gateway.connect(other)
    order = command_order(site)
    record, _ = await gateway.commands.submit(order)
    await link.hear_next(EventCommand)
    stranger.say(result(order, 1, CommandStatus.COMPLETED))
    nack = await stranger.hear_next(Nack)
    assert (nack.seq, nack.reason) == (1, NOT_ITS)
    assert (await stranger.hear_next(Ack)).seq == 1
    assert record.state is S.WRITTEN
    assert (await gateway.commands.get(order.command_id)).state is S.WRITTEN


# Safing.


async def test_a_stop_is_sent_while_the_ledger_is_away_and_recorded_late(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    gateway.database.away = True
    order = command_order(site, STOP)
    began = trio.current_time()
    await gateway.commands.submit(order)
    event = await link.hear_next(EventCommand)
    assert trio.current_time() == began
    assert event.deadline_ms is None
    link.say(result(order, 1, CommandStatus.COMPLETED, proof=Opaque.of({"devices": []})))
    ended = await gateway.commands.wait(order.command_id, 5)
    assert (ended.state, ended.proof) == (S.COMPLETED, '{"devices":[]}')
    await trio.sleep(20)
    gateway.database.away = False
    await in_ledger(gateway, order, S.COMPLETED)
    assert gateway.ledger.rows[order.command_id].recorded_late
    assert gateway.command_outcomes == [Outcome.SUCCEEDED]


async def test_a_step_made_while_the_ledger_writes_a_stop_is_not_lost(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    gateway.database.slow_s = 2.0
    await stuck(gateway, site, link)
    order = command_order(site, STOP)
    await gateway.commands.submit(order)
    await trio.sleep(1)  # the ledger is writing it as received
    link.flow()
    assert S.WRITTEN in await in_ledger(gateway, order, S.WRITTEN)


async def test_a_result_said_while_the_ledger_writes_a_stop_is_not_lost(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    gateway.database.slow_s = 2.0
    order = command_order(site, STOP)
    await gateway.commands.submit(order)
    await trio.sleep(1)
    gateway.database.slow_s = 0.0
    link.say(result(order, 1, CommandStatus.COMPLETED))  # committed before the ledger has the command
    await link.hear_next(Ack)
    assert (await in_ledger(gateway, order, S.COMPLETED))[-1] is S.COMPLETED


async def test_a_stop_overtakes_what_waits(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, link = await running(nursery)
    await stuck(gateway, site, link)
    for _ in range(20):
        await gateway.commands.submit(command_order(site, {"command_type": "mountain.climb"}))
    order = command_order(site, STOP)
    await gateway.commands.submit(order)
    link.flow()
    assert (await link.hear_next(EventCommand)).command_id == order.command_id


@pytest.mark.parametrize(
    ("waiting", "stop", "taken_back"),
    [
        ("mount.point", "mount.stop", True),
        ("mount.point", "telescope.safe_shutdown", True),
        ("mount.point", "telescope.stop", True),
        ("camera.exposure.start", "mount.stop", False),
        ("camera.exposure.start", "camera.exposure.abort", True),
        ("mountain.climb", "mount.stop", False),
    ],
)
async def test_a_stop_takes_back_what_waits_and_would_undo_it(
    autojump_clock: Clock, nursery: trio.Nursery, waiting: str, stop: str, *, taken_back: bool
) -> None:
    gateway, site, link = await running(nursery)
    await stuck(gateway, site, link)
    move = command_order(site, {"command_type": waiting})
    await gateway.commands.submit(move)
    await gateway.commands.submit(command_order(site, {"command_type": stop}, service="console"))
    link.flow()
    assert (await link.hear_next(EventCommand)).command.value == {"command_type": stop}
    record = await gateway.commands.wait(move.command_id, 1)
    assert record.state is (S.CANCELED if taken_back else S.WRITTEN)
    assert record.transitions[-1].by == (Caller("console") if taken_back else None)
    assert len(link.heard_so_far()) == (0 if taken_back else 1)


async def test_what_was_taken_back_while_it_was_admitted_is_not_sent_by_the_repeat_behind_it(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    gateway.database.slow_s = 1.0
    move, told = command_order(site), list[tuple[CommandState, bool]]()

    async def send() -> None:
        record, duplicate = await gateway.commands.submit(move)
        told.append((record.state, duplicate))

    async with trio.open_nursery() as callers:
        callers.start_soon(send)
        await trio.sleep(1.5)
        await gateway.commands.submit(command_order(site, STOP))  # of which the ledger hears for a second
        callers.start_soon(send)
        await trio.sleep(0.1)
        gateway.database.slow_s = 0.0
    assert told == [(S.CANCELED, False), (S.CANCELED, True)]
    assert await in_ledger(gateway, move, S.CANCELED) == [S.RECEIVED, S.CANCELED]
    assert [frame for frame in link.heard_so_far() if "mount.point" in str(frame)] == []


async def test_a_stop_leaves_what_waits_for_another_telescope(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, _link = await running(nursery)
    other = Site()
    other_link = await gateway.connect(other)
    await stuck(gateway, other, other_link)
    move = command_order(other)
    await gateway.commands.submit(move)
    await gateway.commands.submit(command_order(site, STOP))
    other_link.flow()
    assert (await other_link.hear_next(EventCommand)).command_id == move.command_id


async def test_a_stop_that_another_process_sent_keeps_its_end_when_its_repeat_does_not_get_out(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    kept, site, order = MemoryDatabase(), Site(), None
    for lost in (False, True):
        gateway = Gateway(nursery, SessionRules(dead_after_s=inf), kept=kept)
        nursery.start_soon(gateway.commands.run)
        link = await gateway.connect(site)
        order = order or command_order(site, STOP)
        if lost:
            await stuck(gateway, site, link)
        record, _ = await gateway.commands.submit(order)
        if lost:
            gateway.session(site).end(CloseCode.REVOKED, "revoked")
            assert (await gateway.commands.wait(record.command_id, 30)).state is S.COMPLETED
        else:
            await link.hear_next(EventCommand)
            link.say(result(order, 1, CommandStatus.COMPLETED))
            await in_ledger(gateway, order, S.COMPLETED)
        assert (await gateway.commands.get(record.command_id)).state is S.COMPLETED


@pytest.mark.parametrize("hindrance", ["draining", "grace", "full data lane", "bad trace"])
async def test_a_stop_passes_whatever_refuses_other_commands(
    autojump_clock: Clock, nursery: trio.Nursery, hindrance: str
) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site, token_lasts_s=5 if hindrance == "grace" else 1e6)
    session = gateway.session(site)
    if hindrance == "draining":
        gateway.commands.drain()
    if hindrance == "grace":
        gateway.tokens.reachable = False
        await link.hear_next(EventToken)
    if hindrance == "full data lane":
        link.stall()
        fill_data_lane(session)
    order = command_order(site, STOP, traceparent="nonsense" if hindrance == "bad trace" else None)
    await gateway.commands.submit(order)
    link.flow()
    assert (await link.hear_next(EventCommand)).command_id == order.command_id


async def test_a_stop_for_a_device_is_routed_by_the_live_binding(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, link = await running(nursery)
    order = command_order(site, STOP, telescope_uid=None, device_uid=site.device_uid)
    await gateway.commands.submit(order)
    assert (await link.hear_next(EventCommand)).device_uid == site.device_uid


async def test_a_stop_for_a_node_that_is_away_says_so_and_can_be_tried_again(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    link.hang_up()
    await link.served.wait()
    order = command_order(site, STOP)
    with pytest.raises(NodeOffline) as caught:
        await gateway.commands.submit(order)
    assert caught.value.outcome is Outcome.NOT_SENT
    link = await gateway.connect(site)
    await gateway.commands.submit(order)
    assert (await link.hear_next(EventCommand)).command_id == order.command_id


async def test_a_repeated_stop_is_sent_once(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, link = await running(nursery)
    gateway.database.away = True
    order = command_order(site, STOP)
    await gateway.commands.submit(order)
    record, duplicate = await gateway.commands.submit(order)
    assert duplicate
    assert record.command_id == order.command_id
    await trio.testing.wait_all_tasks_blocked()
    assert len(link.heard_so_far()) == 1


# Cancel.


async def cancel(gateway: Gateway, order: CommandOrder) -> CommandRecord:
    cancellation = await gateway.commands.cancel(order.command_id, mode=CancelMode.IMMEDIATE, grace_s=1.5, by=PERSON)
    assert cancellation.record is not None
    return cancellation.record


async def test_a_cancel_of_what_only_the_absent_ledger_knows_goes_to_every_node_and_claims_nothing(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, _, link = await running(nursery)
    other = await gateway.connect(Site())
    command_id = CommandId(uuid4())
    gateway.database.away = True
    cancellation = await gateway.commands.cancel(command_id, mode=CancelMode.GRACEFUL, grace_s=None, by=PERSON)
    assert cancellation == Cancellation("asked", None)
    assert (await link.hear_next(CancelCommand)).command_id == command_id
    assert (await other.hear_next(CancelCommand)).command_id == command_id


async def test_a_cancel_reaches_the_node_even_with_the_ledger_away(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    order = command_order(site)
    await gateway.commands.submit(order)
    await link.hear_next(EventCommand)
    gateway.database.away = True
    await cancel(gateway, order)
    frame = await link.hear_next(CancelCommand)
    assert (frame.command_id, frame.mode, frame.grace_ms) == (order.command_id, CancelMode.IMMEDIATE, 1_500)
    gateway.database.away = False
    link.say(result(order, 1, CommandStatus.CANCELED, canceled=CanceledHow.INTERRUPTED))
    record = await gateway.commands.wait(order.command_id, 10)
    assert (record.state, record.canceled) == (S.CANCELED, CanceledHow.INTERRUPTED)


async def test_a_cancel_of_what_still_waits_takes_it_back_instead_of_overtaking_it(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    await stuck(gateway, site, link)
    order = command_order(site)
    await gateway.commands.submit(order)
    record = await cancel(gateway, order)
    assert (record.state, record.canceled) == (S.CANCELED, CanceledHow.BEFORE_START)
    link.flow()
    await trio.testing.wait_all_tasks_blocked()
    assert not any("command" in str(message) for message in link.heard_so_far())
    assert await in_ledger(gateway, order, S.CANCELED) == [S.RECEIVED, S.CANCELED]
    assert [step.by for step in gateway.ledger.rows[order.command_id].transitions] == [Caller("tests"), PERSON]


async def test_a_cancel_of_what_has_ended_changes_nothing(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, link = await running(nursery)
    order = command_order(site)
    await gateway.commands.submit(order)
    await link.hear_next(EventCommand)
    link.say(result(order, 1, CommandStatus.COMPLETED))
    await gateway.commands.wait(order.command_id, 5)
    assert (await cancel(gateway, order)).state is S.COMPLETED
    await trio.testing.wait_all_tasks_blocked()
    assert not any("cancel_command" in str(message) for message in link.heard_so_far())


async def test_a_cancel_for_a_node_that_is_away_says_so(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, link = await running(nursery)
    order = command_order(site)
    await gateway.commands.submit(order)
    await link.hear_next(EventCommand)
    link.hang_up()
    await link.served.wait()
    with pytest.raises(NodeOffline):
        await cancel(gateway, order)


# Memory.


# By an administrator's word.


async def test_only_what_is_unknown_is_resolved_and_the_word_stays(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    order = command_order(site)
    with pytest.raises(NotFound):
        await gateway.commands.resolve(order.command_id, S.FAILED, reason="x", by=PERSON)
    await gateway.commands.submit(order)
    await link.hear_next(EventCommand)
    with pytest.raises(IllegalTransition, match="written"):
        await gateway.commands.resolve(order.command_id, S.FAILED, reason="x", by=PERSON)
    link.hang_up()
    assert (await gateway.commands.wait(order.command_id, 30)).state is S.UNKNOWN

    record = await gateway.commands.resolve(order.command_id, S.FAILED, reason="the disk was lost", by=PERSON)
    assert (record.state, record.transitions[-1].detail, record.transitions[-1].by) == (
        S.FAILED,
        "the disk was lost",
        PERSON,
    )
    assert gateway.command_outcomes == ["failed"]
    again = await gateway.connect(site)
    again.say(result(order, 1, CommandStatus.COMPLETED))
    await again.hear_next(Ack)
    assert (await gateway.commands.get(order.command_id)).state is S.FAILED
    with pytest.raises(IllegalTransition, match="failed"):
        await gateway.commands.resolve(order.command_id, S.COMPLETED, reason="x", by=PERSON)


async def test_a_word_waits_for_the_ledger_and_is_not_taken_without_it(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    order = command_order(site)
    await gateway.commands.submit(order)
    await link.hear_next(EventCommand)
    await in_ledger(gateway, order, S.WRITTEN)
    gateway.database.away = True
    link.hang_up()
    await gateway.commands.wait(order.command_id, 30)
    with pytest.raises(RoutingUnavailable):
        await gateway.commands.resolve(order.command_id, S.FAILED, reason="x", by=PERSON)
    assert (await gateway.commands.get(order.command_id)).state is S.UNKNOWN


# What would refuse.


async def test_a_dry_run_lists_everything_at_once_and_leaves_no_trace(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    order = command_order(site)
    assert await gateway.commands.validate(order) == ([], False)
    await in_grace(gateway, site, link)
    gateway.commands.drain()
    found, duplicate = await gateway.commands.validate(order)
    assert ([error.reason for error in found], duplicate) == (["draining", "forbidden"], False)
    gateway.database.away = True
    found, _ = await gateway.commands.validate(order)
    assert [error.reason for error in found] == ["draining", "routing_unavailable"]
    assert gateway.ledger.rows == {}
    assert gateway.commands.followed == 0


async def test_what_has_ended_is_forgotten_here_and_stays_in_the_ledger(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    other = {"command_type": "camera.exposure.start"}
    orders = [command_order(site, STOP if number % 2 else other) for number in range(20)]
    for seq, order in enumerate(orders, 1):
        await gateway.commands.submit(order)
        link.say(result(order, seq, CommandStatus.COMPLETED))
    await trio.sleep(REMEMBER_SAFING_S + 120)
    assert gateway.commands.followed == 0
    _, total = await gateway.commands.page(CommandQuery(state=S.COMPLETED))
    assert total == 20


async def test_a_repeat_of_a_stop_that_has_ended_is_not_sent_again(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    order = command_order(site, STOP)
    await gateway.commands.submit(order)
    await link.hear_next(EventCommand)
    link.say(result(order, 1, CommandStatus.COMPLETED))
    await trio.sleep(1)
    record, duplicate = await gateway.commands.submit(order)
    assert duplicate
    assert record.state is S.COMPLETED
    assert not any("event_command" in str(message) for message in link.heard_so_far())
