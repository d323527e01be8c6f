"""The ledger of commands in PostgreSQL: an id belongs to one command for ever, and states only move forward."""

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

from skygw.control.ledger import (
    MAX_ASKED,
    Caller,
    CancelRequest,
    CommandQuery,
    CommandRecord,
    CommandState,
    Move,
    Transition,
)
from skygw.database.cancels import cancels_of, insert_cancels
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
            recorded_late, trace_id, fence, fence_uid, deadline_first_at, deadline_max_at
        )
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::jsonb, $10, $11, $12, $13, $14, now(), $15, $16, $17, $18,
                $19, $20, $21, $28, $29, $30, $31)
        ON CONFLICT (command_id) DO NOTHING
        RETURNING command_id
    ), transitions AS (
        INSERT INTO skygw.command_transition (command_id, at, state, hop, detail, service, actor)
        SELECT stored.command_id, step.at, step.state, step.hop, step.detail, step.service, step.actor::jsonb
        FROM stored,
             unnest($22::timestamptz[], $23::text[], $24::text[], $25::text[], $26::text[], $27::text[])
                 WITH ORDINALITY AS step (at, state, hop, detail, service, actor, ordinal)
        ORDER BY step.ordinal
    )
    SELECT command_id FROM stored
"""

# A new life of what was never written, in one step; whoever looked at an older life comes too late. A command's
# identity stays, the rest of what accompanied it is as the repeat says.
READMIT = """
    WITH reopened AS (
        UPDATE skygw.command
        SET state = $3, epoch = $4, install_id = $5, deadline_at = $6, ended_at = $7, result = $8, error = $9,
            proof = $10, canceled = $11, recorded_late = $12, updated_at = now(), fence = $19, fence_uid = $20,
            deadline_first_at = $21, deadline_max_at = $22
        WHERE command_id = $1
          AND deadline_at = $2
          AND state IN ('received', 'expired')
        RETURNING command_id
    ), transitions AS (
        INSERT INTO skygw.command_transition (command_id, at, state, hop, detail, service, actor)
        SELECT reopened.command_id, step.at, step.state, step.hop, step.detail, step.service, step.actor::jsonb
        FROM reopened,
             unnest($13::timestamptz[], $14::text[], $15::text[], $16::text[], $17::text[], $18::text[])
                 WITH ORDINALITY AS step (at, state, hop, detail, service, actor, ordinal)
        ORDER BY step.ordinal
    )
    SELECT command_id FROM reopened
"""

# A node keeps outcomes for 30 days: what is older cannot be asked for any more. What was received and is followed by
# nobody was some gateway's that ended: what is followed here, or being admitted, is not doubted.
LOSE_BEFORE = """
    WITH found AS (
        SELECT command_id, state
        FROM skygw.command
        WHERE install_id = $1
          AND (epoch IS NULL OR epoch < $2)
          AND (state IN ('written', 'accepted', 'running') OR state = 'received' AND command_id <> ALL ($4::uuid[]))
        FOR UPDATE
    ), lost AS (
        UPDATE skygw.command
        SET state = 'unknown', updated_at = now()
        FROM found
        WHERE command.command_id = found.command_id
        RETURNING command.command_id, found.state AS before
    ), transitions AS (
        INSERT INTO skygw.command_transition (command_id, at, state, hop, detail)
        SELECT command_id, now(), 'unknown', 'gateway',
               CASE before
                   WHEN 'received' THEN 'the gateway ended before it was known whether it was written'
                   ELSE 'a newer session of the node has begun'
               END
        FROM lost
    )
    SELECT command_id
    FROM skygw.command
    WHERE install_id = $1
      AND created_at > now() - interval '30 days'
      AND (state = 'unknown' OR command_id IN (SELECT command_id FROM lost))
    ORDER BY created_at DESC
    LIMIT $3
"""

# What the table of steps does not let is passed over. The row is locked before the table is asked: whoever has waited
# for somebody else's step goes on from that one.
MOVE = """
    WITH before AS (
        SELECT command_id, state FROM skygw.command WHERE command_id = $1 FOR UPDATE
    ), moved AS (
        UPDATE skygw.command
        SET state = $2,
            canceled = coalesce($6, command.canceled),
            updated_at = now(),
            ended_at = CASE
                WHEN $2 IN ('completed', 'failed', 'rejected', 'canceled', 'expired') THEN $3::timestamptz
            END
        FROM before
        JOIN skygw.command_step AS step ON step.from_state = before.state AND step.to_state = $2
        WHERE command.command_id = before.command_id
        RETURNING command.command_id
    )
    INSERT INTO skygw.command_transition (command_id, at, state, hop, detail, service, actor)
    SELECT command_id, $3, $2, $4, $5, $7, $8::jsonb FROM moved
"""

# As MOVE, from `unknown` alone: an administrator's word never stands above the node's.
RESOLVE = """
    WITH moved AS (
        UPDATE skygw.command
        SET state = $2, updated_at = now(), ended_at = $3::timestamptz
        WHERE command_id = $1
          AND state = 'unknown'
          AND (state, $2) IN (SELECT from_state, to_state FROM skygw.command_step)
        RETURNING command_id
    ), transition AS (
        INSERT INTO skygw.command_transition (command_id, at, state, hop, detail, service, actor)
        SELECT command_id, $3, $2, $4, $5, $6, $7::jsonb FROM moved
    )
    SELECT command_id FROM moved
"""

FIND = "SELECT * FROM skygw.command WHERE command_id = $1"

FIND_TRANSITIONS = """
    SELECT command_id, at, state, hop, detail, service, actor
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

    def __init__(self, database: Database, *, committed: Callable[[], None] | None = None) -> None:
        """`committed` is told that there may be more in the log, and must not wait."""
        self._database = database
        self._committed = committed

    async def admit(self, record: CommandRecord) -> tuple[CommandRecord, bool]:
        """Store a new command; or return the one stored under this id, and `True`, if it is the same.

        Raises `IdReused` if it is another. When cancelled it is not known whether it was stored: asking again
        with the same command tells.
        """
        async with self._database.connection() as connection:
            inserted = await _insert(connection, record)
            stored = None if inserted else await _get(connection, record.command_id)
        if inserted:
            self._tell()
            return record, False
        if stored is None:
            raise RuntimeError("a command that was in the way is gone")
        if stored.identity != record.identity:
            raise IdReused(f"The command id {record.command_id} belongs to another command.")
        return stored, True

    async def readmit(self, record: CommandRecord, *, seen: CommandRecord) -> bool:
        """Begin a new life of a command that was never written. Of several who bring it, one gets `True`."""
        async with self._database.connection() as connection:
            reopened = await _readmit(connection, record, seen=seen)
        self._tell()
        return reopened

    async def record_cancels(self, requests: Sequence[CancelRequest]) -> None:
        """Keep cancels, in order; a repeat changes nothing."""
        async with self._database.connection() as connection:
            await insert_cancels(connection, requests)

    async def lose_before(
        self, install_id: InstallId, epoch: Epoch, *, followed: Collection[CommandId] = ()
    ) -> Sequence[CommandId]:
        """What went to older sessions and has no end is unknown; and what there is to ask the node for."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(LOSE_BEFORE, install_id, epoch, MAX_ASKED, list(followed))
        self._tell()
        return [CommandId(row["command_id"]) for row in rows]

    async def record_sent(self, record: CommandRecord, results: Sequence[PublishCommandResult]) -> None:
        """Store what was sent unrecorded, and what the node has said since. A repeat changes nothing."""
        async with self._database.transaction() as connection:
            if not await _insert(connection, record):
                stored = await _get(connection, record.command_id)
                if stored and stored.identity == record.identity and record.transitions[0] not in stored.transitions:
                    await _readmit(connection, record, seen=stored)
            await apply_results(connection, [(record.install_id, result) for result in results])
        self._tell()

    async def move(self, moves: Sequence[Move]) -> None:
        """Move states, all in one transaction; what the table does not let, and unknown ids, are passed over."""
        # By command, so that two writers take their rows in one order; within a command the order stays.
        rows = [
            (move.command_id, step.state.value, step.at, step.hop.value, step.detail, move.canceled, *_who(step.by))
            for move in sorted(moves, key=lambda move: move.command_id)
            for step in [move.transition]
        ]
        async with self._database.connection() as connection:
            await connection.executemany(MOVE, rows)
        self._tell()

    async def resolve(self, command_id: CommandId, step: Transition) -> bool:
        """Move what is unknown to an end; `False` if it is not unknown."""
        async with self._database.connection() as connection:
            moved = await connection.fetchval(
                RESOLVE, command_id, step.state.value, step.at, step.hop.value, step.detail, *_who(step.by)
            )
        self._tell()
        return moved is not None

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

    def _tell(self) -> None:
        if self._committed is not None:
            self._committed()


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
        *_columns(record.transitions),
        *_life(record),
    )
    return stored is not None


async def _readmit(connection: Connection, record: CommandRecord, *, seen: CommandRecord) -> bool:
    """Whether this one moved it."""
    reopened = await connection.fetchval(
        READMIT,
        record.command_id,
        seen.deadline_at,
        record.state.value,
        record.epoch,
        record.install_id,
        record.deadline_at,
        record.ended_at,
        record.result,
        record.error,
        record.proof,
        record.canceled,
        record.recorded_late,
        *_columns(record.transitions),
        *_life(record),
    )
    return reopened is not None


def _life(record: CommandRecord) -> tuple[int | None, UUID | None, datetime | None, datetime | None]:
    """The last columns of `INSERT` and `READMIT`."""
    return record.fence, record.fence_uid, record.deadline_first_at, record.deadline_max_at


def _who(by: Caller | None) -> tuple[str | None, str | None]:
    """The columns `service` and `actor`."""
    if by is None:
        return None, None
    return by.service, None if by.actor is None else json.dumps(by.actor)


def _columns(
    steps: Sequence[Transition],
) -> tuple[list[datetime], list[str], list[str], list[str | None], list[str | None], list[str | None]]:
    """One list per column, as `unnest` takes them."""
    who = [_who(step.by) for step in steps]
    return (
        [step.at for step in steps],
        [step.state.value for step in steps],
        [step.hop.value for step in steps],
        [step.detail for step in steps],
        [service for service, _ in who],
        [actor for _, actor in who],
    )


async def _get(connection: Connection, command_id: CommandId) -> CommandRecord | None:
    found = await _with_transitions(connection, await connection.fetch(FIND, command_id))
    return found[0] if found else None


async def _with_transitions(connection: Connection, rows: Iterable[asyncpg.Record]) -> list[CommandRecord]:
    records = {row["command_id"]: _record(row) for row in rows}
    if not records:
        return []
    for row in await connection.fetch(FIND_TRANSITIONS, list(records)):
        by = None
        if row["service"] is not None:
            by = Caller(row["service"], None if row["actor"] is None else json.loads(row["actor"]))
        step = Transition(row["at"], CommandState(row["state"]), Hop(row["hop"]), row["detail"], by)
        records[row["command_id"]].transitions.append(step)
    for request in await cancels_of(connection, records):
        records[request.command_id].cancels.append(request)
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
        fence=row["fence"],
        fence_uid=row["fence_uid"],
        deadline_first_at=row["deadline_first_at"],
        deadline_max_at=row["deadline_max_at"],
    )
