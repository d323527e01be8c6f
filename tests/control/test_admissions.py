"""What a stop, a cancel and a repeat meet while a command is looked up and admitted, or was never written."""

import logging
from datetime import UTC, datetime
from math import inf
from uuid import uuid4

import pytest
import trio
import trio.testing

from skygw.control.commands import LEDGER_PATIENCE_S, ROUTE_PATIENCE_S, Cancellation
from skygw.control.ledger import Caller, CommandRecord, CommandState, Transition
from skygw.control.order import CommandOrder
from skygw.errors import DeadlineExceeded, Hop, LinkLost, NodeOffline, Outcome, RoutingUnavailable
from skygw.ids import DeviceUid, Epoch
from skygw.nodes.session import SessionRules
from skygw.protocol.gateway_frames import CancelCommand, CancelMode, EventCommand, QueryCommand
from skygw.protocol.node_frames import CanceledHow, CommandStatus, Ping, PublishCommandResult
from tests.fakes.rooms import Gateway, PlayedLink, Site, command_order

Clock = trio.testing.MockClock
S = CommandState
STOP = {"command_type": "mount.stop"}
PERSON = Caller("console", {"uid": "9", "kind": "user"})
STAGES = {"who controls it is asked": 1, "whether it is known is asked": 3, "it is stored": 5, "it is in the ledger": 7}
"""Seconds, where each question to the database takes 2."""


async def running(nursery: trio.Nursery) -> tuple[Gateway, Site, PlayedLink]:
    gateway, site = Gateway(nursery, SessionRules(dead_after_s=inf)), Site()
    nursery.start_soon(gateway.commands.run)
    return gateway, site, await gateway.connect(site)


async def cancel(gateway: Gateway, order: CommandOrder) -> Cancellation:
    return await gateway.commands.cancel(order.command_id, mode=CancelMode.GRACEFUL, grace_s=None, by=PERSON)


async def flushed(gateway: Gateway) -> None:
    with trio.fail_after(30):
        await gateway.commands.flush()


async def stuck(gateway: Gateway, site: Site, link: PlayedLink) -> None:
    link.stall()
    gateway.session(site).say(Ping(id="stuck"))
    await trio.testing.wait_all_tasks_blocked()


async def cut(link: PlayedLink) -> None:
    link.hang_up()
    await link.served.wait()


def kinds(link: PlayedLink) -> list[str]:
    return [str(message).split('"')[3] for message in link.heard_so_far() if "command" in str(message)]


class Submitted:
    """A command that a caller is waiting for."""

    def __init__(self, gateway: Gateway, order: CommandOrder) -> None:
        self.answers: list[tuple[CommandRecord, bool]] = []
        self._gateway = gateway
        self._order = order

    async def run(self) -> None:
        self.answers.append(await self._gateway.commands.submit(self._order))


# A stop or a cancel meanwhile.


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("by", ["stop", "cancel"])
async def test_what_is_stopped_while_it_is_admitted_is_not_written(
    autojump_clock: Clock, nursery: trio.Nursery, by: str, stage: str
) -> None:
    gateway, site, link = await running(nursery)
    gateway.database.slow_s = 2.0
    move = command_order(site)
    caller = Submitted(gateway, move)
    async with trio.open_nursery() as callers:
        callers.start_soon(caller.run)
        await trio.sleep(STAGES[stage])
        if by == "stop":
            await gateway.commands.submit(command_order(site, STOP))
        else:
            await cancel(gateway, move)
    [(record, duplicate)] = caller.answers
    assert not duplicate
    assert (record.state, record.canceled) == (S.CANCELED, CanceledHow.BEFORE_START)
    await flushed(gateway)
    assert gateway.ledger.states(move.command_id) == [S.RECEIVED, S.CANCELED]
    assert gateway.ledger.rows[move.command_id].canceled == CanceledHow.BEFORE_START
    sent = [message for message in link.heard_so_far() if "event_command" in str(message)]
    assert len(sent) == (1 if by == "stop" else 0)
    assert not any("mount.point" in str(message) for message in sent)


async def test_who_is_told_that_a_command_was_taken_back_is_told_when_the_ledger_knows(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, _ = await running(nursery)
    gateway.database.slow_s = 0.2
    move = command_order(site)
    caller = Submitted(gateway, move)
    async with trio.open_nursery() as callers:
        callers.start_soon(caller.run)
        await trio.sleep(0.3)
        await gateway.commands.submit(command_order(site, STOP))
    assert caller.answers[0][0].canceled == CanceledHow.BEFORE_START
    assert gateway.ledger.states(move.command_id) == [S.RECEIVED, S.CANCELED]


async def test_a_repeat_of_what_was_taken_back_is_not_sent_before_the_ledger_knows(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery, SessionRules(dead_after_s=inf)), Site()
    link = await gateway.connect(site)  # nobody writes to the ledger what the gateway learns
    gateway.database.slow_s = 2.0
    move = command_order(site)
    async with trio.open_nursery() as callers:
        callers.start_soon(gateway.commands.submit, move)
        await trio.sleep(3)
        await gateway.commands.submit(command_order(site, STOP))
    with pytest.raises(RoutingUnavailable):
        await gateway.commands.submit(move)
    assert not any("mount.point" in str(message) for message in link.heard_so_far())


async def test_a_stop_leaves_what_it_would_not_be_undone_by_to_be_admitted(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    gateway.database.slow_s = 2.0
    exposure = command_order(site, {"command_type": "camera.exposure.start"})
    async with trio.open_nursery() as callers:
        callers.start_soon(gateway.commands.submit, exposure)
        await trio.sleep(1)
        await gateway.commands.submit(command_order(site, STOP))
    await link.hear_next(EventCommand)
    assert (await link.hear_next(EventCommand)).command_id == exposure.command_id


@pytest.mark.parametrize("stage", STAGES)
async def test_a_cancel_does_not_wait_for_an_admission(
    autojump_clock: Clock, nursery: trio.Nursery, stage: str
) -> None:
    gateway, site, _ = await running(nursery)
    gateway.database.slow_s = 2.0
    move = command_order(site)
    async with trio.open_nursery() as callers:
        callers.start_soon(gateway.commands.submit, move)
        await trio.sleep(STAGES[stage])
        began = trio.current_time()
        cancellation = await cancel(gateway, move)
        assert trio.current_time() - began <= LEDGER_PATIENCE_S
        # Before it is known whether an earlier life of it runs, nothing is claimed.
        assert cancellation == Cancellation("before_start" if STAGES[stage] > 4 else "asked", None)


async def test_a_cancel_of_an_admission_in_doubt_ends_what_may_have_been_stored(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, _ = await running(nursery)
    gateway.database.slow_s, gateway.database.answers_lost = 2.0, True
    move = command_order(site)
    caught: list[RoutingUnavailable] = []

    async def bring() -> None:
        try:
            await gateway.commands.submit(move)
        except RoutingUnavailable as error:
            caught.append(error)

    async with trio.open_nursery() as callers:
        callers.start_soon(bring)
        await trio.sleep(5)
        await cancel(gateway, move)
    assert [error.outcome for error in caught] == [Outcome.NOT_SENT]
    await flushed(gateway)
    assert gateway.ledger.states(move.command_id) == [S.RECEIVED, S.CANCELED]


async def test_a_cancel_of_what_is_unknown_is_sent_before_the_ledger_is_asked(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    order = command_order(site)
    await gateway.commands.submit(order)
    await link.hear_next(EventCommand)
    await cut(link)
    again = await gateway.connect(site)
    assert (await gateway.commands.get(order.command_id)).state is S.UNKNOWN
    gateway.database.slow_s = 5.0
    began = trio.current_time()
    nursery.start_soon(cancel, gateway, order)
    assert (await again.hear_next(CancelCommand)).command_id == order.command_id
    assert trio.current_time() == began


# Repeats of what was never written.


async def test_a_command_whose_admission_was_in_doubt_is_sent_by_its_repeat(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    order = command_order(site)
    gateway.database.answers_lost = True
    with pytest.raises(RoutingUnavailable):
        await gateway.commands.submit(order)
    gateway.database.answers_lost = False
    await cut(link)
    link = await gateway.connect(site)
    _, duplicate = await gateway.commands.submit(order)
    assert not duplicate
    event = await link.hear_next(EventCommand)
    assert event.command_id == order.command_id
    await flushed(gateway)
    assert gateway.ledger.states(order.command_id) == [S.RECEIVED, S.EXPIRED, S.RECEIVED, S.WRITTEN]
    assert gateway.ledger.rows[order.command_id].epoch == event.epoch


async def test_a_command_that_expired_unwritten_is_sent_by_its_repeat(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    order = command_order(site)
    gateway.database.slow_s = 2.0

    async def cut_it() -> None:
        await trio.sleep(5)
        link.hang_up()

    nursery.start_soon(cut_it)
    with pytest.raises(LinkLost) as caught:
        await gateway.commands.submit(order)
    assert caught.value.outcome is Outcome.NOT_SENT
    gateway.database.slow_s = 0.1
    link = await gateway.connect(site)
    _, duplicate = await gateway.commands.submit(order)
    assert not duplicate
    assert (await link.hear_next(EventCommand)).command_id == order.command_id
    await flushed(gateway)
    link.say(PublishCommandResult(seq=1, command_id=order.command_id, status=CommandStatus.COMPLETED))
    assert (await gateway.commands.wait(order.command_id, 10)).state is S.COMPLETED
    assert gateway.ledger.states(order.command_id) == [S.RECEIVED, S.EXPIRED, S.RECEIVED, S.WRITTEN, S.COMPLETED]


async def test_of_many_repeats_of_what_was_never_written_one_is_sent(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    order = command_order(site)
    await stuck(gateway, site, link)
    await gateway.commands.submit(order)
    await cut(link)
    link = await gateway.connect(site)
    gateway.database.slow_s = 0.1
    callers = [Submitted(gateway, order) for _ in range(5)]
    async with trio.open_nursery() as together:
        for caller in callers:
            together.start_soon(caller.run)
    assert sorted(duplicate for caller in callers for _, duplicate in caller.answers) == [False] + [True] * 4
    await flushed(gateway)
    assert kinds(link) == ["event_command"]


async def test_a_stop_that_was_withdrawn_unwritten_is_sent_by_its_repeat(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    order = command_order(site, STOP)
    await stuck(gateway, site, link)
    await gateway.commands.submit(order)
    await cut(link)
    assert (await gateway.commands.get(order.command_id)).state is S.EXPIRED
    link = await gateway.connect(site)
    _, duplicate = await gateway.commands.submit(order)
    assert not duplicate
    assert (await link.hear_next(EventCommand)).command_id == order.command_id
    await flushed(gateway)
    states = gateway.ledger.states(order.command_id)
    assert (states[0], states[-1]) == (S.RECEIVED, S.WRITTEN)
    assert S.EXPIRED in states
    _, duplicate = await gateway.commands.submit(order)
    assert duplicate


# Who controls what.


async def test_a_stop_for_what_was_bound_after_the_hello_is_routed_by_the_records(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    dome = DeviceUid(uuid4())
    gateway.controllers.of[dome] = site.install_id
    order = command_order(site, {"command_type": "dome.stop"}, telescope_uid=None, device_uid=dome)
    await gateway.commands.submit(order)
    assert (await link.hear_next(EventCommand)).device_uid == dome


@pytest.mark.parametrize("database", ["away", "slow"])
async def test_a_stop_for_an_unknown_target_does_not_wait_long_for_the_records(
    autojump_clock: Clock, nursery: trio.Nursery, database: str
) -> None:
    gateway, site, _ = await running(nursery)
    gateway.database.away = database == "away"
    gateway.database.slow_s = 60.0 if database == "slow" else 0.0
    began = trio.current_time()
    with pytest.raises(NodeOffline):
        await gateway.commands.submit(command_order(site, STOP, telescope_uid=None, device_uid=DeviceUid(uuid4())))
    assert trio.current_time() - began <= ROUTE_PATIENCE_S


# What is left of an earlier session.


def left_written(site: Site) -> CommandRecord:
    """A command that a process which is gone has written."""
    record = command_order(site).record(site.install_id, Epoch(0), left_s=60)
    record.state = S.WRITTEN
    record.transitions.append(Transition(datetime.now(UTC), S.WRITTEN, Hop.GATEWAY))
    return record


@pytest.mark.parametrize("database_away", [False, True])
async def test_a_new_session_is_asked_what_became_of_what_was_written_to_older_ones(
    autojump_clock: Clock, nursery: trio.Nursery, *, database_away: bool
) -> None:
    gateway, site, link = await running(nursery)
    await cut(link)
    record = left_written(site)
    gateway.ledger.rows[record.command_id] = record
    gateway.database.away = database_away
    link = await gateway.connect(site)
    gateway.database.away = False
    assert (await link.hear_next(QueryCommand)).command_ids == (record.command_id,)
    assert gateway.ledger.states(record.command_id) == [S.RECEIVED, S.WRITTEN, S.UNKNOWN]
    link.say(PublishCommandResult(seq=1, command_id=record.command_id, status=CommandStatus.COMPLETED))
    with trio.fail_after(30):
        while (await gateway.commands.get(record.command_id)).state is not S.COMPLETED:  # noqa: ASYNC110
            await trio.sleep(0.1)


async def test_a_session_with_nothing_to_ask_for_is_asked_nothing(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, _ = await running(nursery)
    other, link = left_written(Site()), await gateway.connect(site)
    gateway.ledger.rows[other.command_id] = other
    await trio.testing.wait_all_tasks_blocked()
    assert kinds(link) == []


# Time, and the log.


async def test_the_node_gets_what_the_way_to_it_has_left_of_the_time(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    gateway.database.slow_s = 2.0
    await gateway.commands.submit(command_order(site, timeout_s=60.0))
    assert (await link.hear_next(EventCommand)).deadline_ms == pytest.approx(52_000, abs=100)


async def test_a_command_whose_time_runs_out_on_the_way_is_not_sent(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    gateway.database.slow_s = 2.0
    order = command_order(site, timeout_s=5.0)
    with pytest.raises(DeadlineExceeded) as caught:
        await gateway.commands.submit(order)
    assert caught.value.outcome is Outcome.NOT_SENT
    await flushed(gateway)
    assert gateway.ledger.states(order.command_id) == [S.RECEIVED, S.EXPIRED]
    assert kinds(link) == []


async def test_a_flush_waits_until_the_ledger_has_every_step(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, link = await running(nursery)
    order = command_order(site)
    await gateway.commands.submit(order)
    await link.hear_next(EventCommand)
    gateway.database.slow_s = 0.3
    await cut(link)
    await flushed(gateway)
    assert gateway.ledger.states(order.command_id) == [S.RECEIVED, S.WRITTEN, S.UNKNOWN]


async def test_a_command_that_ends_leaves_one_line_in_the_log(
    autojump_clock: Clock, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="skygw.control")
    gateway, site, link = await running(nursery)
    order = command_order(site)
    await gateway.commands.submit(order)
    await link.hear_next(EventCommand)
    await trio.sleep(2)
    link.say(PublishCommandResult(seq=1, command_id=order.command_id, status=CommandStatus.COMPLETED))
    await gateway.commands.wait(order.command_id, 10)
    [line] = [line.__dict__ for line in caplog.records if line.message == "command ended"]
    assert (line["command_id"], line["command_type"]) == (str(order.command_id), "mount.point")
    assert (line["target"], line["service"], line["outcome"]) == (str(site.telescope_uid), "tests", "succeeded")
    assert line["seconds"] == pytest.approx(2, abs=0.1)
