"""Which tasks of the platform run now, and which of them a lease has ended."""

from collections.abc import Collection, Sequence

import asyncpg

from skygw.control.running_tasks import RunningTask
from skygw.database.pool import Connection, Database
from skygw.ids import DeviceUid, TaskUid, TelescopeUid

ACTIVE = """
    SELECT task.uid, telescope.uid AS telescope_uid
    FROM observation_task AS task
    JOIN instrument ON instrument.id = task.instrument_id
    JOIN telescope ON telescope.id = instrument.telescope_id
    WHERE task.status = 'active'
"""

# Of a telescope itself, of a device its own, of what telescopes share all of them.
AT_RESOURCE = """
      AND telescope.id IN (
          SELECT id FROM telescope WHERE uid = {uid}
          UNION ALL
          SELECT telescope_id FROM device WHERE uid = {uid}
          UNION ALL
          SELECT under.id
          FROM device
          JOIN telescope AS under ON under.observatory_id = device.observatory_id
          WHERE device.uid = {uid} AND device.telescope_id IS NULL
      )
"""

# No LIMIT: it would tempt the planner to walk all tasks there ever were by their key.
IN_ORDER = "ORDER BY task.id"

FIND_AT = ACTIVE + AT_RESOURCE.format(uid="$1") + IN_ORDER

FIND_UNDER_ITS_ENCLOSURE = f"""{ACTIVE}
      AND telescope.id IN (
          SELECT under.id
          FROM telescope AS named
          JOIN device ON device.observatory_id = named.observatory_id
          JOIN telescope AS under ON under.observatory_id = named.observatory_id
          WHERE named.uid = $1 AND device.telescope_id IS NULL AND device.device_type = 'enclosure'
            AND NOT device.is_deleted
      )
    {IN_ORDER}
"""  # noqa: S608 -- constants of ours

WAITED_FOR = f"""(
    SELECT (array_agg(active.uid))[1]
    FROM ({ACTIVE}{AT_RESOURCE.format(uid="fence.resource_uid")}{IN_ORDER}) AS active
)"""  # noqa: S608 -- constants of ours
"""The task that a lease on `fence.resource_uid` waits for."""

LIST_TO_ABORT = (
    ACTIVE
    + """
      AND telescope.uid = ANY ($1::uuid[])
      AND EXISTS (
          SELECT
          FROM skygw.lease
          JOIN skygw.fence ON fence.resource_uid = lease.resource_uid AND fence.fence = lease.fence
          LEFT JOIN device ON device.uid = lease.resource_uid
          WHERE lease.while_task = 'interrupt' AND lease.ended_at IS NULL AND lease.expires_at > clock_timestamp()
            AND (lease.resource_uid = telescope.uid
                 OR device.telescope_id IS NULL AND device.observatory_id = telescope.observatory_id)
      )
    ORDER BY task.id
"""
)


class PgRunningTasks:
    """`RunningTasks` in the platform's tables."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def running(
        self, *, telescope_uid: TelescopeUid | None, device_uid: DeviceUid | None, moves_enclosure: bool
    ) -> RunningTask | None:
        async with self._database.connection() as connection:
            found = await running_at(connection, device_uid or telescope_uid)
            if found is None and device_uid is None and moves_enclosure:
                found = _task(await connection.fetchrow(FIND_UNDER_ITS_ENCLOSURE, telescope_uid))
        return found

    async def to_abort(self, telescopes: Collection[TelescopeUid]) -> Sequence[RunningTask]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(LIST_TO_ABORT, list(telescopes))
        return [RunningTask(TaskUid(row["uid"]), TelescopeUid(row["telescope_uid"])) for row in rows]


async def running_at(connection: Connection, uid: object) -> RunningTask | None:
    """At a telescope or device, on a connection that is lent."""
    return _task(await connection.fetchrow(FIND_AT, uid))


def _task(row: asyncpg.Record | None) -> RunningTask | None:
    return None if row is None else RunningTask(TaskUid(row["uid"]), TelescopeUid(row["telescope_uid"]))
