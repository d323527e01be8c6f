"""What nodes said of their tasks, each report once, with the answer it got; every one is an event as well."""

from datetime import timedelta
from typing import Any

import trio

from skygw.database.pool import Connection, Database
from skygw.errors import IdReused, RoutingUnavailable
from skygw.ids import TaskUid
from skygw.observing.tasks import Observer, Report, ReportKind, Task
from skygw.protocol.json_text import compact

KEEP_REPORTS = timedelta(days=30)
"""As long as nodes keep the outcomes of commands: nobody repeats a report after that."""
FORGET_EVERY_S = 3600.0
FORGOTTEN_AT_ONCE = 5_000

FIND_REPORT = "SELECT task_uid, body_sha256, answer FROM skygw.task_report WHERE install_id = $1 AND report_uid = $2"

ADD_REPORT = """
    INSERT INTO skygw.task_report (install_id, report_uid, kind, task_uid, body_sha256, answer, reported_at,
                                   observatory_uid, telescope_uid, event)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
    ON CONFLICT (install_id, report_uid) DO NOTHING
    RETURNING true
"""

FORGET = "SELECT skygw.forget_task_reports($1, $2)"


Members = dict[str, Any]
"""Of an answer, camelCase."""


async def said_before(
    connection: Connection, observer: Observer, report: Report, *, of: TaskUid | None = None
) -> str | None:
    """The answer it got then. Raises `IdReused`."""
    known = await connection.fetchrow(FIND_REPORT, observer.install_id, report.uid)
    if known is None:
        return None
    if (known["task_uid"], known["body_sha256"]) != (of, report.digest):
        raise _reused(report)
    return str(known["answer"])


async def add_report(
    connection: Connection,
    observer: Observer,
    report: Report,
    kind: ReportKind,
    answer: Members,
    *,
    task: Task | None = None,
) -> str:
    """Raises `IdReused`, which undoes the transaction, if the id was used meanwhile: for another task, that is."""
    text = compact.encode(answer)
    told = {
        "report_uid": str(report.uid),
        "kind": kind.value,
        "install_id": str(observer.install_id),
        "task_uid": None if task is None else str(task.uid),
        "task_status": None if task is None else task.status.value,
        **report.said,
    }
    added = await connection.fetchval(
        ADD_REPORT,
        observer.install_id,
        report.uid,
        kind.value,
        None if task is None else task.uid,
        report.digest,
        text,
        getattr(report, "reported_at", None),
        observer.observatory_uid,
        observer.telescope_uid,
        compact.encode({name: value for name, value in told.items() if value is not None}),
    )
    if added is None:
        raise _reused(report)
    return text


def _reused(report: Report) -> IdReused:
    return IdReused(f"The id {report.uid} belongs to another report: draw a new one for each thing that is said.")


async def forget_reports(database: Database) -> None:
    """Lets go of reports nobody will repeat, a few at a time; runs until cancelled, and waits out a database that is
    away.
    """
    while True:
        forgotten = 0
        try:
            async with database.connection() as connection:
                forgotten = int(await connection.fetchval(FORGET, KEEP_REPORTS, FORGOTTEN_AT_ONCE))
        except RoutingUnavailable as error:
            await trio.sleep(error.retry_after_s or FORGET_EVERY_S)
            continue
        await trio.sleep(1.0 if forgotten == FORGOTTEN_AT_ONCE else FORGET_EVERY_S)
