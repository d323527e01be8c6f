"""`LeaseLedger` in memory, on trio's clock."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import trio

from skygw.control.lease import (
    Control,
    Ending,
    Lease,
    LeaseProof,
    LeaseQuery,
    LeaseWish,
    Place,
    Standing,
    Terms,
    WhileTask,
    digest,
    needs_of,
)
from skygw.control.lease_rules import check_renewal, granted_before, may_end, remains_of
from skygw.control.running_tasks import RunningTask, task_active
from skygw.errors import NotFound
from skygw.ids import DeviceUid, LeaseId, TelescopeUid
from skygw.resources import ResourceKind
from tests.fakes.ports import Switch

EPOCH = datetime(2026, 3, 1, 12, tzinfo=UTC)


class MemoryLeases:
    """`places` are the hub's records; `fences` may be shared with who else lifts them."""

    def __init__(self, switch: Switch, fences: dict[UUID, int] | None = None) -> None:
        self.places: dict[UUID, Place] = {}
        self.fences: dict[UUID, int] = {} if fences is None else fences
        self.rows: dict[LeaseId, Lease] = {}
        self.tasks: list[RunningTask] = []
        """Those that run, the oldest first."""
        self._switch = switch

    def put(self, *places: Place) -> None:
        self.places |= {place.resource.uid: place for place in places}

    async def acquire(self, wish: LeaseWish) -> tuple[Control, Sequence[Control]]:
        await self._switch.asked()
        place = self._place(wish.target, wish.kind)
        around = (place.resource.uid, *place.neighbours)
        before = {uid: self._control(uid) for uid in around}
        if granted_before(wish, place, before) is not None:
            return before[wish.target], ()
        if wish.while_task is WhileTask.REFUSE and (tasks := self.tasks_at(wish.target)):
            raise task_active(tasks[0])
        self._clear(before[wish.target])
        self.grant(wish)
        if place.resource.kind is ResourceKind.TELESCOPE:
            for uid in place.neighbours:
                lease = before[uid].lease
                if lease is None or lease.ended_at is not None:
                    self._raise(uid)
        after = {uid: self._control(uid) for uid in around}
        return after[wish.target], [now for uid, now in after.items() if now.order != before[uid].order]

    def grant(self, wish: LeaseWish) -> None:
        """Unless it was granted before."""
        if any(lease.secret == digest(wish.lease_uid) for lease in self.rows.values()):
            return
        self._raise(wish.target)
        now = _now()
        lease = Lease(
            lease_id=LeaseId(uuid4()),
            secret=digest(wish.lease_uid),
            resource=self._place(wish.target, wish.kind).resource,
            holder=wish.holder,
            terms=wish.terms,
            fence=self.fences[wish.target],
            revision=1,
            acquired_at=now,
            expires_at=now + timedelta(seconds=wish.terms.duration_s),
            changed_at=now,
            while_task=wish.while_task,
        )
        self.rows[lease.lease_id] = lease

    async def renew(self, lease_id: LeaseId, proof: LeaseProof, terms: Terms | None) -> Control:
        await self._switch.asked()
        control, lease = self._of(lease_id)
        check_renewal(control, proof)
        new, now = terms or lease.terms, _now()
        self.rows[lease_id] = replace(
            lease,
            terms=new,
            revision=lease.revision + 1,
            changed_at=now,
            expires_at=now + timedelta(seconds=new.duration_s),
        )
        return self._of(lease_id)[0]

    async def end(self, lease_id: LeaseId, ending: Ending, proof: LeaseProof | None) -> Control:
        await self._switch.asked()
        control, lease = self._of(lease_id)
        if may_end(control, proof):
            self._end(lease, remains_of(control) or ending)
        return self._of(lease_id)[0]

    async def expire(self) -> Sequence[Control]:
        await self._switch.asked()
        return [self._control(uid) for uid in list(self.fences) if self._clear(self._control(uid))]

    async def get(self, lease_id: LeaseId) -> Control | None:
        await self._switch.asked()
        return self._of(lease_id)[0] if lease_id in self.rows else None

    async def page(self, query: LeaseQuery) -> tuple[Sequence[Control], int]:
        await self._switch.asked()
        newest_first = sorted(self.rows.values(), key=lambda lease: lease.acquired_at, reverse=True)
        found = [
            control
            for lease in newest_first
            for control in [self._of(lease.lease_id)[0]]
            if query.target in (None, control.uid) and query.held in (None, control.held is not None)
        ]
        first = (query.page - 1) * query.size
        return found[first : first + query.size], len(found)

    async def controls(self, uids: Collection[UUID] | None) -> Sequence[Control]:
        await self._switch.asked()
        everything = [self._control(uid) for uid in self.fences]
        return [one for one in everything if (one.lease is not None if uids is None else one.uid in uids)]

    async def standing(
        self,
        *,
        telescope_uid: TelescopeUid | None,
        device_uid: DeviceUid | None,
        moves_enclosure: bool,
        secret: bytes | None,
    ) -> Standing | None:
        await self._switch.asked()
        moved: dict[UUID, Collection[UUID]] = {}
        if device_uid is not None:
            place = self.places.get(device_uid)
            if place is None:
                return None
            telescope_uid = None if place.resource.telescope_uid is None else TelescopeUid(place.resource.telescope_uid)
            if telescope_uid is None:
                moved[device_uid] = place.neighbours
        if telescope_uid is not None:
            moved[telescope_uid] = ()
            if moves_enclosure and device_uid is None:
                moved |= {uid: self.places[uid].neighbours for uid in self.places[telescope_uid].neighbours}
        around = {*moved, *(uid for under in moved.values() for uid in under)}
        matching = [self._of(lease.lease_id)[0] for lease in self.rows.values() if lease.secret == secret]
        matching.sort(key=lambda control: (control.uid in around, control.held is not None, control.order))
        return Standing(needs_of(moved, map(self._control, around)), matching[-1] if matching else None)

    def tasks_at(self, uid: UUID | None) -> list[RunningTask]:
        """At a telescope, at the telescope of a device, or at those under a device that they share."""
        place = None if uid is None else self.places.get(uid)
        if place is None:
            return []
        own = place.resource.telescope_uid
        telescopes = place.neighbours if own is None else (own,)
        return [task for task in self.tasks if task.telescope_uid in telescopes]

    def wants_aborted(self, task: RunningTask) -> bool:
        """Whether the holder of a lease does."""
        return any(
            lease.while_task is WhileTask.INTERRUPT
            and self._with(lease.resource.uid, lease).held is not None
            and task in self.tasks_at(lease.resource.uid)
            for lease in self.rows.values()
        )

    def _place(self, uid: UUID | None, kind: ResourceKind) -> Place:
        place = None if uid is None else self.places.get(uid)
        if place is None or place.resource.kind is not kind:
            raise NotFound(f"No installation controls a {kind.value} {uid}.")
        return place

    def _control(self, uid: UUID) -> Control:
        mine = [lease for lease in self.rows.values() if lease.resource.uid == uid]
        return self._with(uid, max(mine, key=lambda lease: lease.fence, default=None))

    def _of(self, lease_id: LeaseId) -> tuple[Control, Lease]:
        lease = self.rows.get(lease_id)
        if lease is None:
            raise NotFound(f"No lease {lease_id} is known.")
        return self._with(lease.resource.uid, lease), lease

    def _with(self, uid: UUID, lease: Lease | None) -> Control:
        left_s = 0.0 if lease is None else (lease.expires_at - _now()).total_seconds()
        waiting = lease is not None and lease.while_task is not WhileTask.REFUSE and lease.ended_at is None
        tasks = self.tasks_at(uid) if waiting else []
        return Control(uid, self.fences.get(uid, 0), lease, left_s, tasks[0].uid if tasks else None)

    def _raise(self, uid: UUID) -> None:
        self.fences[uid] = self.fences.get(uid, 0) + 1

    def _clear(self, control: Control) -> bool:
        remains = remains_of(control)
        if remains is None or control.lease is None:
            return False
        self._end(control.lease, remains)
        return True

    def _end(self, lease: Lease, ending: Ending) -> None:
        now = _now()
        self.rows[lease.lease_id] = replace(
            lease, ending=ending, ended_at=now, changed_at=now, revision=lease.revision + 1
        )
        self._raise(lease.resource.uid)


def _now() -> datetime:
    return EPOCH + timedelta(seconds=trio.current_time())
