"""Tasks in PostgreSQL: what a node reports counts once, and moves a task along the table of steps alone."""

import hashlib
import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from skygw.database.pool import Connection, Database
from skygw.database.task_claims import (
    EXTEND,
    EXTENDED_S,
    ONE_AT_A_TIME,
    RELEASE,
    check_nobody_is_in_the_way,
    claim_free,
    configuration_changed,
    granted,
)
from skygw.database.task_ledger import Members, add_report, said_before
from skygw.database.task_rows import FIND, OF_OBSERVER, OF_TASKS, find_page, find_row, find_task, task_of
from skygw.errors import GatewayError, Invalid, NotFound
from skygw.ids import InstallId
from skygw.observing.tasks import (
    SILENCE_S,
    AssetFact,
    Claim,
    Claimed,
    Completion,
    Observer,
    Progress,
    Report,
    ReportKind,
    Results,
    Task,
    TaskQuery,
    TaskStatus,
    begins,
    check_assets,
    check_claimant,
    check_release,
    directive_for,
    ends,
    is_newest,
)
from skygw.telemetry.value import utc

LOCK = f"SELECT task.uid {OF_TASKS} {OF_OBSERVER} AND (task.id = $2 OR task.uid = $3) FOR UPDATE OF task"

# One statement moves a task, along the table of steps and no other way.
MOVE = """
    UPDATE observation_task AS task
    SET status = step.to_status,
        actual_start_time = coalesce($3, task.actual_start_time),
        actual_end_time = coalesce($4, task.actual_end_time),
        completed_on = CASE WHEN step.to_status = 'completed' THEN clock_timestamp() ELSE task.completed_on END
    FROM skygw.task_step AS step
    WHERE task.uid = $1 AND step.from_status = task.status AND step.to_status = $2
    RETURNING true
"""

# `greatest` passes nulls over: what counts up never goes back, in whatever order reports come.
COUNT_UP = """
    UPDATE observation_task
    SET accumulated_exposure_time = greatest(accumulated_exposure_time, $2),
        observatory_acquired_frames = greatest(observatory_acquired_frames, $3),
        actual_start_time = least(actual_start_time, $4)
    WHERE uid = $1
"""

GO_ON = """
    UPDATE skygw.task_claim
    SET started_at = coalesce(started_at, clock_timestamp()),
        expires_at = greatest(expires_at, clock_timestamp() + make_interval(secs => $2)),
        progress = greatest(progress, $3),
        phase = CASE WHEN $4 THEN $5 ELSE phase END,
        message = CASE WHEN $4 THEN $6 ELSE message END,
        estimated_end_time = CASE WHEN $4 THEN $7 ELSE estimated_end_time END,
        reported_at = CASE WHEN $4 THEN $8 ELSE reported_at END,
        reported_by = CASE WHEN $4 THEN $9 ELSE reported_by END
    WHERE task_uid = $1
    RETURNING expires_at
"""

END_CLAIM = """
    UPDATE skygw.task_claim
    SET ended_at = clock_timestamp(), ended_status = $2, reason_code = $3, reschedulable = $4, summary = $5
    WHERE task_uid = $1 AND ended_at IS NULL
"""

# Held until the commit: whoever verifies one meanwhile comes after, and finds what names it.
FIND_ASSETS = """
    SELECT asset.uid,
           asset.observation_id IS NOT DISTINCT FROM task.observation_id
               AND asset.instrument_id = task.instrument_id AS fits,
           asset.transfer_state = 'completed' OR asset.is_remote AS is_there
    FROM observation_asset AS asset
    JOIN instrument ON instrument.id = asset.instrument_id
    JOIN observation_task AS task ON task.uid = $1
    JOIN instrument AS mine ON mine.id = task.instrument_id AND mine.telescope_id = instrument.telescope_id
    WHERE asset.uid = ANY ($2::uuid[])
    ORDER BY asset.uid
    FOR SHARE OF asset
"""
NAME_ASSETS = """
    INSERT INTO skygw.task_asset (task_uid, asset_uid) SELECT $1, uid FROM unnest($2::uuid[]) AS named (uid)
    ON CONFLICT DO NOTHING
"""
NAME_RESULT_ASSETS = """
    INSERT INTO skygw.result_asset (task_uid, result_uid, asset_uid)
    SELECT $1, result_uid, asset_uid FROM unnest($2::uuid[], $3::uuid[]) AS named (result_uid, asset_uid)
    ON CONFLICT DO NOTHING
"""
FULFIL = "SELECT skygw.fulfil_results($1::uuid[])"


@dataclass(frozen=True, slots=True)
class Reported:
    """The task a report is of, its row held, and the claim of whoever reports."""

    task: Task
    claim: Claim


class PgTasks:
    """`TaskStore` in the platform's tables and ours. Cancelled, it is not known whether a report was taken: said again,
    it is one.
    """

    def __init__(self, database: Database, *, committed: Callable[[], None] | None = None) -> None:
        """`committed` is told that there may be more in the log, and must not wait."""
        self._database = database
        self._committed = committed

    async def page(self, observer: Observer, query: TaskQuery) -> tuple[list[Task], int]:
        async with self._database.connection() as connection:
            return await find_page(connection, observer.telescopes, query)

    async def get(self, observer: Observer, id_or_uid: str) -> Task:
        async with self._database.connection() as connection:
            found = await find_task(connection, observer.telescopes, id_or_uid)
        if found is None:
            raise _nothing(id_or_uid)
        return found

    # Claims.

    async def claim(self, observer: Observer, report: Report, *, at_most: int, refusal: GatewayError | None) -> Claimed:
        refused: GatewayError | None = None
        claimed: Claimed | None = None
        async with self._database.transaction() as connection:
            await connection.execute(ONE_AT_A_TIME, observer.install_id, report.uid)
            try:
                answer = await said_before(connection, observer, report)
                if answer is None:
                    await check_nobody_is_in_the_way(connection, observer, refusal)
            except GatewayError as error:
                refused = error  # it has changed nothing, and need not cost the connection
            else:
                if answer is not None:
                    claimed = await granted(connection, observer, json.loads(answer))
                else:
                    claimed = await claim_free(connection, observer, report, at_most)
        if refused is not None:
            raise refused
        if claimed is None:
            raise RuntimeError("a claim is neither granted nor refused")
        if not claimed.tasks and claimed.passed_over:
            raise configuration_changed(claimed.passed_over)
        self._tell()
        return claimed

    async def release(self, observer: Observer, id_or_uid: str) -> Task:
        refused: GatewayError | None = None
        found: Task | None = None
        async with self._database.transaction() as connection:
            try:
                task = await _locked(connection, observer, id_or_uid)
                gives_back = check_release(task, observer.install_id)
            except GatewayError as error:
                refused = error
            else:
                if gives_back:
                    await connection.execute(RELEASE, task.uid, observer.install_id)
                    said = Report(uuid4(), hashlib.sha256(b"").digest(), {})
                    await add_report(connection, observer, said, ReportKind.RELEASE, {}, task=task)
                found = await find_task(connection, observer.telescopes, str(task.uid))
        if refused is not None or found is None:
            raise refused or _nothing(id_or_uid)
        self._tell()
        return found

    async def extend(self, install_ids: Collection[InstallId]) -> None:
        async with self._database.connection() as connection:
            await connection.execute(EXTEND, list(install_ids), EXTENDED_S)

    # Reports.

    async def progress(self, observer: Observer, id_or_uid: str, report: Progress) -> str:
        async def take(connection: Connection, on: Reported) -> Members:
            expires_at = on.claim.expires_at
            if begins(on.task):
                await _move(connection, on.task, TaskStatus.ACTIVE, started=report.reported_at)
            if begins(on.task) or on.task.status is TaskStatus.ACTIVE:  # what has ended stays as it ended
                await _count_up(connection, on.task, report)
                expires_at = await _go_on(connection, on, report)
            return {"claimExpiresAt": utc(expires_at)}

        return await self._report(observer, id_or_uid, report, ReportKind.PROGRESS, take)

    async def results(self, observer: Observer, id_or_uid: str, report: Results) -> str:
        async def judge(connection: Connection, on: Reported) -> None:
            for number, uid in enumerate(report.results):
                if uid not in on.task.results:
                    raise _no_such_result(number)
            check_assets(report.assets, await _assets(connection, on.task, report.assets))

        async def take(connection: Connection, on: Reported) -> Members:
            named = [(result, asset) for result, assets in report.results.items() for asset in assets]
            await connection.execute(
                NAME_RESULT_ASSETS, on.task.uid, [result for result, _ in named], [asset for _, asset in named]
            )
            return {"fulfilled": await _fulfil(connection, on.task)}

        return await self._report(observer, id_or_uid, report, ReportKind.RESULTS, take, judge)

    async def complete(self, observer: Observer, id_or_uid: str, report: Completion) -> str:
        moves = False
        known: Mapping[UUID, AssetFact] = {}

        async def judge(connection: Connection, on: Reported) -> None:
            nonlocal moves, known
            moves = ends(on.task, on.claim, report.status)
            known = await _assets(connection, on.task, report.assets)
            if moves and report.status is TaskStatus.COMPLETED:
                check_assets(report.assets, known)

        async def take(connection: Connection, on: Reported) -> Members:
            await connection.execute(NAME_ASSETS, on.task.uid, list(known))
            await connection.execute(
                END_CLAIM, on.task.uid, report.status.value, report.reason_code, report.reschedulable, report.summary
            )
            if moves:
                await _move(
                    connection,
                    on.task,
                    report.status,
                    started=report.actual_start_time,
                    ended=report.actual_end_time,
                )
            return {"fulfilled": await _fulfil(connection, on.task)}

        return await self._report(observer, id_or_uid, report, ReportKind.COMPLETE, take, judge)

    async def _report(
        self,
        observer: Observer,
        id_or_uid: str,
        report: Report,
        kind: ReportKind,
        take: Callable[[Connection, Reported], Awaitable[Members]],
        judge: Callable[[Connection, Reported], Awaitable[None]] | None = None,
    ) -> str:
        """`judge` may refuse, and changes nothing; `take` changes, and refuses nothing."""
        refused: GatewayError | None = None
        answer: str | None = None
        on: Reported | None = None
        async with self._database.transaction() as connection:
            try:
                task = await _locked(connection, observer, id_or_uid)
                answer = await said_before(connection, observer, report, of=task.uid)
                if answer is None:
                    on = Reported(task, check_claimant(task, observer.install_id))
                    if judge is not None:
                        await judge(connection, on)
            except GatewayError as error:
                refused = error  # it has changed nothing, and need not cost the connection
            else:
                if on is not None:
                    members = await take(connection, on)
                    answer = await _keep(connection, observer, on.task, report, kind, members)
        if refused is not None:
            raise refused
        if answer is None:
            raise RuntimeError("a report is neither taken nor refused")
        self._tell()
        return answer

    def _tell(self) -> None:
        if self._committed is not None:
            self._committed()


async def _locked(connection: Connection, observer: Observer, id_or_uid: str) -> Task:
    """The task as it is while its row is held. Raises `NotFound`."""
    if await find_row(connection, LOCK, observer.telescopes, id_or_uid) is not None:
        # A statement of its own: what the lock waited for is seen, in every table.
        row = await find_row(connection, FIND, observer.telescopes, id_or_uid)
        if row is not None:
            return task_of(row)
    raise _nothing(id_or_uid)


async def _keep(
    connection: Connection, observer: Observer, task: Task, report: Report, kind: ReportKind, members: Members
) -> str:
    """The answer to a report that was just taken. Raises `IdReused`, which undoes it."""
    after = await find_task(connection, observer.telescopes, str(task.uid))
    if after is None:
        raise RuntimeError("a task that is locked is gone")
    answer: Members = {"taskUid": str(task.uid), "reportUid": str(report.uid), "status": after.status.value}
    if kind is ReportKind.PROGRESS:
        directive, why = directive_for(after)
        answer |= {"directive": directive.value, "reason": why}
    return await add_report(connection, observer, report, kind, {**answer, **members}, task=after)


async def _count_up(connection: Connection, task: Task, report: Progress) -> None:
    await connection.execute(
        COUNT_UP,
        task.uid,
        report.accumulated_exposure_time,
        report.observatory_acquired_frames,
        report.reported_at,
    )


async def _go_on(connection: Connection, on: Reported, report: Progress) -> datetime:
    """Until when the claim holds now."""
    expires_at: datetime = await connection.fetchval(
        GO_ON,
        on.task.uid,
        SILENCE_S,
        report.progress,
        is_newest(on.claim, report),
        report.phase,
        report.message,
        report.estimated_end_time,
        report.reported_at,
        report.uid,
    )
    return expires_at


async def _move(
    connection: Connection, task: Task, to: TaskStatus, *, started: object = None, ended: object = None
) -> None:
    if await connection.fetchval(MOVE, task.uid, to.value, started, ended) is None:
        raise RuntimeError(f"the rules and the table of steps differ: {task.status} to {to}")


async def _assets(connection: Connection, task: Task, uids: Collection[UUID]) -> dict[UUID, AssetFact]:
    if not uids:
        return {}
    rows = await connection.fetch(FIND_ASSETS, task.uid, list(uids))
    return {row["uid"]: AssetFact(row["uid"], row["fits"], row["is_there"]) for row in rows}


async def _fulfil(connection: Connection, task: Task) -> list[str]:
    return [str(row[0]) for row in await connection.fetch(FULFIL, [task.uid])]


def _nothing(id_or_uid: str) -> NotFound:
    return NotFound(f"No task of this installation has the uid or key {id_or_uid[:64]!r}.")


def _no_such_result(number: int) -> Invalid:
    message = "This is no result that the task is for."
    where = ["body", "results", number, "resultUid"]
    return Invalid(message, fields=[{"type": "value_error", "loc": where, "msg": message}])
