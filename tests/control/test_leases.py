"""What is told of leases: to subscribers, to the node that is here and to the one that comes, never an older state."""

import json
from math import inf
from typing import Any
from uuid import uuid4

import pytest
import trio
import trio.testing

from skygw.control.lease import Holder, LeaseProof, LeaseWish, Terms
from skygw.errors import LeaseExpired, NotFound, RoutingUnavailable
from skygw.ids import LeaseId, LeaseUid
from skygw.nodes.session import SessionRules
from skygw.protocol.gateway_frames import EventCommand, EventManualControlLease, LeaseEnd, OnExpiry
from skygw.protocol.streams import StreamName
from skygw.resources import ResourceKind
from tests.fakes.rooms import Gateway, PlayedLink, Site, command_order

Clock = trio.testing.MockClock
TERMS = Terms(100.0, 20.0, OnExpiry.STOP, 15.0)
ANNA = Holder("tests", "anna", "user")


async def running(nursery: trio.Nursery) -> tuple[Gateway, Site, PlayedLink]:
    gateway, site = Gateway(nursery, SessionRules(dead_after_s=inf), leased=False), Site()
    nursery.start_soon(gateway.leases.run)
    nursery.start_soon(gateway.commands.run)
    link = await gateway.connect(site)
    await trio.testing.wait_all_tasks_blocked()  # it has been told of what there was
    return gateway, site, link


def wish(site: Site, holder: Holder = ANNA) -> LeaseWish:
    return LeaseWish(site.telescope_uid, ResourceKind.TELESCOPE, LeaseUid(uuid4()), holder, TERMS)


async def take(gateway: Gateway, site: Site, holder: Holder = ANNA) -> tuple[LeaseId, LeaseProof, int]:
    wanted = wish(site, holder)
    control, _ = await gateway.leases.acquire(wanted)
    assert control.lease is not None
    return control.lease.lease_id, LeaseProof(holder, wanted.lease_uid), control.fence


def told(gateway: Gateway, site: Site) -> dict[str, Any]:
    value = gateway.snapshots.find(StreamName.MANUAL_CONTROL_LEASE, site.telescope_uid)
    assert value is not None
    found: dict[str, Any] = json.loads(value.data)
    return found


async def test_subscribers_are_told_of_each_change_and_of_no_secret(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, _ = await running(nursery)
    lease_id, proof, fence = await take(gateway, site)
    held = told(gateway, site)
    assert (held["uid"], held["state"], held["fence"]) == (str(site.telescope_uid), "held", fence)
    assert held["holder"] == {"service": "tests", "actor": {"uid": "anna", "kind": "user"}}
    assert str(proof.lease_uid) not in json.dumps(held)
    await trio.sleep(10)
    await gateway.leases.renew(lease_id, proof, None)
    assert told(gateway, site)["expires_at"] > held["expires_at"]
    await gateway.leases.break_off(lease_id, Holder("ops"), "storm")
    broken = told(gateway, site)
    assert (broken["state"], broken["holder"], broken["reason"]) == ("broken", None, "storm")
    assert (broken["former_holder"], broken["ended_by"]) == (held["holder"], {"service": "ops"})


async def test_the_node_is_told_of_each_change_with_what_is_left(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, link = await running(nursery)
    lease_id, proof, fence = await take(gateway, site)
    begun = await link.hear_next(EventManualControlLease)
    assert (begun.telescope_uid, begun.fence, begun.expires_in_ms) == (site.telescope_uid, fence, 100_000)
    assert (begun.warn_in_ms, begun.deadman_ms, begun.on_expiry) == (80_000, 15_000, OnExpiry.STOP)
    await trio.sleep(30)
    await gateway.leases.renew(lease_id, proof, None)
    renewed = await link.hear_next(EventManualControlLease)
    assert (renewed.fence, renewed.expires_in_ms) == (fence, 100_000)
    assert renewed.revision > begun.revision
    await gateway.leases.release(lease_id, proof)
    ended = await link.hear_next(EventManualControlLease)
    assert (ended.holder, ended.fence, ended.ended) == (None, fence + 1, LeaseEnd.RELEASED)


async def test_what_is_over_is_ended_in_time_and_told(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, link = await running(nursery)
    began = trio.current_time()
    lease_id, proof, fence = await take(gateway, site)
    await link.hear_next(EventManualControlLease)
    ended = await link.hear_next(EventManualControlLease)
    assert 100 <= trio.current_time() - began <= 102
    assert (ended.fence, ended.ended) == (fence + 1, LeaseEnd.EXPIRED)
    assert told(gateway, site)["state"] == "expired"
    with pytest.raises(LeaseExpired):
        await gateway.leases.renew(lease_id, proof, None)


async def test_who_comes_back_is_told_what_is_held_now_and_what_is_over(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, _ = await running(nursery)
    lease_id, _, fence = await take(gateway, site)
    await trio.sleep(40)
    again = await gateway.connect(site)
    held = await again.hear_next(EventManualControlLease)
    assert (held.fence, held.expires_in_ms) == (fence, 60_000)
    await gateway.leases.break_off(lease_id, Holder("ops"), "storm")
    await again.hear_next(EventManualControlLease)
    third = await gateway.connect(site)
    over = await third.hear_next(EventManualControlLease)
    assert (over.holder, over.fence, over.ended) == (None, fence + 1, LeaseEnd.BROKEN)


async def test_who_comes_while_the_ledger_is_away_is_told_when_it_is_back(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, _ = await running(nursery)
    _, _, fence = await take(gateway, site)
    gateway.lease_database.away = True
    again = await gateway.connect(site)
    await trio.sleep(30)
    assert not [text for text in again.heard_so_far() if "manual_control_lease" in str(text)]
    gateway.lease_database.away = False
    held = await again.hear_next(EventManualControlLease)
    assert (held.fence, held.expires_in_ms <= 70_000) == (fence, True)


async def test_what_was_read_before_a_change_is_not_told_after_it(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, _ = await running(nursery)
    lease_id, proof, fence = await take(gateway, site)
    [old] = await gateway.lease_ledger.controls([site.telescope_uid])
    await gateway.leases.release(lease_id, proof)
    link = await gateway.connect(site)
    await trio.sleep(5)
    gateway.leases._tell([old], trio.current_time())
    await trio.testing.wait_all_tasks_blocked()
    heard = [json.loads(text) for text in link.heard_so_far() if "manual_control_lease" in str(text)]
    assert [frame["fence"] for frame in heard] == [fence + 1]
    assert told(gateway, site)["state"] == "released"


async def test_a_lease_overtakes_the_commands_that_wait_behind_a_slow_socket(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    """So that what a node has not been sent yet under a lease that was broken comes too late to it."""
    gateway, site, link = await running(nursery)
    lease_id, proof, fence = await take(gateway, site)
    await link.hear_next(EventManualControlLease)
    link.stall()
    gateway.session(site).announce_end("fills the socket", reconnect_after_ms=1)
    await trio.testing.wait_all_tasks_blocked()
    order = command_order(site, lease_uid=proof.lease_uid, actor=ANNA.actor)
    await gateway.commands.submit(order)
    await gateway.leases.break_off(lease_id, Holder("ops"), "storm")
    link.flow()
    ended = await link.hear_next(EventManualControlLease)
    late = await link.hear_next(EventCommand)
    assert (ended.fence, late.fence) == (fence + 1, fence)


async def test_a_lease_nobody_granted_is_not_found(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, _, _ = await running(nursery)
    with pytest.raises(NotFound):
        await gateway.leases.get(LeaseId(uuid4()))


async def test_without_the_ledger_no_control_is_given(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, link = await running(nursery)
    gateway.lease_database.away = True
    with pytest.raises(RoutingUnavailable):
        await take(gateway, site)
    with pytest.raises(RoutingUnavailable):
        await gateway.commands.submit(command_order(site))
    stop = command_order(site, {"command_type": "mount.stop"}, lease_uid=LeaseUid(uuid4()))
    await gateway.commands.submit(stop)
    assert (await link.hear_next(EventCommand)).command_id == stop.command_id
