"""What nodes report durably: each report once, in order, and committed before anybody says so."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import asyncpg

from skygw.control.ledger import MAX_MORE_MS
from skygw.database.event_log import GAP
from skygw.database.pool import Connection, Database
from skygw.database.together import Together
from skygw.errors import Invalid, StoreFailed
from skygw.ids import CommandId, InstallId, OutboxUid
from skygw.nodes.ports import NOT_HELD, NOT_ITS, NOT_KNOWN, DurableReport
from skygw.protocol.json_text import read_value
from skygw.protocol.never_received import says_never_received
from skygw.protocol.node_frames import PublishCommandResult
from skygw.protocol.safing import is_safing

# The memory of a node that is new here: from this session on it is known, and so is what it can have got.
BEGIN_CURSORS = """
    INSERT INTO skygw.node_outbox (install_id, outbox_uid, acked_seq, known_epoch)
    SELECT asked.install_id, asked.outbox_uid, 0, session.epoch
    FROM unnest($1::uuid[], $2::uuid[]) AS asked (install_id, outbox_uid)
    LEFT JOIN skygw.node_session AS session ON session.install_id = asked.install_id
    ON CONFLICT DO NOTHING
"""

FIND_CURSORS = """
    SELECT outbox.install_id, outbox.outbox_uid, outbox.acked_seq
    FROM unnest($1::uuid[], $2::uuid[]) AS asked (install_id, outbox_uid)
    JOIN skygw.node_outbox AS outbox
        ON outbox.install_id = asked.install_id AND outbox.outbox_uid = asked.outbox_uid
"""

LOCK_CURSOR = """
    INSERT INTO skygw.node_outbox AS outbox (install_id, outbox_uid, acked_seq, known_epoch)
    VALUES ($1, $2, 0, (SELECT epoch FROM skygw.node_session WHERE install_id = $1))
    ON CONFLICT (install_id, outbox_uid) DO UPDATE SET acked_seq = outbox.acked_seq
    RETURNING acked_seq
"""

# LOCK_CURSOR for several, that never waits for a lock of somebody else: whoever is left out commits alone, as does one
# whose outbox is new.
LOCK_CURSORS = FIND_CURSORS + "    FOR UPDATE OF outbox SKIP LOCKED"

# The last statement of its transaction: from here to the commit the head is held. What an installation reports is about
# its own telescope; which device a result is about, its command says.
APPEND = """
    WITH moved AS (
        UPDATE skygw.node_outbox AS outbox
        SET acked_seq = cursor.acked_seq
        FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS cursor (install_id, outbox_uid, acked_seq)
        WHERE outbox.install_id = cursor.install_id AND outbox.outbox_uid = cursor.outbox_uid
    ), place AS (
        SELECT installation.uid AS install_id, observatory.uid AS observatory_uid, telescope.uid AS telescope_uid
        FROM sky_node_installation AS installation
        JOIN observatory ON observatory.id = installation.observatory_id
        LEFT JOIN telescope ON telescope.id = installation.telescope_id
        WHERE installation.uid = ANY ($1)
    ), command AS (
        SELECT command_id, install_id, telescope_uid, device_uid FROM skygw.command WHERE command_id = ANY ($15::uuid[])
    ), head AS (
        UPDATE skygw.log_head
        SET position = position + cardinality($4::uuid[])
        RETURNING position - cardinality($4::uuid[]) AS before, clock_timestamp() AS received_at
    )
    INSERT INTO skygw.log (position, stream, install_id, observatory_uid, telescope_uid, device_uid, observed_at,
                           received_at, data, missing, outbox_uid, seq, nacked)
    SELECT head.before + report.ordinal,
           report.stream,
           report.install_id,
           place.observatory_uid,
           coalesce(report.telescope_uid, command.telescope_uid, place.telescope_uid),
           coalesce(report.device_uid, command.device_uid),
           report.observed_at,
           head.received_at,
           report.data,
           report.missing,
           report.outbox_uid,
           report.seq,
           report.nacked
    FROM head
    CROSS JOIN unnest($4::uuid[], $5::uuid[], $6::bigint[], $7::text[], $8::uuid[], $9::uuid[], $10::uuid[],
                      $11::timestamptz[], $12::text[], $13::bigint[], $14::text[])
        WITH ORDINALITY AS report (install_id, outbox_uid, seq, stream, telescope_uid, device_uid, command_id,
                                   observed_at, data, missing, nacked, ordinal)
    LEFT JOIN place ON place.install_id = report.install_id
    LEFT JOIN command ON command.command_id = report.command_id AND command.install_id = report.install_id
"""

# A command that has ended stays as it is, and so does one of another installation. The row is locked before the table
# of steps is asked: whoever has waited for the gateway's step goes on from that one.
APPLY_RESULT = """
    WITH found AS (
        SELECT command_id, state
        FROM skygw.command
        WHERE command_id = $1
          AND install_id = $2
          AND state NOT IN ('completed', 'failed', 'rejected', 'canceled', 'expired')
        FOR UPDATE
    ), before AS (
        SELECT found.command_id, step.to_state
        FROM found
        LEFT JOIN skygw.command_step AS step ON step.from_state = found.state AND step.to_state = $3
    ), moved AS (
        UPDATE skygw.command
        SET state = coalesce(before.to_state, command.state),
            progress = coalesce($4, progress),
            result = coalesce($5, result),
            error = coalesce($6, error),
            proof = coalesce($7, proof),
            canceled = coalesce($8, canceled),
            deadline_at = CASE
                WHEN $9::bigint IS NULL OR deadline_first_at IS NULL OR deadline_max_at IS NULL THEN deadline_at
                ELSE greatest(
                    deadline_at, least(deadline_max_at, deadline_first_at + $9::bigint * interval '1 millisecond')
                )
            END,
            updated_at = now(),
            ended_at = CASE WHEN before.to_state IN ('completed', 'failed', 'rejected', 'canceled') THEN now() END
        FROM before
        WHERE command.command_id = before.command_id
    )
    INSERT INTO skygw.command_transition (command_id, at, state, hop)
    SELECT command_id, now(), to_state, 'node' FROM before WHERE to_state IS NOT NULL
"""

# Of the results in a run, one that is not its node's to report.
FIND_FOREIGN = """
    SELECT told.command_id
    FROM unnest($1::uuid[], $2::uuid[]) AS told (command_id, install_id)
    JOIN skygw.command ON command.command_id = told.command_id AND command.install_id <> told.install_id
    LIMIT 1
"""

# What is told never to have come, and whether this memory of the node can know: it was there when the command went, and
# the node never spoke of the command before.
FIND_NEVER_RECEIVED = """
    SELECT command.command_id, command.command,
           coalesce(outbox.known_epoch <= command.epoch, false)
           AND NOT EXISTS (
               SELECT FROM skygw.command_transition AS step
               WHERE step.command_id = command.command_id AND step.hop = 'node'
           ) AS can_know
    FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS told (command_id, install_id, outbox_uid)
    JOIN skygw.command ON command.command_id = told.command_id
    LEFT JOIN skygw.node_outbox AS outbox
        ON outbox.install_id = told.install_id AND outbox.outbox_uid = told.outbox_uid
    WHERE command.state NOT IN ('completed', 'failed', 'rejected', 'canceled', 'expired')
"""

SESSIONS = 32
"""Sessions in one transaction: with a full batch of each committer 8,192 rows and 16 MiB of text."""

_Outbox = tuple[InstallId, OutboxUid]


@dataclass(frozen=True, slots=True)
class _Run:
    """Reports of one outbox to be committed, and the cursor they leave."""

    outbox: _Outbox
    reports: Sequence[DurableReport]

    def behind(self, acked_seq: int) -> "_Run":
        """What is new of it. Raises `Invalid` if that does not follow the cursor without a hole."""
        new = [report for report in self.reports if report.seq > acked_seq]
        for due, report in enumerate(new, start=acked_seq + 1):
            if report.seq != due:
                raise Invalid(f"report {report.seq} came where {due} was due")
        return _Run(self.outbox, new)


class NotItsToSay(StoreFailed):
    """A result of another installation's command, or one that claims more than its node can know: whoever follows the
    command must never be told it.
    """


class NodeReports:
    """Reports and cursors in PostgreSQL. Everything raises `RoutingUnavailable` when it cannot be asked."""

    def __init__(self, database: Database, *, committed: Callable[[], None] | None = None) -> None:
        """`committed` is told that there is more in the log, and must not wait."""
        self._database = database
        self._committed = committed
        self._cursors = Together[_Outbox, _Outbox, int](self._find_cursors)
        # Whoever comes while one transaction is under way is in the next: there is nothing to gather them for longer.
        self._commits = Together[_Outbox, _Run, int](self._commit_together, at_most=SESSIONS, spacing_s=0.0)

    async def acked_seq(self, install_id: InstallId, outbox_uid: OutboxUid) -> int:
        """The last committed report of this outbox, 0 before the first. Asked together with other outboxes."""
        outbox = (install_id, outbox_uid)
        return await self._cursors.ask(outbox, outbox, partial(self._find_cursor, outbox))

    async def commit(self, install_id: InstallId, outbox_uid: OutboxUid, reports: Sequence[DurableReport]) -> int:
        """Commit a contiguous run whole, append it to the log and move the commands it tells of. Returns the cursor.
        Runs of other outboxes that come at the same time share the transaction.

        Reports the log has are passed over, so that a run may be repeated after a doubt. Raises `Invalid`,
        and commits nothing, if the new ones do not follow the cursor without a hole; `StoreFailed` about the data
        only to the one whose data it is. When cancelled it is not known whether it happened.
        """
        run = _Run((install_id, outbox_uid), reports)
        return await self._commits.ask(run.outbox, run, partial(self._commit_alone, run))

    async def refuses(
        self, install_id: InstallId, outbox_uid: OutboxUid, reports: Sequence[DurableReport]
    ) -> str | None:
        """Why one of these will never be taken. Nothing is kept."""
        try:
            async with self._database.connection() as connection:
                await connection.execute("BEGIN")
                await _append(connection, [_Run((install_id, outbox_uid), reports)])
                await connection.execute("ROLLBACK")
        except NotItsToSay as refused:
            return refused.message
        except StoreFailed as refused:
            if not refused.about_the_data:
                raise
            return NOT_HELD
        return None

    async def _find_cursors(self, outboxes: Sequence[_Outbox]) -> dict[_Outbox, int]:
        async with self._database.connection() as connection:
            found = _cursors(await connection.fetch(FIND_CURSORS, *_columns(outboxes)))
            if new := [outbox for outbox in outboxes if outbox not in found]:
                await connection.execute(BEGIN_CURSORS, *_columns(new))
        return {outbox: found.get(outbox, 0) for outbox in outboxes}

    async def _find_cursor(self, outbox: _Outbox) -> int:
        return (await self._find_cursors([outbox]))[outbox]

    async def _commit_together(self, runs: Sequence[_Run]) -> dict[_Outbox, int]:
        async with self._database.transaction() as connection:
            cursors = _cursors(await connection.fetch(LOCK_CURSORS, *_columns([run.outbox for run in runs])))
            new: list[_Run] = []
            for run in runs:
                if run.outbox in cursors:
                    try:
                        new.append(run.behind(cursors[run.outbox]))
                    except Invalid:
                        del cursors[run.outbox]  # and hears so alone
            await _append(connection, new)
        self._tell()
        return cursors | {run.outbox: run.reports[-1].seq for run in new if run.reports}

    async def _commit_alone(self, run: _Run) -> int:
        async with self._database.transaction() as connection:
            acked_seq = int(await connection.fetchval(LOCK_CURSOR, *run.outbox))
            new = run.behind(acked_seq)
            await _append(connection, [new])
        self._tell()
        return new.reports[-1].seq if new.reports else acked_seq

    def _tell(self) -> None:
        if self._committed is not None:
            self._committed()


async def _append(connection: Connection, runs: Sequence[_Run]) -> None:
    """The last thing to be done in a transaction that holds the cursors of these."""
    runs = [run for run in runs if run.reports]
    if not runs:
        return
    reports = [(*run.outbox, report) for run in runs for report in run.reports]
    results = [(install_id, report.result) for install_id, _, report in reports if report.result]
    if results and await connection.fetchval(
        FIND_FOREIGN, [result.command_id for _, result in results], [install_id for install_id, _ in results]
    ):
        raise NotItsToSay(NOT_ITS, about_the_data=True)
    never_received = [
        (report.result.command_id, install_id, outbox_uid)
        for install_id, outbox_uid, report in reports
        if report.result is not None and says_never_received(report.result)
    ]
    if never_received:
        await _refuse_what_it_cannot_know(connection, never_received)
    await apply_results(connection, results)
    await connection.execute(
        APPEND,
        *_columns([run.outbox for run in runs]),
        [run.reports[-1].seq for run in runs],
        [install_id for install_id, _, _ in reports],
        [outbox_uid for _, outbox_uid, _ in reports],
        [report.seq for _, _, report in reports],
        [_stream(report) for _, _, report in reports],
        [report.telescope_uid for _, _, report in reports],
        [report.device_uid for _, _, report in reports],
        [None if report.result is None else report.result.command_id for _, _, report in reports],
        [report.observed_at for _, _, report in reports],
        [report.data for _, _, report in reports],
        [1 if report.nacked is not None else report.missing for _, _, report in reports],
        [report.nacked for _, _, report in reports],
        [report.result.command_id for _, _, report in reports if report.result],
    )


async def _refuse_what_it_cannot_know(
    connection: Connection, told: Sequence[tuple[CommandId, InstallId, OutboxUid]]
) -> None:
    """A stop may have run before anything of it was written down; no memory can say that it never came."""
    for row in await connection.fetch(FIND_NEVER_RECEIVED, *map(list, zip(*told, strict=True))):
        if not row["can_know"] or is_safing(str(read_value(row["command"]).get("command_type", ""))):
            raise NotItsToSay(NOT_KNOWN, about_the_data=True)


async def apply_results(connection: Connection, results: Iterable[tuple[InstallId, PublishCommandResult]]) -> None:
    """Move the commands these results tell of; an unknown one, or another installation's, is passed over."""
    # By command, so that two writers take their rows in one order; within a command the order stays.
    in_order = sorted(results, key=lambda told: told[1].command_id)
    if not in_order:
        return
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
                None if result.deadline_ms is None else min(result.deadline_ms, MAX_MORE_MS),
            )
            for install_id, result in in_order
        ],
    )


def _stream(report: DurableReport) -> str:
    """As the log names it: what was not taken, and what has no stream, is a gap."""
    is_event = report.nacked is None and report.stream is not None
    return ("" if is_event else GAP) + (report.stream or "")


def _columns(outboxes: Sequence[_Outbox]) -> tuple[list[InstallId], list[OutboxUid]]:
    return [install_id for install_id, _ in outboxes], [outbox_uid for _, outbox_uid in outboxes]


def _cursors(rows: Iterable[asyncpg.Record]) -> dict[_Outbox, int]:
    return {(row["install_id"], row["outbox_uid"]): int(row["acked_seq"]) for row in rows}
