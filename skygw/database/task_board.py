"""Which tasks there are to claim, and which that are claimed the hub does not want any more."""

from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

from skygw.control.task_news import MAX_TOLD, TaskNews, Unwanted
from skygw.database.listening import Listening
from skygw.database.pool import Database
from skygw.database.task_claims import ELIGIBLE, IS_CONFIGURED
from skygw.database.task_rows import OF_TASKS
from skygw.ids import TaskUid, TelescopeUid
from skygw.protocol.gateway_frames import TaskDirective

CHANNEL = "skygw_task"
"""On which a trigger tells the uid of a telescope whose tasks have changed."""

LIST_AVAILABLE = f"""
    SELECT telescope_uid, array_agg(uid ORDER BY id) AS uids
    FROM (
        SELECT telescope.uid AS telescope_uid, task.uid, task.id,
               row_number() OVER (PARTITION BY telescope.id ORDER BY task.id) AS nth
        {ELIGIBLE} AND {IS_CONFIGURED}
    ) AS found
    WHERE nth <= $2
    GROUP BY telescope_uid
"""  # noqa: S608 -- constants of ours

# A claim that was not begun and has lapsed is nobody's to be told of.
LIST_UNWANTED = f"""
    SELECT task.uid, telescope.uid AS telescope_uid, task.status <> 'active' AS is_canceled
    {OF_TASKS}
    JOIN skygw.task_claim AS claim ON claim.task_uid = task.uid
    WHERE telescope.uid = ANY ($1::uuid[])
      AND claim.ended_at IS NULL
      AND (task.status IN ('canceled', 'unassigned') AND (claim.started_at IS NOT NULL OR claim.expires_at > now())
           OR task.status = 'active' AND task.expiration_time <= now())
"""


class PgTaskBoard:
    """`control.task_news.TaskBoard` in the platform's tables."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def available(self, telescopes: Collection[TelescopeUid]) -> Mapping[TelescopeUid, Sequence[TaskUid]]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(LIST_AVAILABLE, list(telescopes), MAX_TOLD)
        return {TelescopeUid(row["telescope_uid"]): [TaskUid(uid) for uid in row["uids"]] for row in rows}

    async def unwanted(self, telescopes: Collection[TelescopeUid]) -> Sequence[Unwanted]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(LIST_UNWANTED, list(telescopes))
        return [
            Unwanted(
                TaskUid(row["uid"]),
                TelescopeUid(row["telescope_uid"]),
                TaskDirective.ABORT if row["is_canceled"] else TaskDirective.STOP,
                "canceled" if row["is_canceled"] else "window_missed",
            )
            for row in rows
        ]


def hears_of_tasks(database: Database, news: TaskNews) -> Listening:
    """Tells of what the trigger tells; when nothing was heard for a while, of everything."""

    async def began() -> None:
        news.everything_changed()

    return Listening(
        database,
        CHANNEL,
        heard=lambda payload: news.changed([TelescopeUid(UUID(payload))]),
        began=began,
        lost=lambda: None,
    )
