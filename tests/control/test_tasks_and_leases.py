"""Whoever gets control while a task runs waits for its end; the node is told what is to become of the task."""

import json
from math import inf
from typing import Any
from uuid import uuid4

import pytest
import trio
import trio.testing

from skygw.control.lease import Holder, LeaseProof, LeaseQuery, LeaseWish, Terms, WhileTask
from skygw.control.running_tasks import RunningTask
from skygw.errors import Retry, TaskActive
from skygw.ids import LeaseUid, TaskUid
from skygw.nodes.session import SessionRules
from skygw.protocol.gateway_frames import EventCommand, EventTaskChanged, OnExpiry, TaskDirective
from skygw.protocol.streams import StreamName
from skygw.resources import ResourceKind
from tests.fakes.rooms import Gateway, PlayedLink, Site, command_order

Clock = trio.testing.MockClock
TERMS = Terms(1_000.0, 20.0, OnExpiry.STOP)
ME = Holder("tests")


async def running(nursery: trio.Nursery) -> tuple[Gateway, Site, PlayedLink]:
    gateway, site = Gateway(nursery, SessionRules(dead_after_s=inf), leased=False), Site()
    for run in (gateway.leases.run, gateway.commands.run, gateway.aborts.run):
        nursery.start_soon(run)
    return gateway, site, await gateway.connect(site)


def begin_task(gateway: Gateway, site: Site) -> RunningTask:
    task = RunningTask(TaskUid(uuid4()), site.telescope_uid)
    gateway.lease_ledger.tasks.append(task)
    return task


async def take(gateway: Gateway, site: Site, while_task: WhileTask) -> LeaseWish:
    wish = LeaseWish(site.telescope_uid, ResourceKind.TELESCOPE, LeaseUid(uuid4()), ME, TERMS, while_task)
    await gateway.leases.acquire(wish)
    return wish


async def heard_of_a_task(link: PlayedLink) -> EventTaskChanged:
    with trio.fail_after(100):
        return await link.hear_next(EventTaskChanged)


async def told_of_tasks(link: PlayedLink) -> list[dict[str, Any]]:
    await trio.testing.wait_all_tasks_blocked()
    frames = [json.loads(text) for text in link.heard_so_far()]
    return [frame for frame in frames if frame["kind"] == "event_task_changed"]


@pytest.mark.parametrize("while_task", [WhileTask.FINISH, WhileTask.INTERRUPT])
async def test_nothing_is_moved_under_a_lease_until_the_task_has_ended_but_a_stop_passes(
    autojump_clock: Clock, nursery: trio.Nursery, while_task: WhileTask
) -> None:
    gateway, site, link = await running(nursery)
    task = begin_task(gateway, site)
    wish = await take(gateway, site, while_task)
    order = command_order(site, {"command_type": "mount.park"}, lease_uid=wish.lease_uid)
    with pytest.raises(TaskActive) as caught:
        await gateway.commands.submit(order)
    assert caught.value.details == {"taskUid": str(task.uid), "telescopeUid": str(site.telescope_uid)}
    assert (caught.value.retry, caught.value.retry_after_s) == (Retry.AFTER, 10.0)
    stop = command_order(site, {"command_type": "mount.stop"})
    await gateway.commands.submit(stop)
    assert (await link.hear_next(EventCommand)).command_id == stop.command_id
    gateway.lease_ledger.tasks.remove(task)
    await gateway.commands.submit(order)
    assert (await link.hear_next(EventCommand)).command_id == order.command_id


async def test_a_task_is_in_the_way_of_whoever_has_no_lease_too(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, _ = await running(nursery)
    begin_task(gateway, site)
    found, _ = await gateway.commands.validate(command_order(site, {"command_type": "camera.exposure.start"}))
    assert [error.reason for error in found] == ["lease_required", "task_active"]


async def test_who_interrupts_has_the_node_told_and_who_waits_has_not(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await running(nursery)
    other = Site()
    bystander = await gateway.connect(other)
    task, theirs = begin_task(gateway, site), begin_task(gateway, other)
    await take(gateway, other, WhileTask.FINISH)
    await take(gateway, site, WhileTask.INTERRUPT)
    said = await heard_of_a_task(link)
    assert (said.task_uid, said.telescope_uid) == (task.uid, site.telescope_uid)
    assert (said.directive, said.reason) == (TaskDirective.ABORT, "lease")
    assert await told_of_tasks(bystander) == []
    assert theirs in gateway.lease_ledger.tasks


async def test_a_node_that_comes_back_is_told_again_for_as_long_as_it_is_wanted(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, _ = await running(nursery)
    task = begin_task(gateway, site)
    wish = await take(gateway, site, WhileTask.INTERRUPT)
    again = await gateway.connect(site)
    assert (await heard_of_a_task(again)).task_uid == task.uid
    [held], _ = await gateway.leases.page(LeaseQuery())
    assert held.lease is not None
    await gateway.leases.release(held.lease.lease_id, LeaseProof(ME, wish.lease_uid))
    third = await gateway.connect(site)
    assert await told_of_tasks(third) == []


async def test_what_could_not_be_looked_up_is_told_when_the_database_is_back(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, _ = await running(nursery)
    task = begin_task(gateway, site)
    await take(gateway, site, WhileTask.INTERRUPT)
    gateway.lease_database.away = True
    again = await gateway.connect(site)
    await trio.sleep(30)
    assert await told_of_tasks(again) == []
    gateway.lease_database.away = False
    assert (await heard_of_a_task(again)).task_uid == task.uid


async def test_subscribers_are_told_what_becomes_of_tasks(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, _ = await running(nursery)
    await take(gateway, site, WhileTask.FINISH)
    value = gateway.snapshots.find(StreamName.MANUAL_CONTROL_LEASE, site.telescope_uid)
    assert value is not None
    assert json.loads(value.data)["while_task"] == "finish"
