"""The ledger of commands in PostgreSQL: an id belongs to one command for ever, and states only move forward."""

import json
from collections.abc import Iterable, Sequence

import asyncpg

from skygw.control.ledger import CommandQuery, CommandRecord, CommandState, Move, Transition
from skygw.database.node_reports import apply_results
from skygw.database.pool import Connection, Database
from skygw.errors import Hop, IdReused
from skygw.ids import CommandId, DeviceUid, Epoch, InstallId, TelescopeUid
from skygw.protocol.node_frames import PublishCommandResult

INSERT = """
    WITH stored AS (
        INSERT INTO skygw.command (
            command_id, install_id, telescope_uid, device_uid, command, command_sha256, origin, service, actor,
            state, progress, epoch, deadline_at, created_at, updated_at, ended_at, result, error, proof, canceled,
            recorded_late, trace_id
        )
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::jsonb, $10, $11, $12, $13, $14, now(), $15, $16, $17, $18,
                $19, $20, $21)
        ON CONFLICT (command_id) DO NOTHING
        RETURNING command_id
    ), transitions AS (
        INSERT INTO skygw.command_transition (command_id, at, state, hop, detail)
        SELECT stored.command_id, step.at, step.state, step.hop, step.detail
        FROM stored,
             unnest($22::timestamptz[], $23::text[], $24::text[], $25::text[])
                 WITH ORDINALITY AS step (at, state, hop, detail, ordinal)
        ORDER BY step.ordinal
    )
    SELECT command_id FROM stored
"""

# What the table of steps does not let is passed over.
MOVE = """
    WITH moved AS (
        UPDATE skygw.command
        SET state = $2,
            updated_at = now(),
            ended_at = CASE
                WHEN $2 IN ('completed', 'failed', 'rejected', 'canceled', 'expired') THEN $3::timestamptz
            END
        WHERE command_id = $1
          AND (state, $2) IN (SELECT from_state, to_state FROM skygw.command_step)
        RETURNING command_id
    )
    INSERT INTO skygw.command_transition (command_id, at, state, hop, detail)
    SELECT command_id, $3, $2, $4, $5 FROM moved
"""

FIND = "SELECT * FROM skygw.command WHERE command_id = $1"

FIND_TRANSITIONS = """
    SELECT command_id, at, state, hop, detail
    FROM skygw.command_transition
    WHERE command_id = ANY ($1::uuid[])
    ORDER BY command_id, ordinal
"""

LIST_PAGE = """
    SELECT *
    FROM skygw.command
    WHERE ($1::uuid IS NULL OR install_id = $1) AND ($2::text IS NULL OR state = $2)
    ORDER BY created_at DESC, command_id
    LIMIT $3 OFFSET $4
"""

COUNT = """
    SELECT count(*)
    FROM skygw.command
    WHERE ($1::uuid IS NULL OR install_id = $1) AND ($2::text IS NULL OR state = $2)
"""


class Commands:
    """Commands in PostgreSQL. Everything raises `RoutingUnavailable` when it cannot be asked."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def admit(self, record: CommandRecord) -> tuple[CommandRecord, bool]:
        """Store a new command; or return the one stored under this id, and `True`, if it is the same.

        Raises `IdReused` if it is another. When cancelled it is not known whether it was stored: asking again
        with the same command tells.
        """
        async with self._database.connection() as connection:
            if await _insert(connection, record):
                return record, False
            stored = await _get(connection, record.command_id)
        if stored is None:
            raise RuntimeError("a command that was in the way is gone")
        if stored.identity != record.identity:
            raise IdReused(f"The command id {record.command_id} belongs to another command.")
        return stored, True

    async def record_sent(self, record: CommandRecord, results: Sequence[PublishCommandResult]) -> None:
        """Store what was sent unrecorded, and what the node has said since. A repeat changes nothing."""
        async with self._database.transaction() as connection:
            await _insert(connection, record)
            await apply_results(connection, record.install_id, results)

    async def move(self, moves: Sequence[Move]) -> None:
        """Move states, all in one transaction; what the table does not let, and unknown ids, are passed over."""
        # By command, so that two writers take their rows in one order; within a command the order stays.
        rows = [
            (move.command_id, step.state.value, step.at, step.hop.value, step.detail)
            for move in sorted(moves, key=lambda move: move.command_id)
            for step in [move.transition]
        ]
        async with self._database.connection() as connection:
            await connection.executemany(MOVE, rows)

    async def get(self, command_id: CommandId) -> CommandRecord | None:
        """The command with all its transitions."""
        async with self._database.connection() as connection:
            return await _get(connection, command_id)

    async def page(self, query: CommandQuery) -> tuple[list[CommandRecord], int]:
        """The newest first, and how many there are in all."""
        state = None if query.state is None else query.state.value
        async with self._database.connection() as connection:
            rows = await connection.fetch(LIST_PAGE, query.install_id, state, query.size, (query.page - 1) * query.size)
            total = await connection.fetchval(COUNT, query.install_id, state)
            return await _with_transitions(connection, rows), int(total)


async def _insert(connection: Connection, record: CommandRecord) -> bool:
    """Whether the row is new."""
    stored = await connection.fetchval(
        INSERT,
        record.command_id,
        record.install_id,
        record.telescope_uid,
        record.device_uid,
        record.command,
        record.identity,
        record.origin,
        record.service,
        None if record.actor is None else json.dumps(record.actor),
        record.state.value,
        record.progress,
        record.epoch,
        record.deadline_at,
        record.created_at,
        record.ended_at,
        record.result,
        record.error,
        record.proof,
        record.canceled,
        record.recorded_late,
        record.trace_id,
        [step.at for step in record.transitions],
        [step.state.value for step in record.transitions],
        [step.hop.value for step in record.transitions],
        [step.detail for step in record.transitions],
    )
    return stored is not None


async def _get(connection: Connection, command_id: CommandId) -> CommandRecord | None:
    found = await _with_transitions(connection, await connection.fetch(FIND, command_id))
    return found[0] if found else None


async def _with_transitions(connection: Connection, rows: Iterable[asyncpg.Record]) -> list[CommandRecord]:
    records = {row["command_id"]: _record(row) for row in rows}
    for row in await connection.fetch(FIND_TRANSITIONS, list(records)):
        step = Transition(row["at"], CommandState(row["state"]), Hop(row["hop"]), row["detail"])
        records[row["command_id"]].transitions.append(step)
    return list(records.values())


def _record(row: asyncpg.Record) -> CommandRecord:
    return CommandRecord(
        command_id=CommandId(row["command_id"]),
        install_id=InstallId(row["install_id"]),
        telescope_uid=None if row["telescope_uid"] is None else TelescopeUid(row["telescope_uid"]),
        device_uid=None if row["device_uid"] is None else DeviceUid(row["device_uid"]),
        command=row["command"],
        origin=row["origin"],
        service=row["service"],
        actor=None if row["actor"] is None else json.loads(row["actor"]),
        created_at=row["created_at"],
        deadline_at=row["deadline_at"],
        trace_id=row["trace_id"],
        epoch=None if row["epoch"] is None else Epoch(row["epoch"]),
        state=CommandState(row["state"]),
        ended_at=row["ended_at"],
        progress=row["progress"],
        result=row["result"],
        error=row["error"],
        proof=row["proof"],
        canceled=row["canceled"],
        recorded_late=row["recorded_late"],
    )
