"""Leases in PostgreSQL: of two who want one, whichever replica they ask, one gets it; its clock is what counts."""

from collections.abc import Callable, Collection, Sequence
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from skygw.control.lease import (
    Control,
    Ending,
    Holder,
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
from skygw.control.running_tasks import task_active
from skygw.database.pool import Connection, Database
from skygw.database.running_tasks import WAITED_FOR, running_at
from skygw.errors import GatewayError, NotFound
from skygw.ids import DeviceUid, InstallId, LeaseId, TaskUid, TelescopeUid
from skygw.protocol.gateway_frames import LeaseEnd, OnExpiry
from skygw.resources import Resource, ResourceKind

# Where two installations may be here, the newer record is meant; see `installations.py`.
PLACE_OF_TELESCOPE = """
    SELECT 'telescope' AS kind,
           telescope.uid AS uid,
           telescope.uid AS telescope_uid,
           observatory.uid AS observatory_uid,
           NULL AS device_type,
           (SELECT installation.uid
            FROM sky_node_installation AS installation
            WHERE installation.telescope_id = telescope.id AND NOT installation.is_deleted
            ORDER BY installation.id DESC LIMIT 1) AS install_id,
           ARRAY(SELECT device.uid
                 FROM device
                 WHERE device.observatory_id = telescope.observatory_id AND device.telescope_id IS NULL
                   AND device.device_type = 'enclosure' AND NOT device.is_deleted) AS neighbours
    FROM telescope
    JOIN observatory ON observatory.id = telescope.observatory_id
    WHERE telescope.uid = $1 AND NOT telescope.is_deleted
"""

PLACE_OF_DEVICE = """
    SELECT 'device' AS kind,
           device.uid AS uid,
           telescope.uid AS telescope_uid,
           observatory.uid AS observatory_uid,
           device.device_type,
           (SELECT installation.uid
            FROM sky_node_installation AS installation
            WHERE NOT installation.is_deleted
              AND (installation.telescope_id = device.telescope_id
                   OR device.telescope_id IS NULL AND installation.node_type = 'observatory'
                      AND installation.observatory_id = device.observatory_id)
            ORDER BY installation.id DESC LIMIT 1) AS install_id,
           CASE WHEN device.telescope_id IS NULL
               THEN ARRAY(SELECT under.uid
                          FROM telescope AS under
                          WHERE under.observatory_id = device.observatory_id AND NOT under.is_deleted)
               ELSE '{}'
           END AS neighbours
    FROM device
    JOIN observatory ON observatory.id = device.observatory_id
    LEFT JOIN telescope ON telescope.id = device.telescope_id
    WHERE device.uid = $1 AND NOT device.is_deleted AND telescope.is_deleted IS NOT TRUE
"""

# In the order of uids, as in a node's claim: two who want some of the same lock them in one order.
LOCK = """
    INSERT INTO skygw.fence (resource_uid, fence)
    SELECT uid, 0 FROM unnest($1::uuid[]) AS wanted (uid) ORDER BY uid
    ON CONFLICT (resource_uid) DO UPDATE SET fence = skygw.fence.fence
"""

RAISE = "UPDATE skygw.fence SET fence = fence + 1 WHERE resource_uid = $1"

CONTROL = f"""
    SELECT fence.resource_uid AS uid,
           fence.fence AS newest_fence,
           extract(epoch FROM lease.expires_at - clock_timestamp())::double precision AS left_s,
           CASE WHEN lease.while_task <> 'refuse' AND lease.ended_at IS NULL THEN {WAITED_FOR} END AS waits_for,
           lease.*
    FROM skygw.fence
"""  # noqa: S608 -- constants of ours
LATEST = """
    LEFT JOIN LATERAL (
        SELECT * FROM skygw.lease WHERE lease.resource_uid = fence.resource_uid ORDER BY lease.fence DESC LIMIT 1
    ) AS lease ON true
"""

CONTROLS = CONTROL + LATEST + "WHERE fence.resource_uid = ANY ($1::uuid[])"
EVER_LEASED = CONTROL + LATEST + "WHERE lease.lease_id IS NOT NULL"
OF_LEASE = CONTROL + "JOIN skygw.lease ON lease.resource_uid = fence.resource_uid WHERE lease.lease_id = $1"
SHOWN = (
    CONTROL
    + """
    JOIN skygw.lease ON lease.resource_uid = fence.resource_uid
    WHERE lease.secret = $1
    ORDER BY lease.resource_uid = ANY ($2::uuid[]) DESC, lease.ended_at IS NULL DESC, lease.fence DESC
    LIMIT 1
"""
)

PAGE = (
    CONTROL
    + """
    JOIN skygw.lease ON lease.resource_uid = fence.resource_uid
    WHERE ($1::uuid IS NULL OR lease.resource_uid = $1)
      AND ($2::boolean IS NULL OR $2 = (
          lease.ended_at IS NULL AND lease.fence = fence.fence AND lease.expires_at > clock_timestamp()))
"""
)
LIST_PAGE = PAGE + "ORDER BY lease.acquired_at DESC, lease.lease_id LIMIT $3 OFFSET $4"
COUNT = f"SELECT count(*) FROM ({PAGE}) AS found"  # noqa: S608 -- constants of ours

GRANT = """
    INSERT INTO skygw.lease (lease_id, secret, resource_uid, resource_kind, install_id, observatory_uid, telescope_uid,
                             device_type, service, actor_uid, actor_kind, fence, duration_s, warn_s, on_expiry,
                             deadman_s, while_task, acquired_at, changed_at, expires_at)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, fence.fence, $12, $13, $14, $15, $16, at, at,
           at + make_interval(secs => $12)
    FROM skygw.fence, clock_timestamp() AS at
    WHERE fence.resource_uid = $3
"""

RENEW = """
    UPDATE skygw.lease
    SET duration_s = $2, warn_s = $3, on_expiry = $4, deadman_s = $5, revision = revision + 1, changed_at = at,
        expires_at = at + make_interval(secs => $2)
    FROM clock_timestamp() AS at
    WHERE lease_id = $1 AND ended_at IS NULL
"""

END = """
    UPDATE skygw.lease
    SET ended = $2, ended_by_service = $3, ended_by_actor_uid = $4, ended_by_actor_kind = $5, reason = $6,
        ended_at = at, changed_at = at, revision = revision + 1
    FROM clock_timestamp() AS at
    WHERE lease_id = $1 AND ended_at IS NULL
"""

LIST_OVER = """
    SELECT lease.resource_uid
    FROM skygw.lease
    JOIN skygw.fence ON fence.resource_uid = lease.resource_uid
    WHERE lease.ended_at IS NULL AND (lease.expires_at <= clock_timestamp() OR lease.fence <> fence.fence)
    LIMIT 100
"""


class PgLeases:
    """`LeaseLedger` in PostgreSQL. When a change is cancelled it is not known whether it was made."""

    def __init__(self, database: Database, *, committed: Callable[[], None] | None = None) -> None:
        """`committed` is told that there may be more in the log, and must not wait."""
        self._database = database
        self._committed = committed

    async def acquire(self, wish: LeaseWish) -> tuple[Control, Sequence[Control]]:
        refused: GatewayError | None = None
        found: tuple[Control, Sequence[Control]] | None = None
        async with self._database.transaction() as connection:
            try:
                found = await _acquire(connection, wish)
            except GatewayError as error:
                refused = error  # it has changed nothing, and need not cost the connection
        if found is None:
            raise refused or RuntimeError("a lease is neither granted nor refused")
        self._tell()
        return found

    async def renew(self, lease_id: LeaseId, proof: LeaseProof, terms: Terms | None) -> Control:
        async def renew(connection: Connection, control: Control, lease: Lease) -> None:
            check_renewal(control, proof)
            new = terms or lease.terms
            await connection.execute(RENEW, lease_id, new.duration_s, new.warn_s, new.on_expiry.value, new.deadman_s)

        return await self._change(lease_id, renew)

    async def end(self, lease_id: LeaseId, ending: Ending, proof: LeaseProof | None) -> Control:
        async def end(connection: Connection, control: Control, lease: Lease) -> None:
            if may_end(control, proof):
                await _end(connection, lease, remains_of(control) or ending)

        return await self._change(lease_id, end)

    async def _change(self, lease_id: LeaseId, change: Callable[[Connection, Control, Lease], Any]) -> Control:
        refused: GatewayError | None = None
        async with self._database.transaction() as connection:
            control = await _of_lease(connection, lease_id)
            if control is not None and control.lease is not None:
                await connection.execute(LOCK, [control.uid])
                control = await _of_lease(connection, lease_id)
            if control is None or control.lease is None:
                refused = NotFound(f"No lease {lease_id} is known.")
            else:
                try:
                    await change(connection, control, control.lease)
                except GatewayError as error:
                    refused = error
                control = await _of_lease(connection, lease_id)
        if refused is not None:
            raise refused
        if control is None:
            raise RuntimeError("a lease that was there is gone")
        self._tell()
        return control

    async def expire(self) -> Sequence[Control]:
        async with self._database.connection() as connection:
            over = [row["resource_uid"] for row in await connection.fetch(LIST_OVER)]
        ended: list[Control] = []
        for uid in over:
            async with self._database.transaction() as connection:
                await connection.execute(LOCK, [uid])
                control = (await _controls(connection, [uid]))[uid]
                remains = remains_of(control)
                if remains is not None and control.lease is not None:
                    await _end(connection, control.lease, remains)
                    ended.append((await _controls(connection, [uid]))[uid])
        if ended:
            self._tell()
        return ended

    async def get(self, lease_id: LeaseId) -> Control | None:
        async with self._database.connection() as connection:
            return await _of_lease(connection, lease_id)

    async def page(self, query: LeaseQuery) -> tuple[Sequence[Control], int]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                LIST_PAGE, query.target, query.held, query.size, (query.page - 1) * query.size
            )
            total = await connection.fetchval(COUNT, query.target, query.held)
        return [_control(row) for row in rows], int(total)

    async def controls(self, uids: Collection[UUID] | None) -> Sequence[Control]:
        async with self._database.connection() as connection:
            if uids is None:
                return [_control(row) for row in await connection.fetch(EVER_LEASED)]
            return [_control(row) for row in await connection.fetch(CONTROLS, list(uids))]

    async def standing(
        self,
        *,
        telescope_uid: TelescopeUid | None,
        device_uid: DeviceUid | None,
        moves_enclosure: bool,
        secret: bytes | None,
    ) -> Standing | None:
        async with self._database.connection() as connection:
            try:
                moved = await _moved(connection, telescope_uid, device_uid, moves_enclosure=moves_enclosure)
            except NotFound:
                return None
            around = list({*moved, *(uid for under in moved.values() for uid in under)})
            controls = [_control(row) for row in await connection.fetch(CONTROLS, around)]
            shown = None if secret is None else await connection.fetchrow(SHOWN, secret, around)
        return Standing(needs_of(moved, controls), None if shown is None else _control(shown))

    def _tell(self) -> None:
        if self._committed is not None:
            self._committed()


async def _acquire(connection: Connection, wish: LeaseWish) -> tuple[Control, Sequence[Control]]:
    """Raises `NotFound`, `LeaseHeld`, `TaskActive`, `Invalid` before anything is changed."""
    place = await _place(connection, wish.kind, wish.target)
    uid = place.resource.uid
    around = sorted({uid, *place.neighbours})
    await connection.execute(LOCK, around)
    before = await _controls(connection, around)
    if granted_before(wish, place, before) is not None:
        return before[uid], ()
    if wish.while_task is WhileTask.REFUSE:
        task = await running_at(connection, uid)
        if task is not None:
            raise task_active(task)
    await _grant(connection, wish, place, before)
    after = await _controls(connection, around)
    return after[uid], [control for control in after.values() if control.order != before[control.uid].order]


async def _grant(connection: Connection, wish: LeaseWish, place: Place, controls: dict[UUID, Control]) -> None:
    resource = place.resource
    before = controls[resource.uid]
    remains = remains_of(before)
    if remains is not None and before.lease is not None:
        await _end(connection, before.lease, remains)
    await connection.execute(RAISE, resource.uid)
    if resource.kind is ResourceKind.TELESCOPE:
        # Who moved an enclosure by the leases of all telescopes under it does so no more.
        for uid in place.neighbours:
            lease = controls[uid].lease
            if lease is None or lease.ended_at is not None:
                await connection.execute(RAISE, uid)
    await connection.execute(
        GRANT,
        uuid4(),
        digest(wish.lease_uid),
        resource.uid,
        resource.kind.value,
        resource.install_id,
        resource.observatory_uid,
        resource.telescope_uid,
        resource.device_type,
        wish.holder.service,
        wish.holder.actor_uid,
        wish.holder.actor_kind,
        wish.terms.duration_s,
        wish.terms.warn_s,
        wish.terms.on_expiry.value,
        wish.terms.deadman_s,
        wish.while_task.value,
    )


async def _end(connection: Connection, lease: Lease, ending: Ending) -> None:
    by = ending.by
    await connection.execute(
        END,
        lease.lease_id,
        ending.how.value,
        by and by.service,
        by and by.actor_uid,
        by and by.actor_kind,
        ending.reason,
    )
    await connection.execute(RAISE, lease.resource.uid)


async def _place(connection: Connection, kind: ResourceKind, uid: UUID) -> Place:
    """Raises `NotFound`."""
    query = PLACE_OF_TELESCOPE if kind is ResourceKind.TELESCOPE else PLACE_OF_DEVICE
    row = await connection.fetchrow(query, uid)
    if row is None or row["install_id"] is None:
        raise NotFound(f"No installation controls a {kind.value} {uid}.")
    resource = Resource(
        row["uid"],
        ResourceKind(row["kind"]),
        InstallId(row["install_id"]),
        row["observatory_uid"],
        row["telescope_uid"],
        row["device_type"],
    )
    return Place(resource, tuple(row["neighbours"]))


async def _moved(
    connection: Connection, telescope_uid: TelescopeUid | None, device_uid: DeviceUid | None, *, moves_enclosure: bool
) -> dict[UUID, Collection[UUID]]:
    """What has to be controlled for a command: a device by its telescope, if it is of one; a telescope's enclosure, if
    it is shared, with the telescope. Raises `NotFound`.
    """
    if device_uid is not None:
        place = await _place(connection, ResourceKind.DEVICE, device_uid)
        if place.resource.telescope_uid is None:
            return {device_uid: place.neighbours}
        return {place.resource.telescope_uid: ()}
    if telescope_uid is None:
        raise NotFound("A command names a telescope or a device.")
    moved: dict[UUID, Collection[UUID]] = {telescope_uid: ()}
    if moves_enclosure:
        for uid in (await _place(connection, ResourceKind.TELESCOPE, telescope_uid)).neighbours:
            moved[uid] = (await _place(connection, ResourceKind.DEVICE, uid)).neighbours
    return moved


async def _controls(connection: Connection, uids: Sequence[UUID]) -> dict[UUID, Control]:
    return {row["uid"]: _control(row) for row in await connection.fetch(CONTROLS, uids)}


async def _of_lease(connection: Connection, lease_id: LeaseId) -> Control | None:
    row = await connection.fetchrow(OF_LEASE, lease_id)
    return None if row is None else _control(row)


def _control(row: asyncpg.Record) -> Control:
    if row["lease_id"] is None:
        return Control(row["uid"], row["newest_fence"])
    waits_for = None if row["waits_for"] is None else TaskUid(row["waits_for"])
    return Control(row["uid"], row["newest_fence"], _lease(row), row["left_s"], waits_for)


def _lease(row: asyncpg.Record) -> Lease:
    by = row["ended_by_service"]
    return Lease(
        lease_id=LeaseId(row["lease_id"]),
        secret=row["secret"],
        resource=Resource(
            row["resource_uid"],
            ResourceKind(row["resource_kind"]),
            InstallId(row["install_id"]),
            row["observatory_uid"],
            row["telescope_uid"],
            row["device_type"],
        ),
        holder=Holder(row["service"], row["actor_uid"], row["actor_kind"]),
        terms=Terms(row["duration_s"], row["warn_s"], OnExpiry(row["on_expiry"]), row["deadman_s"]),
        fence=row["fence"],
        revision=row["revision"],
        acquired_at=row["acquired_at"],
        expires_at=row["expires_at"],
        changed_at=row["changed_at"],
        ended_at=row["ended_at"],
        ending=None
        if row["ended"] is None
        else Ending(
            LeaseEnd(row["ended"]),
            None if by is None else Holder(by, row["ended_by_actor_uid"], row["ended_by_actor_kind"]),
            row["reason"],
        ),
        while_task=WhileTask(row["while_task"]),
    )
