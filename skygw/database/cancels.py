"""The cancels that were asked for, beside their commands: added to and never changed, in one order with the steps."""

import json
from collections.abc import Iterable, Sequence

import asyncpg

from skygw.control.ledger import Caller, CancelRequest
from skygw.database.pool import Connection
from skygw.ids import CommandId
from skygw.protocol.gateway_frames import CancelMode

# Of a command that is not in the ledger there is nothing to be canceled, and no chain to seal it in.
INSERT_CANCELS = """
    INSERT INTO skygw.command_cancel (cancel_uid, command_id, at, mode, grace_s, service, actor)
    SELECT asked.cancel_uid, asked.command_id, asked.at, asked.mode, asked.grace_s, asked.service, asked.actor::jsonb
    FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::text[], $5::float8[], $6::text[], $7::text[])
        WITH ORDINALITY AS asked (cancel_uid, command_id, at, mode, grace_s, service, actor, ordinal)
    JOIN skygw.command ON command.command_id = asked.command_id
    ORDER BY asked.ordinal
    ON CONFLICT (cancel_uid) DO NOTHING
"""

FIND_CANCELS = """
    SELECT cancel_uid, command_id, at, mode, grace_s, service, actor
    FROM skygw.command_cancel
    WHERE command_id = ANY ($1::uuid[])
    ORDER BY command_id, ordinal
"""


async def insert_cancels(connection: Connection, requests: Sequence[CancelRequest]) -> None:
    """In this order. Those that are there already, and those of unknown commands, are passed over."""
    await connection.execute(
        INSERT_CANCELS,
        [request.cancel_uid for request in requests],
        [request.command_id for request in requests],
        [request.at for request in requests],
        [request.mode.value for request in requests],
        [request.grace_s for request in requests],
        [request.by.service for request in requests],
        [None if request.by.actor is None else json.dumps(request.by.actor) for request in requests],
    )


async def cancels_of(connection: Connection, command_ids: Iterable[CommandId]) -> list[CancelRequest]:
    """Those of each command in the order they were asked for."""
    return [_request(row) for row in await connection.fetch(FIND_CANCELS, list(command_ids))]


def _request(row: asyncpg.Record) -> CancelRequest:
    return CancelRequest(
        cancel_uid=row["cancel_uid"],
        command_id=CommandId(row["command_id"]),
        at=row["at"],
        mode=CancelMode(row["mode"]),
        grace_s=row["grace_s"],
        by=Caller(row["service"], None if row["actor"] is None else json.loads(row["actor"])),
    )
