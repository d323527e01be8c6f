"""What a gateway had admitted when it ended is in doubt: it is never sent again, and the node is asked."""

from datetime import timedelta
from math import inf

import pytest
import trio
import trio.testing

from skygw.control.ledger import Caller, CommandState
from skygw.control.order import CommandOrder
from skygw.errors import LinkLost
from skygw.ids import Epoch
from skygw.nodes.ports import NOT_KNOWN, Ending
from skygw.nodes.session import SessionRules
from skygw.protocol.close_codes import CloseCode
from skygw.protocol.gateway_frames import Ack, CancelMode, EventCommand, Nack, QueryCommand
from skygw.protocol.json_text import Opaque
from skygw.protocol.never_received import NEVER_RECEIVED
from skygw.protocol.node_frames import CommandStatus, Ping, PublishCommandResult
from tests.fakes.rooms import Gateway, PlayedLink, Site, command_order

Clock = trio.testing.MockClock
S = CommandState


async def running(nursery: trio.Nursery) -> tuple[Gateway, Site]:
    gateway = Gateway(nursery, SessionRules(dead_after_s=inf))
    await nursery.start(gateway.commands.run)
    return gateway, Site()


def left_received(gateway: Gateway, order: CommandOrder, site: Site) -> None:
    """As a gateway leaves it that ends between the admission and the first byte, or right behind that one."""
    record = order.record(site.install_id, Epoch(1), left_s=60)
    gateway.epochs.epochs[site.install_id] = 1
    gateway.ledger.rows[order.command_id] = record


def never(order: CommandOrder, seq: int = 1) -> PublishCommandResult:
    error = Opaque.of({"reason": NEVER_RECEIVED, "message": "It never came."})
    return PublishCommandResult(seq=seq, command_id=order.command_id, status=CommandStatus.REJECTED, error=error)


async def in_ledger(gateway: Gateway, order: CommandOrder, state: CommandState) -> None:
    with trio.fail_after(30):
        while gateway.ledger.rows[order.command_id].state is not state:  # noqa: ASYNC110 - a table has no events
            await trio.sleep(0.1)


async def doubted(gateway: Gateway, site: Site, order: CommandOrder) -> PlayedLink:
    left_received(gateway, order, site)
    link = await gateway.connect(site)
    assert (await link.hear_next(QueryCommand)).command_ids == (order.command_id,)
    return link


async def test_the_node_is_asked_for_what_it_may_have_got_and_its_word_is_the_end(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = await running(nursery)
    order = command_order(site)
    link = await doubted(gateway, site, order)
    assert (await gateway.commands.get(order.command_id)).state is S.UNKNOWN
    link.say(PublishCommandResult(seq=1, command_id=order.command_id, status=CommandStatus.COMPLETED))
    await in_ledger(gateway, order, S.COMPLETED)
    assert gateway.ledger.states(order.command_id) == [S.RECEIVED, S.UNKNOWN, S.COMPLETED]


async def test_a_repeat_is_not_sent_before_the_node_is_back_nor_after(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = await running(nursery)
    order = command_order(site)
    left_received(gateway, order, site)
    gateway.controllers.of[site.telescope_uid] = site.install_id
    record, duplicate = await gateway.commands.submit(order)
    assert (record.state, duplicate) == (S.RECEIVED, True)
    gateway.database.slow_s = 2.0  # the node is back before the ledger has heard that it is
    connecting = trio.Event()
    links: list[PlayedLink] = []

    async def connect() -> None:
        links.append(await gateway.connect(site))
        connecting.set()

    nursery.start_soon(connect)
    await connecting.wait()
    _, duplicate = await gateway.commands.submit(order)
    assert duplicate
    await links[0].hear_next(QueryCommand)
    record, duplicate = await gateway.commands.submit(order)
    assert (record.state, duplicate) == (S.UNKNOWN, True)
    assert not any("event_command" in str(message) for message in links[0].heard_so_far())


async def test_a_node_that_never_got_it_uses_the_id_up_and_is_believed(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = await running(nursery)
    order = command_order(site)
    link = await doubted(gateway, site, order)
    link.say(never(order))
    await in_ledger(gateway, order, S.REJECTED)
    record, duplicate = await gateway.commands.submit(order)
    assert (record.state, duplicate) == (S.REJECTED, True)


@pytest.mark.parametrize(
    "why", ["its memory is younger", "it had spoken of it", "a stop runs before it is written down"]
)
async def test_a_node_that_cannot_know_is_not_believed_and_the_command_stays_unknown(
    autojump_clock: Clock, nursery: trio.Nursery, why: str
) -> None:
    gateway, site = await running(nursery)
    order = command_order(site, {"command_type": "mount.stop"} if "stop" in why else None)
    link = await doubted(gateway, site, order)
    seq = 1
    if "younger" in why:
        gateway.reports.known_epochs[site.outbox_uid] = 2
    if "spoken" in why:
        link.say(PublishCommandResult(seq=1, command_id=order.command_id, status=CommandStatus.RUNNING))
        await in_ledger(gateway, order, S.RUNNING)
        seq = 2
    link.say(never(order, seq))
    assert (await link.hear_next(Nack)).reason == NOT_KNOWN
    assert (await link.hear_next(Ack)).seq == seq
    assert gateway.ledger.rows[order.command_id].state is (S.RUNNING if "spoken" in why else S.UNKNOWN)


async def test_a_stop_of_this_gateways_does_not_end_by_a_word_that_its_node_cannot_know(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = await running(nursery)
    link = await gateway.connect(site)
    order = command_order(site, {"command_type": "mount.stop"})
    await gateway.commands.submit(order)
    await link.hear_next(EventCommand)
    await gateway.commands.flush()
    link.say(never(order))
    await link.hear_next(Nack)
    assert (await gateway.commands.get(order.command_id)).state is S.WRITTEN


async def test_what_this_gateway_is_about_to_send_is_not_doubted_when_its_node_comes_again(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = await running(nursery)
    await gateway.connect(site)
    order = command_order(site)
    gateway.database.slow_s = 2.0
    asking: list[PlayedLink] = []

    async def come_again() -> None:
        await trio.sleep(6.5)  # the row is in the ledger, and its writer has not heard of it
        gateway.database.slow_s = 0.0
        asking.append(await gateway.connect(site))

    nursery.start_soon(come_again)
    with pytest.raises(LinkLost):
        await gateway.commands.submit(order)
    await gateway.commands.flush()
    assert gateway.ledger.states(order.command_id) == [S.RECEIVED, S.EXPIRED]
    _, duplicate = await gateway.commands.submit(order)
    assert not duplicate
    assert (await asking[0].hear_next(EventCommand)).command_id == order.command_id


async def test_a_stop_that_is_recorded_late_is_not_doubted(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site = await running(nursery)
    link = await gateway.connect(site)
    link.stall()
    order = command_order(site, {"command_type": "mount.stop"})
    await gateway.commands.submit(order)
    record = gateway.commands._live.find(order.command_id)
    assert record is not None
    gateway.ledger.rows[order.command_id] = record.record  # as it stands, while its bytes are on their way
    await gateway.ledger.lose_before(
        site.install_id, Epoch(9), followed=gateway.commands._live._followed(site.install_id)
    )
    assert gateway.ledger.states(order.command_id)[-1] in (S.RECEIVED, S.WRITTEN)


async def test_the_end_of_a_session_says_nothing_of_bytes_that_still_wait(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = await running(nursery)
    link = await gateway.connect(site)
    link.stall()
    session = gateway.session(site)
    session.say(Ping(id="stuck"))
    await trio.testing.wait_all_tasks_blocked()
    order = command_order(site)
    record, _ = await gateway.commands.submit(order)
    gateway.commands.session_ended(session, Ending(None, "lost", by_node=True, at=record.created_at))
    assert record.state is S.RECEIVED
    link.hang_up()
    assert (await gateway.commands.wait(order.command_id, 30)).state is S.EXPIRED


# Results, when nobody reckons with them.


async def test_a_result_after_the_deadline_is_kept(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site = await running(nursery)
    link = await gateway.connect(site)
    order = command_order(site, timeout_s=2.0)
    record, _ = await gateway.commands.submit(order)
    await link.hear_next(EventCommand)
    await trio.sleep(timedelta(hours=2).total_seconds())
    proof = Opaque.of({"devices": []})
    link.say(PublishCommandResult(seq=1, command_id=order.command_id, status=CommandStatus.COMPLETED, proof=proof))
    assert (await link.hear_next(Ack)).seq == 1
    late = await gateway.commands.get(order.command_id)
    assert (late.state, late.proof, late.deadline_at) == (S.COMPLETED, proof.text, record.deadline_at)
    assert [report.data for report in gateway.reports.rows[site.outbox_uid]] == [
        f'{{"command_id":"{order.command_id}","status":"completed","proof":{{"devices":[]}}}}'
    ]


async def test_results_that_go_backwards_are_kept_in_the_log_and_move_nothing_back(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = await running(nursery)
    link = await gateway.connect(site)
    order = command_order(site)
    await gateway.commands.submit(order)
    steps = ["running", "accepted", "completed", "running", "accepted", "failed", "completed"]
    for seq, status in enumerate(steps, 1):
        result = Opaque.of({"seq": seq})
        link.say(
            PublishCommandResult(
                seq=seq, command_id=order.command_id, status=CommandStatus(status), result=result, progress=1 / seq
            )
        )
    while (await link.hear_next(Ack)).seq < len(steps):
        pass
    record = await gateway.commands.get(order.command_id)
    row = gateway.ledger.rows[order.command_id]
    for one in (record, row):
        assert [step.state for step in one.transitions][-2:] == [S.RUNNING, S.COMPLETED]
        assert (one.state, one.result) == (S.COMPLETED, '{"seq":3}')
    assert len(gateway.reports.rows[site.outbox_uid]) == len(steps)


@pytest.mark.parametrize("left", [S.RECEIVED, S.WRITTEN, S.RUNNING])
@pytest.mark.parametrize("by", ["a repeat", "a cancel"])
async def test_what_is_followed_again_is_doubted_all_the_same_and_whoever_follows_it_is_told(
    autojump_clock: Clock, nursery: trio.Nursery, by: str, left: CommandState
) -> None:
    gateway, site = await running(nursery)
    order = command_order(site)
    left_received(gateway, order, site)
    gateway.ledger.rows[order.command_id].state = left
    gateway.controllers.of[site.telescope_uid] = site.install_id
    if by == "a repeat":
        record, _ = await gateway.commands.submit(order)
        live = gateway.commands.follow(record)
    else:
        link = await gateway.connect(site)
        gateway.session(site).end(CloseCode.DRAINING, "goes away")
        with pytest.raises(LinkLost):
            await gateway.commands.cancel(order.command_id, mode=CancelMode.GRACEFUL, grace_s=None, by=Caller("tests"))
        await link.served.wait()
        gateway.ledger.rows[order.command_id].state = left
        live = gateway.commands.follow(await gateway.commands.get(order.command_id))
    assert live is not None
    link = await gateway.connect(site)
    with trio.fail_after(10):
        assert (await link.hear_next(QueryCommand)).command_ids == (order.command_id,)
        await live.settled()
    assert (await gateway.commands.get(order.command_id)).state is S.UNKNOWN


async def test_what_was_sent_by_a_gateway_that_ended_is_unknown_while_its_node_is_away_and_can_be_closed(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = await running(nursery)
    order = command_order(site)
    record = order.record(site.install_id, Epoch(1), left_s=60)
    record.state = S.RUNNING
    gateway.ledger.rows[order.command_id] = record
    found = await gateway.commands.get(order.command_id)
    assert (found.state, found.transitions[-1].detail) == (S.UNKNOWN, "its node is not connected")
    await in_ledger(gateway, order, S.UNKNOWN)
    closed = await gateway.commands.resolve(order.command_id, S.FAILED, reason="its disk is lost", by=Caller("tests"))
    assert closed.state is S.FAILED
