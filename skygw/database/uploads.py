"""How far uploads have come, in PostgreSQL; what it means for their assets is written down with it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from skygw.database.pool import Connection, Database
from skygw.errors import QuotaExceeded
from skygw.ids import InstallId, UploadUid
from skygw.observing.upload_store import NewUpload, Quota, Upload, UploadState

NAMES = (
    "upload_uid",
    "install_id",
    "asset_uid",
    "size",
    "sha256",
    "acknowledged",
    "state",
    "writer",
    "expires_at",
    "failure",
    "metadata",
)
COLUMNS = ", ".join(f"upload.{name}" for name in NAMES)

# Of those who open uploads for one installation, or declare its assets, one at a time.
LOCK_INSTALLATION = "SELECT pg_advisory_xact_lock(hashtextextended('skygw.upload ' || $1::uuid::text, 0))"

UNDER_WAY = """
    SELECT coalesce(sum(reserved), 0)::bigint AS bytes, count(*) AS uploads
    FROM skygw.upload
    WHERE install_id = $1 AND state = 'open'
"""

INSERT = f"""
    INSERT INTO skygw.upload (upload_uid, install_id, asset_uid, size, sha256, reserved, expires_at, metadata)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    RETURNING {COLUMNS}
"""  # noqa: S608 -- names of ours

FIND = f"SELECT {COLUMNS} FROM skygw.upload WHERE upload_uid = $1 AND install_id = $2"  # noqa: S608

CLAIM = f"""
    WITH upload AS (
        UPDATE skygw.upload SET writer = writer + 1 WHERE upload_uid = $1 AND install_id = $2 RETURNING *
    ), told AS (
        UPDATE observation_asset AS platform
        SET last_transfer_attempt = clock_timestamp()
        FROM upload
        WHERE platform.uid = upload.asset_uid AND upload.state = 'open'
    )
    SELECT {COLUMNS} FROM upload
"""  # noqa: S608

# What the platform has canceled stays so.
ADVANCE = """
    WITH upload AS (
        UPDATE skygw.upload
        SET acknowledged = greatest(acknowledged, $3), size = coalesce(size, $4), expires_at = $5
        WHERE upload_uid = $1 AND writer = $2 AND state = 'open'
        RETURNING asset_uid, acknowledged, size
    ), told AS (
        UPDATE observation_asset AS platform
        SET transfer_state = 'active',
            transfer_progress = upload.acknowledged / nullif(upload.size, 0)::double precision,
            transfer_error = NULL
        FROM upload
        WHERE platform.uid = upload.asset_uid AND platform.transfer_state IN ('pending', 'active')
    )
    SELECT count(*) FROM upload
"""

COMPLETE = """
    WITH upload AS (
        UPDATE skygw.upload
        SET state = 'complete', acknowledged = $3, size = $3, sha256 = $4
        WHERE upload_uid = $1 AND writer = $2 AND state = 'open'
          AND NOT EXISTS (
              SELECT FROM skygw.asset
              WHERE asset.asset_uid = upload.asset_uid AND (asset.size, asset.sha256) <> ($3, $4)
          )
        RETURNING upload_uid, asset_uid
    ), asset AS (
        UPDATE skygw.asset
        SET upload_uid = upload.upload_uid, arrived_at = clock_timestamp(), failure = NULL
        FROM upload
        WHERE asset.asset_uid = upload.asset_uid AND asset.arrived_at IS NULL
        RETURNING asset.asset_uid
    ), told AS (
        UPDATE observation_asset AS platform
        SET transfer_state = 'active', transfer_progress = 1, transfer_error = NULL
        FROM asset
        WHERE platform.uid = asset.asset_uid
    )
    SELECT count(*) FROM upload
"""

FAIL = """
    WITH upload AS (
        UPDATE skygw.upload SET state = 'failed', failure = $3
        WHERE upload_uid = $1 AND writer = $2 AND state = 'open'
        RETURNING asset_uid
    ), asset AS (
        UPDATE skygw.asset SET failure = $3
        FROM upload
        WHERE asset.asset_uid = upload.asset_uid AND asset.arrived_at IS NULL
        RETURNING asset.asset_uid
    ), told AS (
        UPDATE observation_asset AS platform
        SET transfer_state = 'failed', transfer_error = $3
        FROM asset
        WHERE platform.uid = asset.asset_uid
    )
    SELECT count(*) FROM upload
"""

CANCEL_TRANSFER = """
    UPDATE observation_asset AS platform
    SET transfer_state = 'canceled', transfer_progress = NULL
    FROM {upload} AS upload
    JOIN skygw.asset ON asset.asset_uid = upload.asset_uid AND asset.arrived_at IS NULL
    WHERE platform.uid = asset.asset_uid AND platform.transfer_state IN ('pending', 'active')
"""

FORGET = f"""
    WITH gone AS (
        DELETE FROM skygw.upload WHERE upload_uid = $2 AND install_id = $1 RETURNING asset_uid
    ), told AS ({CANCEL_TRANSFER.format(upload="gone")})
    SELECT count(*) FROM gone
"""  # noqa: S608

# From here on nobody writes to it, and it is nobody's: if the process ends before its bytes are removed, the next one
# finds it again.
EXPIRE = f"""
    WITH over AS (
        SELECT upload_uid, asset_uid
        FROM skygw.upload
        WHERE expires_at <= $1
          AND (asset_uid IS NULL
               OR state = 'open'
                  AND NOT EXISTS (SELECT FROM skygw.asset
                                  WHERE asset.asset_uid = upload.asset_uid AND asset.task_uid IS NOT NULL)
                  AND NOT EXISTS (SELECT FROM skygw.task_asset WHERE task_asset.asset_uid = upload.asset_uid)
                  AND NOT EXISTS (SELECT FROM skygw.result_asset WHERE result_asset.asset_uid = upload.asset_uid))
        ORDER BY expires_at
        LIMIT $2
        FOR UPDATE SKIP LOCKED
    ), told AS ({CANCEL_TRANSFER.format(upload="over")})
    UPDATE skygw.upload
    SET state = 'failed', failure = coalesce(failure, 'It has expired.'), writer = writer + 1, asset_uid = NULL
    FROM over
    WHERE upload.upload_uid = over.upload_uid
    RETURNING {COLUMNS}
"""  # noqa: S608


class PgUploads:
    """`UploadStore` in PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, new: NewUpload, *, quota: Quota) -> Upload:
        refused: QuotaExceeded | None = None
        upload: Upload | None = None
        async with self._database.transaction() as connection:
            await connection.execute(LOCK_INSTALLATION, new.install_id)
            try:
                await check_quota(connection, new, quota)
                upload = await open_upload(connection, new, asset_uid=new.asset_uid)
            except QuotaExceeded as error:
                refused = error  # it has changed nothing, and need not cost the connection
        if upload is None:
            raise refused or RuntimeError("an upload is neither opened nor refused")
        return upload

    async def find(self, install_id: InstallId, uid: UploadUid) -> Upload | None:
        async with self._database.connection() as connection:
            row = await connection.fetchrow(FIND, uid, install_id)
        return None if row is None else upload_of(row)

    async def claim(self, install_id: InstallId, uid: UploadUid) -> Upload | None:
        async with self._database.connection() as connection:
            row = await connection.fetchrow(CLAIM, uid, install_id)
        return None if row is None else upload_of(row)

    async def advance(
        self, uid: UploadUid, writer: int, *, offset: int, size: int | None, expires_at: datetime
    ) -> bool:
        return await self._did(ADVANCE, uid, writer, offset, size, expires_at)

    async def complete(self, uid: UploadUid, writer: int, *, size: int, sha256: str) -> bool:
        return await self._did(COMPLETE, uid, writer, size, sha256)

    async def fail(self, uid: UploadUid, writer: int, *, reason: str) -> bool:
        return await self._did(FAIL, uid, writer, reason)

    async def forget(self, install_id: InstallId, uid: UploadUid) -> bool:
        return await self._did(FORGET, install_id, uid)

    async def expired(self, *, now: datetime, limit: int) -> Sequence[Upload]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(EXPIRE, now, limit)
        return sorted((upload_of(row) for row in rows), key=lambda upload: upload.expires_at)

    async def _did(self, statement: str, *arguments: object) -> bool:
        async with self._database.connection() as connection:
            return bool(await connection.fetchval(statement, *arguments))


async def check_quota(connection: Connection, new: NewUpload, quota: Quota) -> None:
    """In a transaction that has `LOCK_INSTALLATION`. Raises `QuotaExceeded`."""
    row = await connection.fetchrow(UNDER_WAY, new.install_id)
    if row is None:
        raise RuntimeError("a sum is always a row")
    details = {"bytes": row["bytes"], "uploads": row["uploads"]}
    if row["bytes"] + new.reserved > quota.bytes:
        raise QuotaExceeded(
            f"The open uploads of an installation may come to {quota.bytes} bytes; there are {row['bytes']} and this "
            f"one needs {new.reserved}.",
            details=details,
        )
    if row["uploads"] >= quota.uploads:
        raise QuotaExceeded(f"An installation may have {quota.uploads} uploads open, and has them.", details=details)


async def open_upload(connection: Connection, new: NewUpload, *, asset_uid: UUID | None) -> Upload:
    row = await connection.fetchrow(
        INSERT,
        new.uid,
        new.install_id,
        asset_uid,
        new.size,
        new.sha256,
        new.reserved,
        new.expires_at,
        new.metadata,
    )
    if row is None:
        raise RuntimeError("what was inserted is there")
    return upload_of(row)


def upload_of(row: asyncpg.Record, *, prefix: str = "") -> Upload:
    """Of a row with the columns `NAMES`, each with the prefix."""
    of: dict[str, Any] = {name: row[prefix + name] for name in NAMES}
    return Upload(
        uid=UploadUid(of["upload_uid"]),
        install_id=InstallId(of["install_id"]),
        size=of["size"],
        sha256=of["sha256"],
        asset_uid=of["asset_uid"],
        offset=of["acknowledged"],
        state=UploadState(of["state"]),
        writer=of["writer"],
        expires_at=of["expires_at"],
        failure=of["failure"],
        metadata=of["metadata"],
    )
