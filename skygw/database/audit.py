"""The audit in PostgreSQL: its heads signed every hour, and all of it read for whoever checks it."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import trio

from skygw.control.audit import AuditBroken, Checkpoint, Entry, Head, Item, signed_text
from skygw.database.migrate import said_as_a_sentence
from skygw.database.pool import Database
from skygw.errors import RoutingUnavailable

SIGN_EVERY_S = 3600.0
AGAIN_S = 60.0
"""After the database was away."""
CONNECT_TIMEOUT_S = 10
ROWS_AT_ONCE = 2_000

REGISTRY = "SELECT registry_uid FROM skygw.registry"

UNSIGNED = """
    SELECT head.install_id, head.position, head.hash
    FROM skygw.audit_head AS head
    WHERE NOT EXISTS (
        SELECT FROM skygw.audit_checkpoint AS checkpoint
        WHERE checkpoint.install_id = head.install_id AND checkpoint.position = head.position
    )
"""

# Another gateway may have signed the same head.
INSERT_CHECKPOINTS = """
    INSERT INTO skygw.audit_checkpoint (install_id, position, hash, made_at, key_id, signature)
    SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bytea[], $4::timestamptz[], $5::text[], $6::bytea[])
    ON CONFLICT DO NOTHING
"""

READ = """
    SELECT install_id, position, 0 AS kind, entry, hash, NULL::timestamptz AS made_at, NULL AS key_id,
           NULL::bytea AS signature
    FROM skygw.command_audit
    UNION ALL
    SELECT install_id, position, 1, NULL, hash, made_at, key_id, signature FROM skygw.audit_checkpoint
    UNION ALL
    SELECT install_id, position, 2, NULL, hash, NULL, NULL, NULL FROM skygw.audit_head
    ORDER BY install_id, position, kind
"""

# What the gateway shows of a command and what was sealed of it must be the same. A cancel says itself who asked for it,
# a step not always.
DIFFERENT = """
    SELECT coalesce(step.command_id, audit.command_id), step.command_id IS NULL, audit.command_id IS NULL
    FROM (
        SELECT command_id, ordinal, at, state, hop, detail,
               NULL AS mode, NULL AS grace_s, NULL AS service, NULL AS actor
        FROM skygw.command_transition
        UNION ALL
        SELECT command_id, ordinal, at, NULL, NULL, NULL, mode, grace_s::text, service, actor::text
        FROM skygw.command_cancel
    ) AS step
    FULL JOIN skygw.command_audit AS audit ON audit.command_id = step.command_id AND audit.ordinal = step.ordinal
    CROSS JOIN LATERAL (SELECT audit.entry::json AS sealed) AS entry
    WHERE step.command_id IS NULL
       OR audit.command_id IS NULL
       OR (step.state, step.hop, step.detail, step.at, step.mode, step.grace_s) IS DISTINCT FROM
          (sealed ->> 'state', sealed ->> 'hop', sealed ->> 'detail', (sealed ->> 'at')::timestamptz,
           sealed -> 'cancel' ->> 'mode', sealed -> 'cancel' ->> 'grace_s')
       OR step.mode IS NOT NULL
          AND (step.service, step.actor) IS DISTINCT FROM (sealed ->> 'service', sealed ->> 'actor')
    LIMIT 1
"""

log = logging.getLogger(__name__)


class AuditSigner:
    """Signs where the chains end. `sign` and `key_id` are of the key that signs."""

    def __init__(self, database: Database, *, key_id: str, sign: Callable[[bytes], bytes]) -> None:
        self._database = database
        self._key_id = key_id
        self._sign = sign

    async def sign_heads(self) -> int:
        """A checkpoint for each chain that grew since its last one; how many. Raises `RoutingUnavailable`."""
        async with self._database.connection() as connection:
            registry_uid = await connection.fetchval(REGISTRY)
            heads = await connection.fetch(UNSIGNED)
            now = datetime.now(UTC)
            rows = [
                (
                    head["install_id"],
                    head["position"],
                    head["hash"],
                    now,
                    self._key_id,
                    self._sign(
                        signed_text(registry_uid, head["install_id"], head["position"], bytes(head["hash"]), now)
                    ),
                )
                for head in heads
            ]
            if rows:
                await connection.execute(INSERT_CHECKPOINTS, *([*column] for column in zip(*rows, strict=True)))
        return len(rows)

    async def run(self) -> None:
        """Signs now and every hour, until cancelled."""
        while True:
            pause_s = SIGN_EVERY_S
            try:
                await self.sign_heads()
            except RoutingUnavailable as error:
                log.warning("the audit is not signed yet: %s", error)
                pause_s = AGAIN_S
            await trio.sleep(pause_s)


class AuditReader:
    """All of the audit as it was at one moment. Blocking."""

    registry_uid: UUID

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        """Raises `AuditBroken` for a database that has lost its name, which is in what was signed."""
        self._connection = connection
        row = connection.execute(REGISTRY).fetchone()
        if row is None:
            raise AuditBroken("The database has lost its name: the table skygw.registry is empty.")
        [self.registry_uid] = row

    def items(self) -> Iterator[Item]:
        """Chain by chain, as `AuditChecker` takes them; memory holds a few of them."""
        with self._connection.cursor(name="audit") as cursor:
            cursor.itersize = ROWS_AT_ONCE
            for install_id, position, kind, entry, hash_, made_at, key_id, signature in cursor.execute(READ):
                match kind:
                    case 0:
                        yield Entry(install_id, position, entry, hash_)
                    case 1:
                        yield Checkpoint(install_id, position, hash_, made_at, key_id, signature)
                    case _:
                        yield Head(install_id, position, hash_)

    def compare_with_commands(self) -> None:
        """Raises `AuditBroken` for the first command whose steps are not those that were sealed."""
        row = self._connection.execute(DIFFERENT).fetchone()
        if row is None:
            return
        command_id, step_is_gone, seal_is_gone = row
        if step_is_gone:
            raise AuditBroken(f"A step of command {command_id} is missing: the audit has it.")
        if seal_is_gone:
            raise AuditBroken(f"A step of command {command_id} is not in the audit.")
        raise AuditBroken(f"A step of command {command_id} was changed: the audit has it otherwise.")


@contextmanager
def open_audit(url: str) -> Iterator[AuditReader]:
    """Blocking. Raises `StartupError` if the database cannot be read, also out of the block."""
    with (
        said_as_a_sentence(url),
        psycopg.connect(url, connect_timeout=CONNECT_TIMEOUT_S, application_name="skygw doctor") as connection,
    ):
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        yield AuditReader(connection)
