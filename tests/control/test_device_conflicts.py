"""Two commands that would move one part: the second is refused with the name of the first, and nothing else is."""

from math import inf
from typing import Any
from uuid import uuid4

import pytest
import trio
import trio.testing

from skygw.control.device_conflicts import DeviceConflicts
from skygw.control.ledger import Caller, CommandState
from skygw.control.order import CommandOrder
from skygw.errors import DeviceBusy, Outcome, Retry, RoutingUnavailable
from skygw.ids import CommandId, DeviceUid, InstallId, TelescopeUid
from skygw.nodes.ports import Binding
from skygw.nodes.session import SessionRules
from skygw.protocol.gateway_frames import CancelMode, EventCommand
from skygw.protocol.node_frames import CommandStatus, NodeType, PublishCommandResult
from skygw.resources import Resource, ResourceKind
from skygw.telemetry.value import utc
from tests.fakes.rooms import Gateway, PlayedLink, Site, command_order

Clock = trio.testing.MockClock

TELESCOPE, UNKNOWN = uuid4(), uuid4()
DEVICES = {
    "mount": "mount",
    "camera 1": "camera",
    "camera 2": "camera",
    "focuser 1": "focuser",
    "focuser 2": "focuser",
    "wheel 1": "filter_wheel",
    "roof": "enclosure",
}
UIDS = {name: uuid4() for name in DEVICES}
INSTRUMENTS = (("camera 1", "focuser 1", "wheel 1"), ("camera 2", "focuser 2"))


def binding() -> Binding:
    """Of a telescope with two instruments. Its roof is another's: here no telescope owns it."""
    install_id, observatory_uid = InstallId(uuid4()), uuid4()
    found = [
        Resource(
            UIDS[name],
            ResourceKind.DEVICE,
            install_id,
            observatory_uid,
            None if name == "roof" else TELESCOPE,
            device_type,
        )
        for name, device_type in DEVICES.items()
    ]
    for parts in INSTRUMENTS:
        uids = tuple(UIDS[name] for name in parts)
        found.append(Resource(uuid4(), ResourceKind.INSTRUMENT, install_id, observatory_uid, TELESCOPE, parts=uids))
    return Binding(
        install_id=install_id,
        name="Two instruments",
        node_type=NodeType.TELESCOPE,
        observatory_uid=observatory_uid,
        telescopes=frozenset({TelescopeUid(TELESCOPE)}),
        devices=frozenset(DeviceUid(uid) for uid in UIDS.values()),
        resources={resource.uid: resource for resource in found},
    )


class Standing:
    """A mover that is under way."""

    holds_devices = True


def order_for(site: Site, command_type: str, name: str) -> CommandOrder:
    """For the telescope, or for one of its devices, or for one that the records do not have."""
    if name == "telescope":
        return command_order(site, {"command_type": command_type}, telescope_uid=TELESCOPE)
    uid = UIDS.get(name, UNKNOWN)
    return command_order(site, {"command_type": command_type}, telescope_uid=None, device_uid=uid)


@pytest.mark.parametrize(
    ("first", "second", "meet"),
    [
        (("mount.point", "telescope"), ("mount.track", "mount"), True),
        (("mount.park", "mount"), ("mount.unpark", "mount"), True),
        (("mount.track", "telescope"), ("mount.offset_relative", "telescope"), True),
        (("mount.point", "telescope"), ("camera.exposure.start", "telescope"), False),
        (("mount.point", "telescope"), ("mountain.climb", "telescope"), False),
        (("camera.exposure.start", "camera 1"), ("camera.exposure.start", "camera 2"), False),
        (("camera.exposure.start", "camera 1"), ("camera.exposure.start", "telescope"), True),
        (("camera.exposure.start", "telescope"), ("filter_wheel.position.set", "telescope"), False),
        (("imager.autofocus", "telescope"), ("focuser.move", "focuser 2"), True),
        (("imager.autofocus", "camera 1"), ("focuser.move", "focuser 1"), True),
        (("imager.autofocus", "camera 1"), ("filter_wheel.position.set", "wheel 1"), True),
        (("imager.autofocus", "camera 1"), ("focuser.move", "focuser 2"), False),
        (("imager.autofocus", "camera 1"), ("imager.autofocus", "camera 2"), False),
        (("enclosure.open", "roof"), ("enclosure.close", "roof"), True),
        (("enclosure.open", "roof"), ("enclosure.close", "telescope"), False),
        (("enclosure.open", "roof"), ("mount.unpark", "mount"), False),
        (("telescope.safe_shutdown", "telescope"), ("mount.unpark", "mount"), True),
        (("telescope.safe_shutdown", "telescope"), ("focuser.move", "telescope"), False),
        (("mount.stop", "telescope"), ("mount.point", "telescope"), False),
        (("mount.point", "camera 1"), ("mount.point", "mount"), False),
        (("mount.point", "not in the records"), ("mount.park", "not in the records"), True),
    ],
)
def test_commands_meet_where_the_same_part_may_be_meant(
    first: tuple[str, str], second: tuple[str, str], *, meet: bool
) -> None:
    site, known = Site(), binding()
    for one, other in ((first, second), (second, first)):
        conflicts = DeviceConflicts()
        order = order_for(site, *one)
        assert conflicts.in_the_way(order, known) is None
        conflicts.claim(order.record(site.install_id, None, left_s=9), order.command_type, known, by=Standing())
        assert (conflicts.in_the_way(order_for(site, *other), known) is not None) is meet


async def connected(nursery: trio.Nursery) -> tuple[Gateway, Site, PlayedLink]:
    gateway, site = Gateway(nursery, SessionRules(dead_after_s=inf), asks_for_leases=False), Site()
    nursery.start_soon(gateway.commands.run)
    return gateway, site, await gateway.connect(site)


def move(site: Site, command_type: str = "mount.point", **changed: Any) -> CommandOrder:
    return command_order(site, {"command_type": command_type}, **changed)


async def refusal(gateway: Gateway, order: CommandOrder) -> DeviceBusy:
    with pytest.raises(DeviceBusy) as caught:
        await gateway.commands.submit(order)
    return caught.value


def said(order: CommandOrder, status: CommandStatus, seq: int = 1) -> PublishCommandResult:
    return PublishCommandResult(seq=seq, command_id=order.command_id, status=status)


async def test_the_refusal_names_the_command_that_moves_the_mount_and_uses_up_no_id(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await connected(nursery)
    actor = {"uid": "7", "kind": "user"}
    first = move(site, service="scheduler", actor=actor)
    record, _ = await gateway.commands.submit(first)
    second = move(site, "mount.park", telescope_uid=None, device_uid=site.device_uid)
    busy = await refusal(gateway, second)
    assert (busy.outcome, busy.retry) == (Outcome.NOT_SENT, Retry.AFTER)
    assert busy.retry_after_s is not None
    assert busy.details == {
        "deviceType": "mount",
        "commandId": str(first.command_id),
        "commandType": "mount.point",
        "since": utc(record.created_at),
        "holder": {"service": "scheduler", "actor": actor},
        "telescopeUid": str(site.telescope_uid),
    }
    assert "mount.point of scheduler" in busy.message
    assert second.command_id not in gateway.ledger.rows
    await link.hear_next(EventCommand)
    link.say(said(first, CommandStatus.COMPLETED))
    await trio.testing.wait_all_tasks_blocked()
    await gateway.commands.submit(second)
    assert (await link.hear_next(EventCommand)).command_id == second.command_id


@pytest.mark.parametrize("status", [CommandStatus.COMPLETED, CommandStatus.FAILED, CommandStatus.REJECTED])
async def test_a_command_that_ended_frees_its_device_before_the_ledger_has_heard_of_it(
    autojump_clock: Clock, nursery: trio.Nursery, status: CommandStatus
) -> None:
    gateway, site, link = await connected(nursery)
    first = move(site)
    await gateway.commands.submit(first)
    await link.hear_next(EventCommand)
    link.say(said(first, CommandStatus.RUNNING))
    await trio.testing.wait_all_tasks_blocked()
    await refusal(gateway, move(site))
    gateway.database.slow_s = 60.0
    link.say(said(first, status, 2))
    await trio.testing.wait_all_tasks_blocked()
    gateway.database.slow_s = 0.0  # for whoever asks from now on
    await gateway.commands.submit(move(site))
    assert gateway.ledger.rows[first.command_id].state is CommandState.RUNNING


async def test_a_repeat_of_the_command_that_moves_is_a_repeat_and_no_conflict(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, _ = await connected(nursery)
    first = move(site)
    await gateway.commands.submit(first)
    assert (await gateway.commands.submit(first))[1]


async def test_of_two_that_come_at_once_one_is_let_in(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, link = await connected(nursery)
    gateway.database.slow_s = 1.0
    refused: list[DeviceBusy] = []

    async def submit(order: CommandOrder) -> None:
        try:
            await gateway.commands.submit(order)
        except DeviceBusy as busy:
            refused.append(busy)

    async with trio.open_nursery() as callers:
        for _ in range(5):
            callers.start_soon(submit, move(site))
    assert len(refused) == 4
    assert len(gateway.ledger.rows) == 1
    await link.hear_next(EventCommand)


async def test_what_was_not_let_in_after_all_holds_nothing(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, _ = await connected(nursery)
    gateway.database.answers_lost = True
    with pytest.raises(RoutingUnavailable):
        await gateway.commands.submit(move(site))
    gateway.database.answers_lost = False
    await gateway.commands.submit(move(site))


async def test_what_is_unknown_stands_in_nobodys_way(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, link = await connected(nursery)
    first = move(site)
    await gateway.commands.submit(first)
    await link.hear_next(EventCommand)
    link.hang_up()
    await link.served.wait()
    again = await gateway.connect(site)
    second = move(site)
    await gateway.commands.submit(second)
    assert (await again.hear_next(EventCommand)).command_id == second.command_id


async def test_after_its_deadline_only_the_node_knows_whether_a_command_moves_anything(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, _ = await connected(nursery)
    await gateway.commands.submit(move(site, timeout_s=10))
    await trio.sleep(9)
    await refusal(gateway, move(site))
    await trio.sleep(2)
    await gateway.commands.submit(move(site))


async def test_what_is_stopped_or_canceled_may_be_free_and_the_node_decides(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await connected(nursery)
    first, second, third = move(site), move(site), move(site)
    await gateway.commands.submit(first)
    await link.hear_next(EventCommand)
    await gateway.commands.submit(move(site, "mount.stop"))
    await gateway.commands.submit(second)
    await refusal(gateway, third)
    by = Caller("console")
    await gateway.commands.cancel(second.command_id, mode=CancelMode.IMMEDIATE, grace_s=None, by=by)
    await gateway.commands.submit(third)


async def test_no_stop_is_refused_for_what_moves_and_none_holds_the_mount_but_a_shutdown(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, _ = await connected(nursery)
    await gateway.commands.submit(move(site))
    for stop in ("mount.stop", "telescope.stop", "telescope.safe_shutdown", "telescope.safe_shutdown"):
        await gateway.commands.submit(move(site, stop))
    assert (await refusal(gateway, move(site, "mount.unpark"))).details["commandType"] == "telescope.safe_shutdown"
    await gateway.commands.submit(move(site, "telescope.stop"))


async def test_a_dry_run_names_the_command_in_the_way_and_claims_nothing(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, _ = await connected(nursery)
    tried = move(site)
    assert await gateway.commands.validate(tried) == ([], False)
    first = move(site, command_id=CommandId(uuid4()))
    await gateway.commands.submit(first)
    [busy], duplicate = await gateway.commands.validate(tried)
    assert (busy.reason, busy.details["commandId"], duplicate) == ("device_busy", str(first.command_id), False)
