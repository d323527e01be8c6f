"""What nodes report durably: each report once, in order, and committed before anybody says so."""

from collections.abc import Sequence
from functools import partial

from skygw.database.pool import Connection, Database
from skygw.database.together import Together
from skygw.errors import Invalid
from skygw.ids import InstallId, OutboxUid
from skygw.nodes.ports import DurableReport
from skygw.protocol.node_frames import PublishCommandResult

FIND_CURSOR = "SELECT acked_seq FROM skygw.node_outbox WHERE install_id = $1 AND outbox_uid = $2"

FIND_CURSORS = """
    SELECT outbox.install_id, outbox.outbox_uid, outbox.acked_seq
    FROM unnest($1::uuid[], $2::uuid[]) AS asked (install_id, outbox_uid)
    JOIN skygw.node_outbox AS outbox
        ON outbox.install_id = asked.install_id AND outbox.outbox_uid = asked.outbox_uid
"""

LOCK_CURSOR = """
    INSERT INTO skygw.node_outbox AS outbox (install_id, outbox_uid, acked_seq)
    VALUES ($1, $2, 0)
    ON CONFLICT (install_id, outbox_uid) DO UPDATE SET acked_seq = outbox.acked_seq
    RETURNING acked_seq
"""

INSERT_REPORTS = """
    INSERT INTO skygw.node_report (install_id, outbox_uid, seq, kind, body, nacked)
    SELECT $1, $2, seq, kind, body, nacked
    FROM unnest($3::bigint[], $4::text[], $5::text[], $6::text[]) AS report (seq, kind, body, nacked)
"""

MOVE_CURSOR = "UPDATE skygw.node_outbox SET acked_seq = $3 WHERE install_id = $1 AND outbox_uid = $2"

# A command that has ended stays as it is, and so does one of another installation.
APPLY_RESULT = """
    WITH before AS (
        SELECT command.command_id, command.state, step.to_state
        FROM skygw.command
        LEFT JOIN skygw.command_step AS step ON step.from_state = command.state AND step.to_state = $3
        WHERE command.command_id = $1
          AND command.install_id = $2
          AND command.state NOT IN ('completed', 'failed', 'rejected', 'canceled', 'expired')
        FOR UPDATE OF command
    ), moved AS (
        UPDATE skygw.command
        SET state = coalesce(before.to_state, command.state),
            progress = coalesce($4, progress),
            result = coalesce($5, result),
            error = coalesce($6, error),
            proof = coalesce($7, proof),
            canceled = coalesce($8, canceled),
            updated_at = now(),
            ended_at = CASE WHEN before.to_state IN ('completed', 'failed', 'rejected', 'canceled') THEN now() END
        FROM before
        WHERE command.command_id = before.command_id
    )
    INSERT INTO skygw.command_transition (command_id, at, state, hop)
    SELECT command_id, now(), to_state, 'node' FROM before WHERE to_state IS NOT NULL
"""


_Outbox = tuple[InstallId, OutboxUid]


class NodeReports:
    """Reports and cursors in PostgreSQL. Everything raises `RoutingUnavailable` when it cannot be asked."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._cursors = Together[_Outbox, _Outbox, int](self._find_cursors)

    async def acked_seq(self, install_id: InstallId, outbox_uid: OutboxUid) -> int:
        """The last committed report of this outbox, 0 before the first. Asked together with other outboxes."""
        outbox = (install_id, outbox_uid)
        return await self._cursors.ask(outbox, outbox, partial(self._find_cursor, outbox))

    async def _find_cursors(self, outboxes: Sequence[_Outbox]) -> dict[_Outbox, int]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                FIND_CURSORS, [install_id for install_id, _ in outboxes], [outbox_uid for _, outbox_uid in outboxes]
            )
        found = {(row["install_id"], row["outbox_uid"]): int(row["acked_seq"]) for row in rows}
        return {outbox: found.get(outbox, 0) for outbox in outboxes}

    async def _find_cursor(self, outbox: _Outbox) -> int:
        async with self._database.connection() as connection:
            return int(await connection.fetchval(FIND_CURSOR, *outbox) or 0)

    async def commit(self, install_id: InstallId, outbox_uid: OutboxUid, reports: Sequence[DurableReport]) -> int:
        """Commit a contiguous run in one transaction and move the commands it tells of. Returns the cursor.

        Reports the ledger has are passed over, so that a run may be repeated after a doubt. Raises `Invalid`,
        and commits nothing, if the new ones do not follow the cursor without a hole. When cancelled it is not
        known whether it happened.
        """
        async with self._database.transaction() as connection:
            acked_seq = int(await connection.fetchval(LOCK_CURSOR, install_id, outbox_uid))
            new = [report for report in reports if report.seq > acked_seq]
            for due, report in enumerate(new, start=acked_seq + 1):
                if report.seq != due:
                    raise Invalid(f"report {report.seq} came where {due} was due")
            if not new:
                return acked_seq
            await connection.execute(
                INSERT_REPORTS,
                install_id,
                outbox_uid,
                [report.seq for report in new],
                [report.kind for report in new],
                [report.text for report in new],
                [report.nacked for report in new],
            )
            await apply_results(connection, install_id, [report.result for report in new if report.result])
            await connection.execute(MOVE_CURSOR, install_id, outbox_uid, new[-1].seq)
            return new[-1].seq


async def apply_results(connection: Connection, install_id: InstallId, results: Sequence[PublishCommandResult]) -> None:
    """Move the commands these results tell of; an unknown one, or another installation's, is passed over."""
    if not results:
        return
    # By command, so that two writers take their rows in one order; within a command the order stays.
    await connection.executemany(
        APPLY_RESULT,
        [
            (
                result.command_id,
                install_id,
                result.status.value,
                result.progress,
                None if result.result is None else result.result.text,
                None if result.error is None else result.error.text,
                None if result.proof is None else result.proof.text,
                None if result.canceled is None else result.canceled.value,
            )
            for result in sorted(results, key=lambda result: result.command_id)
        ],
    )
