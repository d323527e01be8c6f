"""From an accepted socket to a session: who is let in, who takes over, who is turned away."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest
import trio
import trio.testing

from skygw.ids import InstallId, InstanceUid
from skygw.nodes.link import LAST_WORDS_S
from skygw.protocol.close_codes import CloseCode
from skygw.protocol.codec import encode
from skygw.protocol.gateway_frames import Ack, EventCommand, Welcome
from skygw.protocol.json_text import Opaque
from skygw.protocol.node_frames import NodeType, Ping, PublishLog
from tests.fakes.rooms import Gateway, PlayedLink, Site, command_order

Clock = trio.testing.MockClock


async def turned_away(link: PlayedLink) -> int:
    """The close code of a socket that never became a session."""
    await link.served.wait()
    assert link.closed_with is not None
    assert link.heard_so_far() == []
    return link.closed_with[0]


async def test_no_hello_within_its_time_is_a_protocol_violation(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site = Gateway(nursery), Site()
    began = trio.current_time()
    link = gateway.accept(site)
    assert await turned_away(link) == CloseCode.PROTOCOL_VIOLATION
    assert trio.current_time() - began == pytest.approx(gateway.rules.hello_timeout_s)


@pytest.mark.parametrize(
    "first", ["binary", "array of two", "another frame", "broken JSON", "bad hello", "empty array"]
)
async def test_anything_but_a_hello_first_is_a_protocol_violation(
    autojump_clock: Clock, nursery: trio.Nursery, first: str
) -> None:
    gateway, site = Gateway(nursery), Site()
    hello = encode(site.hello())
    link = gateway.accept(site)
    messages: dict[str, str | bytes] = {
        "binary": bytes(64),
        "array of two": f"[{hello},{hello}]",
        "another frame": encode(Ping()),
        "broken JSON": hello[:-1],
        "bad hello": '{"kind":"hello"}',
        "empty array": "[]",
    }
    link.say(messages[first])
    assert await turned_away(link) == CloseCode.PROTOCOL_VIOLATION
    assert gateway.epochs.epochs == {}
    refusal = gateway.registry.memory(site.install_id).last_refusal
    assert refusal is not None
    assert (refusal.code, refusal.address) == (CloseCode.PROTOCOL_VIOLATION, "192.0.2.7")


async def test_a_hello_of_another_installation_than_the_tokens_is_forbidden(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery), Site()
    link = gateway.accept(site)
    link.say(site.hello(install_id=InstallId(uuid4())))
    assert await turned_away(link) == CloseCode.FORBIDDEN
    assert gateway.epochs.epochs == {}


async def test_a_hello_of_another_node_type_than_recorded_is_forbidden(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery), Site()
    link = gateway.accept(site)
    link.say(site.hello(node_type=NodeType.OBSERVATORY))
    assert await turned_away(link) == CloseCode.FORBIDDEN


async def test_a_node_that_comes_while_the_database_is_away_is_told_to_come_back_now(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery), Site()
    gateway.database.away = True
    link = gateway.accept(site)
    link.say(site.hello())
    assert await turned_away(link) == CloseCode.DRAINING


async def test_a_node_whose_link_broke_is_let_back_in_without_the_database_so_that_a_stop_reaches_it(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery), Site()
    first = await gateway.connect(site)
    first.say(PublishLog(seq=1, data=Opaque.of({}), observed_at=datetime.now(UTC)))
    await first.hear_next(Ack)
    gateway.database.away = True
    first.hang_up()
    await first.served.wait()
    again = gateway.accept(site)
    again.say(site.hello(last_epoch=1))
    welcome = await again.hear_next(Welcome)
    assert (welcome.epoch, welcome.acked_seq) == (2, 1)
    await gateway.commands.submit(command_order(site, {"command_type": "mount.stop"}))
    assert (await again.hear_next(EventCommand)).epoch == 2
    gateway.database.away = False
    third = await gateway.connect(site, last_epoch=2)
    assert gateway.session(site).epoch == 3
    assert third.closed_with is None


@pytest.mark.parametrize("other", ["instance_uid", "outbox_uid"])
async def test_another_machine_is_not_let_in_without_the_database(
    autojump_clock: Clock, nursery: trio.Nursery, other: str
) -> None:
    gateway, site = Gateway(nursery), Site()
    first = await gateway.connect(site)
    gateway.database.away = True
    first.hang_up()
    await first.served.wait()
    stranger = gateway.accept(site)
    stranger.say(site.hello(**{other: uuid4()}))
    assert await turned_away(stranger) == CloseCode.DRAINING


async def test_a_draining_gateway_admits_nobody(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site = Gateway(nursery), Site()
    link = gateway.accept(site)
    gateway.door.drain()
    link.say(site.hello())
    assert await turned_away(link) == CloseCode.DRAINING


async def test_a_node_that_leaves_before_its_hello_is_no_error(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site = Gateway(nursery), Site()
    link = gateway.accept(site)
    link.hang_up()
    await link.served.wait()
    assert gateway.metrics.ended_with == []


async def test_a_socket_whose_serving_is_cancelled_before_hello_is_dropped(autojump_clock: Clock) -> None:
    async with trio.open_nursery() as process:
        gateway, site = Gateway(process), Site()
        link = gateway.accept(site)
        await trio.testing.wait_all_tasks_blocked()
        process.cancel_scope.cancel()
    assert link.aborted.is_set()


async def test_turning_away_a_peer_that_does_not_read_takes_bounded_time(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery), Site()
    link = gateway.accept(site)
    link.stall()
    link.say("{")
    with trio.move_on_after(2 * LAST_WORDS_S):
        await link.served.wait()
    assert link.served.is_set()
    assert link.aborted.is_set()


async def test_every_claim_has_a_higher_epoch_than_the_node_and_the_ledger_knew(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery), Site()
    for last_epoch, expected in [(0, 1), (0, 2), (70, 71), (5, 72)]:
        link = gateway.accept(site)
        link.say(site.hello(last_epoch=last_epoch))
        assert (await link.hear_next(Welcome)).epoch == expected


async def test_only_fences_of_what_the_installation_controls_are_claimed(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery), Site()
    await gateway.connect(site, last_fences={site.telescope_uid: 9, uuid4(): 99})
    assert gateway.epochs.fences == {site.telescope_uid: 9}


# Takeover.


@pytest.mark.parametrize("stalled", [False, True])
async def test_the_newest_socket_of_the_same_machine_takes_over_at_once(
    autojump_clock: Clock, nursery: trio.Nursery, *, stalled: bool
) -> None:
    gateway, site = Gateway(nursery), Site()
    old = await gateway.connect(site)
    before = gateway.session(site)
    if stalled:
        old.stall()
        before.say(Ping())
        await trio.testing.wait_all_tasks_blocked()
    began = trio.current_time()
    await gateway.connect(site)
    assert trio.current_time() == began
    after = gateway.session(site)
    assert after is not before
    assert after.epoch > before.epoch
    await old.served.wait()
    assert gateway.metrics.ended_with == [CloseCode.SUPERSEDED]
    assert gateway.session(site) is after
    assert after.ending is None
    if not stalled:
        assert old.closed_with is not None
        assert old.closed_with[0] == CloseCode.SUPERSEDED


async def test_what_still_comes_over_a_superseded_socket_moves_nothing(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery), Site()
    old = await gateway.connect(site)
    before = gateway.session(site)
    new = gateway.accept(site)
    new.say(site.hello())
    await gateway.registry.connected(site.install_id)
    while gateway.session(site) is before:
        await trio.lowlevel.checkpoint()
    old.say('{"kind":"publish_log","seq":1,"data":{},"observed_at":"2026-07-01T03:00:00Z"}')
    await old.served.wait()
    await trio.sleep(2)
    assert gateway.reports.rows == {}


async def test_a_hello_whose_claim_was_overtaken_by_a_newer_one_is_the_old_one(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery), Site()
    slow = gateway.accept(site)
    gateway.database.slow_s = 5.0
    slow.say(site.hello())
    await trio.sleep(6)  # its epoch is claimed, and its outbox is being asked for
    gateway.database.slow_s = 0.0
    newer = await gateway.connect(site)
    assert await turned_away(slow) == CloseCode.SUPERSEDED
    assert gateway.session(site).epoch == 2
    assert not newer.served.is_set()


async def test_another_machine_is_refused_while_the_first_is_alive(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery), Site()
    await gateway.connect(site)
    first = gateway.session(site)
    clone = gateway.accept(site)
    clone.say(site.hello(instance_uid=InstanceUid(uuid4())))
    assert await turned_away(clone) == CloseCode.DUPLICATE_INSTANCE
    assert gateway.session(site) is first
    assert first.ending is None
    assert gateway.epochs.epochs[site.install_id] == 1


async def test_of_two_machines_that_ask_at_the_same_time_one_is_refused(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery), Site()
    gateway.database.slow_s = 1.0
    links = [gateway.accept(site) for _ in range(2)]
    links[0].say(site.hello())
    links[1].say(site.hello(instance_uid=InstanceUid(uuid4())))
    await trio.sleep(4)
    assert [link.served.is_set() for link in links].count(True) == 1
    assert gateway.metrics.refusals == ["duplicate_instance"]


async def test_another_machine_is_let_in_when_the_first_is_gone(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site = Gateway(nursery), Site()
    first = await gateway.connect(site)
    first.hang_up()
    await first.served.wait()
    await gateway.connect(site, instance_uid=InstanceUid(uuid4()))
    assert gateway.session(site).epoch == 2


# The registry.


async def test_a_caller_can_wait_for_a_node_to_connect(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site = Gateway(nursery), Site()

    async def come_later() -> None:
        await trio.sleep(3)
        await gateway.connect(site)

    nursery.start_soon(come_later)
    session = await gateway.registry.connected(site.install_id)
    assert trio.current_time() >= 3
    assert session.binding.install_id == site.install_id


async def test_waiting_for_a_node_does_not_take_a_session_that_is_ending(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery), Site()
    old = await gateway.connect(site)
    old.stall()
    gateway.session(site).end(CloseCode.TOKEN_EXPIRED, "expired")
    await trio.lowlevel.checkpoint()

    async def come_later() -> None:
        await trio.sleep(3)
        await gateway.connect(site)

    nursery.start_soon(come_later)
    session = await gateway.registry.connected(site.install_id)
    assert session.ending is None
    assert session.epoch == 2


async def test_safing_is_routed_by_telescope_and_by_device_to_a_live_session_only(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, other = Gateway(nursery), Site(), Site()
    await gateway.connect(site)
    await gateway.connect(other)
    session = gateway.session(site)
    assert gateway.registry.controlling(site.telescope_uid) is session
    assert gateway.registry.controlling(site.device_uid) is session
    session.end(CloseCode.REVOKED, "revoked")
    assert gateway.registry.controlling(site.telescope_uid) is None
