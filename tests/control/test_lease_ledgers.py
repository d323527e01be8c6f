"""One contract for both ledgers of leases: one holder at a time, fences that only grow, ends that stay."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from uuid import UUID, uuid4

import psycopg
import pytest
import trio

from skygw.control.lease import (
    Control,
    Ending,
    Holder,
    Lease,
    LeaseLedger,
    LeaseProof,
    LeaseQuery,
    LeaseWish,
    Place,
    Terms,
    WhileTask,
    digest,
)
from skygw.control.lease_guard import LeaseGuard
from skygw.control.order import CommandOrder
from skygw.control.running_tasks import RunningTask, RunningTasks
from skygw.database.leases import PgLeases
from skygw.database.node_sessions import NodeSessions
from skygw.database.pool import open_loop_and_database
from skygw.database.provision import NewDevice, NewInstrument, NewObservatory, NewTelescope, provision
from skygw.database.running_tasks import PgRunningTasks
from skygw.errors import (
    Forbidden,
    GatewayError,
    Invalid,
    LeaseExpired,
    LeaseHeld,
    LeaseRequired,
    NotFound,
    Outcome,
    StaleFence,
    TaskActive,
)
from skygw.ids import CommandId, DeviceUid, InstallId, InstanceUid, LeaseId, LeaseUid, TaskUid, TelescopeUid
from skygw.protocol.gateway_frames import LeaseEnd, OnExpiry
from skygw.protocol.json_text import Opaque
from skygw.resources import Resource, ResourceKind
from tests.fakes.memory_leases import MemoryLeases
from tests.fakes.memory_tasks import MemoryTasks
from tests.fakes.ports import MemoryEpochs, Switch
from tests.fakes.postgres import PostgresServer

TERMS = Terms(300.0, 60.0, OnExpiry.STOP, 15.0)
ANNA = Holder("web", "anna", "user")
BERT = Holder("web", "bert", "user")
ROBOT = Holder("scheduler")
PATIENCE_S = 20.0


class Hall:
    """Two telescopes under one roof, one of them with a mount, and the ledger of who has control of what."""

    def __init__(self) -> None:
        self.observatory_uid = uuid4()
        self.install_ids = [InstallId(uuid4()) for _ in range(3)]
        self.first, self.second = TelescopeUid(uuid4()), TelescopeUid(uuid4())
        self.mount, self.roof = DeviceUid(uuid4()), DeviceUid(uuid4())
        self.instruments = {self.first: uuid4(), self.second: uuid4()}
        self.ledger: LeaseLedger
        self.tasks: RunningTasks
        self.platform: MemoryLeases | PostgresServer
        self.epochs: MemoryEpochs | NodeSessions

    @property
    def records(self) -> NewObservatory:
        mount = NewDevice(self.mount, "mount")
        return NewObservatory(
            self.observatory_uid,
            "O",
            (
                NewTelescope(self.first, "1", (mount,), self._imager(self.first), install_id=self.install_ids[0]),
                NewTelescope(self.second, "2", (), self._imager(self.second), install_id=self.install_ids[1]),
            ),
            devices=(NewDevice(self.roof, "enclosure"),),
            install_id=self.install_ids[2],
        )

    def _imager(self, telescope: TelescopeUid) -> tuple[NewInstrument]:
        return (NewInstrument(self.instruments[telescope], "optical_imager"),)

    @property
    def places(self) -> list[Place]:
        def resource(uid: UUID, node: int, telescope_uid: UUID | None, device_type: str | None = None) -> Resource:
            kind = ResourceKind.TELESCOPE if device_type is None else ResourceKind.DEVICE
            return Resource(uid, kind, self.install_ids[node], self.observatory_uid, telescope_uid, device_type)

        return [
            Place(resource(self.first, 0, self.first), (self.roof,)),
            Place(resource(self.second, 1, self.second), (self.roof,)),
            Place(resource(self.mount, 0, self.first, "mount"), ()),
            Place(resource(self.roof, 2, None, "enclosure"), (self.first, self.second)),
        ]

    # What tests do.

    def wish(
        self,
        target: UUID,
        holder: Holder = ANNA,
        *,
        terms: Terms = TERMS,
        while_task: WhileTask = WhileTask.REFUSE,
    ) -> LeaseWish:
        kind = ResourceKind.TELESCOPE if target in (self.first, self.second) else ResourceKind.DEVICE
        return LeaseWish(target, kind, LeaseUid(uuid4()), holder, terms, while_task)

    def begin_task(self, telescope: TelescopeUid, status: str = "active") -> RunningTask:
        task = RunningTask(TaskUid(uuid4()), telescope)
        if isinstance(self.platform, PostgresServer):
            with psycopg.connect(self.platform.owner_url) as connection:
                connection.execute(
                    "INSERT INTO observation_task (uid, task_type, status, instrument_id) "
                    "SELECT %s, 'optical_imaging', %s, id FROM instrument WHERE uid = %s",
                    [task.uid, status, self.instruments[telescope]],
                )
        elif status == "active":
            self.platform.tasks.append(task)
        return task

    def end_task(self, task: RunningTask, status: str = "completed") -> None:
        if isinstance(self.platform, PostgresServer):
            with psycopg.connect(self.platform.owner_url) as connection:
                connection.execute("UPDATE observation_task SET status = %s WHERE uid = %s", [status, task.uid])
        else:
            self.platform.tasks.remove(task)

    async def in_the_way(
        self, *, telescope: TelescopeUid | None = None, device: DeviceUid | None = None, kind: str = "mount.park"
    ) -> RunningTask | None:
        return await self.tasks.running(
            telescope_uid=telescope, device_uid=device, moves_enclosure=kind.startswith("enclosure.")
        )

    async def take(self, target: UUID, holder: Holder = ANNA, *, duration_s: float = 300.0) -> "Taken":
        wish = self.wish(target, holder, terms=replace(TERMS, duration_s=duration_s))
        control, _ = await self.ledger.acquire(wish)
        return Taken(wish, lease_of(control))

    async def control(self, uid: UUID) -> Control:
        [control] = await self.ledger.controls([uid])
        return control

    async def admitted(
        self, target: UUID, caller: Holder = ANNA, *, lease: "Taken | LeaseUid | None" = None, kind: str = "mount.park"
    ) -> tuple[UUID, int]:
        """Under which fence a command goes."""
        is_telescope = target in (self.first, self.second)
        order = CommandOrder(
            command_id=CommandId(uuid4()),
            telescope_uid=TelescopeUid(target) if is_telescope else None,
            device_uid=None if is_telescope else DeviceUid(target),
            command=Opaque.of({"command_type": kind}),
            origin=None,
            service=caller.service,
            actor=caller.actor,
            timeout_s=10.0,
            lease_uid=lease.wish.lease_uid if isinstance(lease, Taken) else lease,
        )
        fence = await LeaseGuard(self.ledger).admit(order, InstallId(uuid4()))
        return fence.uid, fence.fence

    async def lift(self, node: int, uid: UUID, fence: int) -> None:
        """A node says hello that remembers a higher fence than the ledger does."""
        await self.epochs.claim(
            install_id=self.install_ids[node], instance_uid=InstanceUid(uuid4()), last_epoch=1, last_fences={uid: fence}
        )


class Taken:
    """A lease that was granted, and what its holder knows of it."""

    def __init__(self, wish: LeaseWish, lease: Lease) -> None:
        self.wish = wish
        self.lease = lease

    @property
    def id(self) -> LeaseId:
        return self.lease.lease_id

    @property
    def proof(self) -> LeaseProof:
        return LeaseProof(self.wish.holder, self.wish.lease_uid)


def lease_of(control: Control) -> Lease:
    assert control.lease is not None
    return control.lease


def how(control: Control) -> LeaseEnd | None:
    ending = lease_of(control).ending
    return None if ending is None else ending.how


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with PostgresServer(tmp_path_factory.mktemp("leases")) as server:
        yield server


@pytest.fixture(params=["memory", "postgres"])
async def hall(request: pytest.FixtureRequest) -> AsyncIterator[Hall]:
    made = Hall()
    if request.param == "memory":
        switch = Switch()
        made.epochs = MemoryEpochs(switch)
        memory = MemoryLeases(switch, made.epochs.fences)
        memory.put(*made.places)
        made.ledger = made.platform = memory
        made.tasks = MemoryTasks(memory, switch)
        yield made
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    async with open_loop_and_database(server.gateway_url) as database:
        await provision(server.owner_url, [made.records])
        made.ledger, made.epochs = PgLeases(database), NodeSessions(database)
        made.tasks, made.platform = PgRunningTasks(database), server
        yield made


# Acquired.


async def test_a_lease_is_granted_on_its_terms_and_kept_without_its_secret(hall: Hall) -> None:
    wish = hall.wish(hall.first)
    control, changed = await hall.ledger.acquire(wish)
    lease = lease_of(control)
    assert control.held is lease
    assert (lease.holder, lease.terms, lease.resource.uid) == (ANNA, TERMS, hall.first)
    assert (lease.resource.install_id, lease.resource.telescope_uid) == (hall.install_ids[0], hall.first)
    assert lease.secret == digest(wish.lease_uid)
    assert wish.lease_uid.bytes not in lease.secret
    assert 299 < control.left_s <= 300
    assert (lease.expires_at - lease.acquired_at).total_seconds() == pytest.approx(300)
    assert {one.uid for one in changed} == {hall.first, hall.roof}


async def test_nobody_else_gets_what_is_held_and_is_told_who_holds_it(hall: Hall) -> None:
    taken = await hall.take(hall.first)
    with pytest.raises(LeaseHeld) as caught:
        await hall.ledger.acquire(hall.wish(hall.first, BERT))
    assert caught.value.details["holder"] == {"service": "web", "actor": {"uid": "anna", "kind": "user"}}
    assert caught.value.details["expiresAt"] == taken.lease.expires_at.isoformat()
    assert caught.value.outcome is Outcome.NOT_SENT
    assert caught.value.retry_after_s is not None
    assert 290 < caught.value.retry_after_s <= 300
    assert lease_of(await hall.control(hall.first)).lease_id == taken.id


async def test_the_holder_who_asks_again_with_its_secret_has_it_already(hall: Hall) -> None:
    wish = hall.wish(hall.first)
    first, _ = await hall.ledger.acquire(wish)
    again, changed = await hall.ledger.acquire(wish)
    assert (lease_of(again).lease_id, again.fence) == (lease_of(first).lease_id, first.fence)
    assert not changed
    with pytest.raises(LeaseHeld):  # another window of the same person is another holder of the secret
        await hall.ledger.acquire(hall.wish(hall.first))


async def test_of_many_who_want_one_telescope_at_once_one_gets_it(hall: Hall) -> None:
    got: list[Holder] = []
    refused: list[GatewayError] = []

    async def want(number: int) -> None:
        wish = hall.wish(hall.first, Holder("web", str(number), "user"))
        try:
            control, _ = await hall.ledger.acquire(wish)
            got.append(lease_of(control).holder)
        except LeaseHeld as error:
            refused.append(error)

    for _ in range(5):  # the first time there is not even a row to wait for
        got.clear()
        refused.clear()
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(want, number)
        assert (len(got), len(refused)) == (1, 7)
        lease = lease_of(await hall.control(hall.first))
        assert lease.holder == got[0]
        await hall.ledger.end(lease.lease_id, Ending(LeaseEnd.BROKEN, ROBOT, "once more"), None)


async def test_what_belongs_to_a_telescope_has_no_lease_of_its_own(hall: Hall) -> None:
    with pytest.raises(Invalid, match=str(hall.first)):
        await hall.ledger.acquire(hall.wish(hall.mount))


async def test_what_nobody_knows_cannot_be_held(hall: Hall) -> None:
    with pytest.raises(NotFound):
        await hall.ledger.acquire(hall.wish(uuid4()))


# Fences.


async def test_a_fence_grows_at_each_begin_and_at_each_end(hall: Hall) -> None:
    fences = []
    for _ in range(3):
        taken = await hall.take(hall.first)
        fences.append(taken.lease.fence)
        ended = await hall.ledger.end(taken.id, Ending(LeaseEnd.RELEASED), taken.proof)
        fences.append(ended.fence)
    assert fences == sorted(set(fences))


async def test_a_renewal_keeps_the_fence(hall: Hall) -> None:
    taken = await hall.take(hall.first, duration_s=10)
    renewed = await hall.ledger.renew(taken.id, taken.proof, None)
    assert (renewed.fence, lease_of(renewed).fence) == (taken.lease.fence, taken.lease.fence)
    assert lease_of(renewed).revision == taken.lease.revision + 1
    assert lease_of(renewed).expires_at > taken.lease.expires_at
    longer = await hall.ledger.renew(taken.id, taken.proof, replace(TERMS, duration_s=900))
    assert 899 < longer.left_s <= 900


async def test_a_ledger_of_a_backup_grants_above_what_nodes_remember_and_its_own_leases_are_void(hall: Hall) -> None:
    taken = await hall.take(hall.first)
    await hall.lift(0, hall.first, 5_000)
    assert (await hall.control(hall.first)).held is None
    with pytest.raises(StaleFence):
        await hall.ledger.renew(taken.id, taken.proof, None)
    with pytest.raises(LeaseExpired):
        await hall.admitted(hall.first, lease=taken)
    newer = await hall.take(hall.first, BERT)
    assert newer.lease.fence > 5_000
    before = await hall.ledger.get(taken.id)
    assert before is not None
    assert how(before) is LeaseEnd.SUPERSEDED
    with pytest.raises(StaleFence):
        await hall.admitted(hall.first, lease=taken)


# Changed by its holder alone.


async def test_who_cannot_show_the_secret_is_not_the_holder(hall: Hall) -> None:
    taken = await hall.take(hall.first)
    for proof in (LeaseProof(ANNA, LeaseUid(uuid4())), LeaseProof(BERT, taken.wish.lease_uid)):
        with pytest.raises(Forbidden):
            await hall.ledger.renew(taken.id, proof, None)
        with pytest.raises(Forbidden):
            await hall.ledger.end(taken.id, Ending(LeaseEnd.RELEASED), proof)
    assert (await hall.control(hall.first)).held is not None


async def test_a_lease_nobody_granted_is_not_found(hall: Hall) -> None:
    proof = LeaseProof(ANNA, LeaseUid(uuid4()))
    with pytest.raises(NotFound):
        await hall.ledger.renew(LeaseId(uuid4()), proof, None)
    with pytest.raises(NotFound):
        await hall.ledger.end(LeaseId(uuid4()), Ending(LeaseEnd.RELEASED), proof)
    assert await hall.ledger.get(LeaseId(uuid4())) is None


async def test_a_lease_ends_once_and_as_it_ended(hall: Hall) -> None:
    taken = await hall.take(hall.first)
    broken = await hall.ledger.end(taken.id, Ending(LeaseEnd.BROKEN, BERT, "storm"), None)
    assert lease_of(broken).ending == Ending(LeaseEnd.BROKEN, BERT, "storm")
    released = await hall.ledger.end(taken.id, Ending(LeaseEnd.RELEASED), taken.proof)
    assert lease_of(released).ending == Ending(LeaseEnd.BROKEN, BERT, "storm")
    assert released.fence == broken.fence
    with pytest.raises(LeaseExpired, match="storm"):
        await hall.ledger.renew(taken.id, taken.proof, None)


# Over by the clock.


async def test_what_is_over_does_not_hold_whether_or_not_somebody_ended_it(hall: Hall) -> None:
    taken = await hall.take(hall.first, duration_s=0.05)
    await trio.sleep(0.1)
    control = await hall.control(hall.first)
    assert (control.held, how(control)) == (None, None)
    with pytest.raises(LeaseExpired):
        await hall.ledger.renew(taken.id, taken.proof, None)
    with pytest.raises(LeaseExpired):
        await hall.admitted(hall.first, lease=taken)
    newer = await hall.take(hall.first, BERT)
    before = await hall.ledger.get(taken.id)
    assert before is not None
    assert how(before) is LeaseEnd.EXPIRED
    assert newer.lease.fence > taken.lease.fence + 1


async def test_what_is_over_is_ended_once_and_what_holds_is_left(hall: Hall) -> None:
    over, _ = await hall.take(hall.first, duration_s=0.05), await hall.take(hall.second)
    await trio.sleep(0.1)
    ended: list[Control] = []

    async def expire() -> None:
        ended.extend(await hall.ledger.expire())

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(expire)
    mine = [control for control in ended if control.uid in (hall.first, hall.second)]
    assert [(control.uid, how(control)) for control in mine] == [(hall.first, LeaseEnd.EXPIRED)]
    assert mine[0].fence == over.lease.fence + 1


async def test_a_renewal_and_the_end_of_time_cannot_both_have_it(hall: Hall) -> None:
    for _ in range(10):
        taken = await hall.take(hall.first, duration_s=0.03)
        results: list[str] = []

        async def renew(taken: Taken = taken, results: list[str] = results) -> None:
            await trio.sleep(0.028)
            try:
                await hall.ledger.renew(taken.id, taken.proof, TERMS)
                results.append("renewed")
            except LeaseExpired:
                results.append("refused")

        async def expire(results: list[str] = results) -> None:
            with trio.fail_after(PATIENCE_S):
                while not results:
                    if any(one.uid == hall.first for one in await hall.ledger.expire()):
                        results.append("ended")
                    await trio.sleep(0.005)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(renew)
            nursery.start_soon(expire)
        is_held = (await hall.control(hall.first)).held is not None
        assert is_held is ("renewed" in results)
        assert not {"renewed", "ended"} <= set(results)
        await hall.ledger.end(taken.id, Ending(LeaseEnd.RELEASED), taken.proof)


# A roof over several.


async def test_a_roof_is_its_lease_holders_or_of_who_has_all_telescopes_under_it(hall: Hall) -> None:
    one = await hall.take(hall.first)
    with pytest.raises(LeaseRequired, match="all telescopes"):
        await hall.admitted(hall.roof, lease=one, kind="enclosure.open")
    with pytest.raises(LeaseRequired):
        await hall.admitted(hall.first, lease=one, kind="enclosure.open")
    await hall.take(hall.second)
    roof_fence = (await hall.control(hall.roof)).fence
    assert await hall.admitted(hall.roof, lease=one, kind="enclosure.open") == (hall.roof, roof_fence)
    assert await hall.admitted(hall.first, lease=one, kind="enclosure.open") == (hall.first, one.lease.fence)


async def test_nobody_takes_a_roof_from_who_has_all_telescopes_under_it(hall: Hall) -> None:
    await hall.take(hall.first)
    await hall.take(hall.second)
    with pytest.raises(LeaseHeld):
        await hall.ledger.acquire(hall.wish(hall.roof, BERT))
    mine = await hall.take(hall.roof, ANNA)
    assert await hall.admitted(hall.roof, lease=mine, kind="enclosure.close") == (hall.roof, mine.lease.fence)


async def test_who_has_the_roof_keeps_it_from_who_gets_all_telescopes_later(hall: Hall) -> None:
    roof = await hall.take(hall.roof, BERT)
    one = await hall.take(hall.first)
    await hall.take(hall.second)
    with pytest.raises(LeaseHeld):
        await hall.admitted(hall.roof, lease=one, kind="enclosure.open")
    assert await hall.admitted(hall.roof, BERT, lease=roof, kind="enclosure.open") == (hall.roof, roof.lease.fence)


async def test_of_two_who_want_a_roof_by_different_ways_at_once_one_can_move_it(hall: Hall) -> None:
    await hall.take(hall.first)
    won: dict[str, Taken] = {}

    async def want(name: str, target: UUID, holder: Holder) -> None:
        try:
            won[name] = await hall.take(target, holder)
        except LeaseHeld:
            return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(want, "by telescopes", hall.second, ANNA)
        nursery.start_soon(want, "by itself", hall.roof, BERT)
    movers = []
    for name, holder in (("by telescopes", ANNA), ("by itself", BERT)):
        try:
            await hall.admitted(hall.roof, holder, lease=won.get(name), kind="enclosure.open")
            movers.append(name)
        except (LeaseHeld, LeaseRequired):
            continue
    assert movers == (["by itself"] if "by itself" in won else ["by telescopes"])


async def test_a_roof_that_changes_hands_by_its_telescopes_gets_a_higher_fence(hall: Hall) -> None:
    taken = [await hall.take(hall.first), await hall.take(hall.second)]
    before = await hall.admitted(hall.roof, lease=taken[0], kind="enclosure.open")
    for one in taken:
        await hall.ledger.end(one.id, Ending(LeaseEnd.RELEASED), one.proof)
    taken = [await hall.take(hall.first, BERT), await hall.take(hall.second, BERT)]
    after = await hall.admitted(hall.roof, BERT, lease=taken[0], kind="enclosure.open")
    assert before is not None
    assert after is not None
    assert after[1] > before[1]


# Commands.


async def test_a_command_goes_under_the_fence_of_its_lease_also_to_a_device_of_the_telescope(hall: Hall) -> None:
    taken = await hall.take(hall.first)
    assert await hall.admitted(hall.first, lease=taken) == (hall.first, taken.lease.fence)
    assert await hall.admitted(hall.mount, lease=taken) == (hall.first, taken.lease.fence)


async def test_what_nobody_holds_is_not_moved_without_a_lease_either(hall: Hall) -> None:
    for target in (hall.first, hall.mount, hall.roof):
        with pytest.raises(LeaseRequired, match="acquire it"):
            await hall.admitted(target)


@pytest.mark.parametrize(("caller", "refusal"), [(BERT, LeaseHeld), (ROBOT, LeaseHeld), (ANNA, LeaseRequired)])
async def test_what_somebody_holds_is_not_moved_without_the_lease(
    hall: Hall, caller: Holder, refusal: type[GatewayError]
) -> None:
    await hall.take(hall.first)
    with pytest.raises(refusal):
        await hall.admitted(hall.mount, caller)


async def test_a_lease_of_another_or_of_something_else_or_of_nobody_opens_nothing(hall: Hall) -> None:
    mine, theirs = await hall.take(hall.second, BERT), await hall.take(hall.first)
    with pytest.raises(LeaseRequired, match="no lease"):
        await hall.admitted(hall.first, BERT, lease=theirs)
    with pytest.raises(LeaseRequired, match="does not reach"):
        await hall.admitted(hall.first, BERT, lease=mine)
    with pytest.raises(LeaseRequired, match="no lease"):
        await hall.admitted(hall.first, lease=LeaseUid(uuid4()))


async def test_a_lease_that_was_broken_opens_nothing_any_more(hall: Hall) -> None:
    taken = await hall.take(hall.first)
    await hall.ledger.end(taken.id, Ending(LeaseEnd.BROKEN, BERT, "storm"), None)
    with pytest.raises(LeaseExpired, match="storm"):
        await hall.admitted(hall.first, lease=taken)
    await hall.take(hall.first, BERT)
    with pytest.raises(StaleFence):
        await hall.admitted(hall.first, lease=taken)


# Tasks.


async def test_while_a_task_runs_nobody_gets_control_unless_told_what_becomes_of_it(hall: Hall) -> None:
    task = hall.begin_task(hall.first)
    for target in (hall.first, hall.roof):
        with pytest.raises(TaskActive) as caught:
            await hall.ledger.acquire(hall.wish(target))
        assert caught.value.details == {"taskUid": str(task.uid), "telescopeUid": str(hall.first)}
        assert caught.value.retry_after_s is not None
    assert (await hall.take(hall.second)).lease.while_task is WhileTask.REFUSE
    hall.end_task(task)
    assert (await hall.take(hall.first)).lease.fence > 0


@pytest.mark.parametrize("status", ["unassigned", "pending", "completed", "failed", "interrupted", "canceled"])
async def test_only_a_task_that_runs_is_in_the_way(hall: Hall, status: str) -> None:
    hall.begin_task(hall.first, status)
    assert await hall.in_the_way(telescope=hall.first) is None
    assert lease_of((await hall.ledger.acquire(hall.wish(hall.first)))[0]).holder == ANNA


@pytest.mark.parametrize("while_task", [WhileTask.FINISH, WhileTask.INTERRUPT])
async def test_a_lease_that_was_granted_meanwhile_says_what_it_waits_for_until_that_has_ended(
    hall: Hall, while_task: WhileTask
) -> None:
    task = hall.begin_task(hall.first)
    wish = hall.wish(hall.first, while_task=while_task)
    granted, _ = await hall.ledger.acquire(wish)
    lease = lease_of(granted)
    assert (lease.while_task, granted.waits_for) == (while_task, task.uid)
    with pytest.raises(LeaseHeld):
        await hall.ledger.acquire(hall.wish(hall.first, BERT, while_task=WhileTask.INTERRUPT))
    renewed = await hall.ledger.renew(lease.lease_id, LeaseProof(ANNA, wish.lease_uid), replace(TERMS, duration_s=900))
    assert (lease_of(renewed).while_task, renewed.waits_for) == (while_task, task.uid)
    hall.end_task(task, "interrupted")
    [seen], _ = await hall.ledger.page(LeaseQuery(target=hall.first))
    assert (lease_of(seen).while_task, seen.waits_for) == (while_task, None)


async def test_a_task_is_in_the_way_of_its_telescope_its_devices_and_what_is_over_it(hall: Hall) -> None:
    task = hall.begin_task(hall.second)
    assert await hall.in_the_way(telescope=hall.second) == task
    assert await hall.in_the_way(device=hall.roof) == task
    assert await hall.in_the_way(telescope=hall.first, kind="enclosure.open") == task
    assert await hall.in_the_way(telescope=hall.first) is None
    assert await hall.in_the_way(device=hall.mount) is None
    mine = hall.begin_task(hall.first)
    assert await hall.in_the_way(device=hall.mount) == mine


async def test_a_task_is_to_be_aborted_for_as_long_as_a_lease_that_holds_wants_it(hall: Hall) -> None:
    task, other = hall.begin_task(hall.first), hall.begin_task(hall.second)
    await hall.ledger.acquire(hall.wish(hall.second, BERT, while_task=WhileTask.FINISH))
    assert await hall.tasks.to_abort([hall.first, hall.second]) == []
    wish = hall.wish(hall.first, while_task=WhileTask.INTERRUPT)
    granted, _ = await hall.ledger.acquire(wish)
    assert await hall.tasks.to_abort([hall.first, hall.second]) == [task]
    assert await hall.tasks.to_abort([hall.second]) == []
    await hall.ledger.end(lease_of(granted).lease_id, Ending(LeaseEnd.RELEASED), LeaseProof(ANNA, wish.lease_uid))
    assert await hall.tasks.to_abort([hall.first, hall.second]) == []
    await hall.ledger.acquire(hall.wish(hall.roof, while_task=WhileTask.INTERRUPT))
    assert set(await hall.tasks.to_abort([hall.first, hall.second])) == {task, other}
    hall.end_task(task)
    assert await hall.tasks.to_abort([hall.first, hall.second]) == [other]


# Looked at.


async def test_leases_are_listed_the_newest_first(hall: Hall) -> None:
    first = await hall.take(hall.first)
    await hall.ledger.end(first.id, Ending(LeaseEnd.RELEASED), first.proof)
    second = await hall.take(hall.first, BERT)
    for held, expected in ((None, [second.id, first.id]), (True, [second.id]), (False, [first.id])):
        found, total = await hall.ledger.page(LeaseQuery(target=hall.first, held=held))
        assert [lease_of(control).lease_id for control in found] == expected
        assert total == len(expected)
    found, total = await hall.ledger.page(LeaseQuery(target=hall.first, page=2, size=1))
    assert ([lease_of(control).lease_id for control in found], total) == ([first.id], 2)


# What PostgreSQL itself keeps.


def test_the_gateways_role_cannot_give_a_lease_to_another(postgres: PostgresServer) -> None:
    for statement in (
        "UPDATE skygw.lease SET service = 'me'",
        "UPDATE skygw.lease SET fence = 0",
        "UPDATE skygw.lease SET while_task = 'finish'",
        "UPDATE skygw.lease SET secret = '\\x00'",
        "DELETE FROM skygw.lease",
        "ALTER TABLE skygw.lease DISABLE TRIGGER log_lease",
        "SELECT skygw.log_lease()",
    ):
        with (
            psycopg.connect(postgres.gateway_url, autocommit=True) as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            connection.execute(statement.encode())
