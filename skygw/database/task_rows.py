"""Tasks read from the platform's tables, with who claims them and what is in their way."""

from collections.abc import Sequence
from uuid import UUID

import asyncpg

from skygw.database.pool import Connection
from skygw.ids import InstallId, TaskUid, TelescopeUid
from skygw.observing.tasks import Claim, OrderBy, Task, TaskQuery, TaskStatus

MEMBERS = {
    "id": "task.id",
    "task_type": "task.task_type",
    "observation_id": "task.observation_id",
    "observation_uid": "observation.uid",
    "request_id": "task.request_id",
    "instrument_id": "task.instrument_id",
    "instrument_uid": "instrument.uid",
    "instrument_configuration_version": "task.instrument_configuration_version",
    "earliest_start_time": "task.earliest_start_time",
    "planned_start_time": "task.planned_start_time",
    "planned_duration": "task.planned_duration",
    "expiration_time": "task.expiration_time",
    "actual_start_time": "task.actual_start_time",
    "actual_end_time": "task.actual_end_time",
    "completed_on": "task.completed_on",
    "ota_id": "task.ota_id",
    "ota_uid": "(SELECT uid FROM device WHERE device.id = task.ota_id)",
    "camera_id": "task.camera_id",
    "camera_uid": "(SELECT uid FROM device WHERE device.id = task.camera_id)",
    "accumulated_exposure_time": "task.accumulated_exposure_time",
    "observatory_acquired_frames": "task.observatory_acquired_frames",
    "required_exposure_time": "task.required_exposure_time",
    "total_exposures": "task.total_exposures",
    "max_exposure_time": "task.max_exposure_time",
    "duration": "task.duration",
    "antenna_id": "task.antenna_id",
    "antenna_uid": "(SELECT uid FROM device WHERE device.id = task.antenna_id)",
    "radio_backend_id": "task.radio_backend_id",
    "radio_backend_uid": "(SELECT uid FROM device WHERE device.id = task.radio_backend_id)",
    "integration_time": "task.integration_time",
    "central_frequencies": "task.central_frequencies",
}
"""Of a task, as nodes are told, and where they stand."""

# A claim to what is pending holds until it lapses; one from before the platform set a task back to pending does not.
CLAIM_HOLDS = "(claim.ended_at IS NULL AND claim.started_at IS NULL AND claim.expires_at > now())"

LEASE_ON_TELESCOPE = """
    FROM skygw.lease
    JOIN skygw.fence ON fence.resource_uid = lease.resource_uid AND fence.fence = lease.fence
    LEFT JOIN device ON device.uid = lease.resource_uid
    WHERE lease.ended_at IS NULL AND lease.expires_at > clock_timestamp()
      AND (lease.resource_uid = telescope.uid
           OR device.telescope_id IS NULL AND device.observatory_id = telescope.observatory_id)
"""
"""Leases that hold on the telescope or on what it shares with others."""

OF_TASKS = """
    FROM observation_task AS task
    JOIN instrument ON instrument.id = task.instrument_id
    JOIN telescope ON telescope.id = instrument.telescope_id
"""

SELECT_TASKS = f"""
    SELECT {", ".join(f"{where} AS {name}" for name, where in MEMBERS.items())},
           task.uid,
           task.status,
           telescope.uid AS telescope_uid,
           ARRAY(
               SELECT result.uid
               FROM observation_result_task AS link
               JOIN observation_result AS result ON result.id = link.result_id
               WHERE link.task_id = task.id
               ORDER BY result.id
           ) AS result_uids,
           task.expiration_time <= clock_timestamp() AS is_over_time,
           EXISTS (
               SELECT {LEASE_ON_TELESCOPE}
                 AND (lease.while_task = 'interrupt'
                      OR lease.acquired_at <= coalesce(claim.started_at, clock_timestamp()))
           ) AS lease_is_against,
           claim.claim_uid,
           claim.install_id,
           claim.claimed_at,
           claim.expires_at,
           CASE WHEN task.status = 'pending' THEN {CLAIM_HOLDS} ELSE claim.ended_at IS NULL END AS claim_is_held,
           claim.started_at,
           claim.ended_at,
           claim.ended_status,
           claim.phase,
           claim.message,
           claim.progress,
           claim.reported_at,
           claim.reported_by,
           claim.estimated_end_time
    {OF_TASKS}
    LEFT JOIN observation ON observation.id = task.observation_id
    LEFT JOIN skygw.task_claim AS claim ON claim.task_uid = task.uid
"""  # noqa: S608 -- constants of ours

OF_OBSERVER = "WHERE telescope.uid = ANY ($1::uuid[])"
FIND = SELECT_TASKS + OF_OBSERVER + " AND (task.id = $2 OR task.uid = $3)"
FIND_SEVERAL = SELECT_TASKS + OF_OBSERVER + " AND task.uid = ANY ($2::uuid[]) ORDER BY task.id"

RANGES = tuple(order for order in OrderBy if order is not OrderBy.ID)
IN_RANGES = "".join(
    f"""
      AND (${4 + 2 * nth}::timestamptz IS NULL OR task.{order} >= ${4 + 2 * nth})
      AND (${5 + 2 * nth}::timestamptz IS NULL OR task.{order} < ${5 + 2 * nth})
"""
    for nth, order in enumerate(RANGES)
)
PAGE_OF = f"""
    {OF_OBSERVER}
      AND ($2::text[] IS NULL OR task.status = ANY ($2))
      AND ($3::text[] IS NULL OR task.task_type = ANY ($3))
      {IN_RANGES}
"""
LIMIT = f"LIMIT ${4 + 2 * len(RANGES)} OFFSET ${5 + 2 * len(RANGES)}"
COUNT = f"SELECT count(*) {OF_TASKS} {PAGE_OF}"

LARGEST_ID = 2**31 - 1
"""The platform's integer keys."""


async def find_page(
    connection: Connection, telescopes: Sequence[TelescopeUid], query: TaskQuery
) -> tuple[list[Task], int]:
    wanted: list[object] = [
        list(telescopes),
        None if query.statuses is None else [str(status) for status in query.statuses],
        None if query.task_types is None else [str(kind) for kind in query.task_types],
    ]
    for order in RANGES:
        wanted += query.ranges.get(order, (None, None))
    direction = "DESC" if query.descending else "ASC"
    in_order = f"ORDER BY task.{query.order_by.value} {direction} NULLS LAST, task.id {direction} {LIMIT}"
    rows = await connection.fetch(SELECT_TASKS + PAGE_OF + in_order, *wanted, query.size, (query.page - 1) * query.size)
    total = await connection.fetchval(COUNT, *wanted)
    return [task_of(row) for row in rows], int(total)


async def find_task(connection: Connection, telescopes: Sequence[TelescopeUid], id_or_uid: str) -> Task | None:
    """By the platform's integer key or by uid, as a path has it."""
    row = await find_row(connection, FIND, telescopes, id_or_uid)
    return None if row is None else task_of(row)


async def find_tasks(connection: Connection, telescopes: Sequence[TelescopeUid], uids: Sequence[UUID]) -> list[Task]:
    rows = await connection.fetch(FIND_SEVERAL, list(telescopes), list(uids))
    return [task_of(row) for row in rows]


async def find_row(
    connection: Connection, query: str, telescopes: Sequence[TelescopeUid], id_or_uid: str
) -> asyncpg.Record | None:
    """What a query with an observer's telescopes, a key and a uid finds of one task."""
    key, uid = None, None
    if id_or_uid.isascii() and id_or_uid.isdecimal():
        key = int(id_or_uid[:20])
        if key > LARGEST_ID:
            return None
    else:
        try:
            uid = UUID(id_or_uid)
        except ValueError:
            return None
    return await connection.fetchrow(query, list(telescopes), key, uid)


def task_of(row: asyncpg.Record) -> Task:
    return Task(
        uid=TaskUid(row["uid"]),
        status=TaskStatus(row["status"]),
        telescope_uid=TelescopeUid(row["telescope_uid"]),
        members={name: row[name] for name in MEMBERS},
        results=tuple(row["result_uids"]),
        claim=None if row["claim_uid"] is None else _claim(row),
        is_over_time=row["is_over_time"] is True,
        lease_is_against=row["lease_is_against"],
    )


def _claim(row: asyncpg.Record) -> Claim:
    return Claim(
        claim_uid=row["claim_uid"],
        install_id=InstallId(row["install_id"]),
        claimed_at=row["claimed_at"],
        expires_at=row["expires_at"],
        is_held=row["claim_is_held"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        ended=None if row["ended_status"] is None else TaskStatus(row["ended_status"]),
        phase=row["phase"],
        message=row["message"],
        progress=row["progress"],
        reported_at=row["reported_at"],
        reported_by=row["reported_by"],
        estimated_end_time=row["estimated_end_time"],
    )
