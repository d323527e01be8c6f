"""Assets in PostgreSQL: the platform's row and ours beside it, changed together."""

import json
from collections.abc import Callable, Collection, Sequence
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from skygw.database.installations import LARGEST_ID
from skygw.database.pool import Connection, Database
from skygw.database.uploads import LOCK_INSTALLATION, check_quota, open_upload, upload_of
from skygw.database.uploads import NAMES as UPLOAD_NAMES
from skygw.errors import GatewayError, IdReused, Invalid, NotFound
from skygw.fits.finding import FitsFinding
from skygw.ids import AssetUid, InstallId, TaskUid, TelescopeUid, UploadUid
from skygw.observing.assets import (
    FITS_TYPES,
    Asset,
    AssetQuery,
    AssetRole,
    Declaration,
    Declared,
    TransferState,
)
from skygw.observing.byte_store import ContentKey
from skygw.observing.upload_store import NewUpload, Quota
from skygw.observing.verification import Arrived

# An observation is an installation's by a task of its telescopes.
PLACE = """
    SELECT (SELECT instrument.id
            FROM instrument
            JOIN telescope ON telescope.id = instrument.telescope_id
            WHERE instrument.uid = $2 AND NOT instrument.is_deleted AND telescope.uid = ANY ($1::uuid[])
           ) AS instrument_id,
           (SELECT observation.id
            FROM observation
            WHERE observation.uid = $3 AND NOT observation.is_deleted AND EXISTS (
                SELECT
                FROM observation_task AS task
                JOIN instrument ON instrument.id = task.instrument_id
                JOIN telescope ON telescope.id = instrument.telescope_id
                WHERE task.observation_id = observation.id AND telescope.uid = ANY ($1::uuid[])
            )
           ) AS observation_id,
           own.id AS task_id,
           own.observation_id AS task_observation_id,
           own.instrument_id AS task_instrument_id
    FROM (SELECT) AS one
    LEFT JOIN (
        SELECT task.*
        FROM observation_task AS task
        JOIN instrument ON instrument.id = task.instrument_id
        JOIN telescope ON telescope.id = instrument.telescope_id
        WHERE task.uid = $4 AND telescope.uid = ANY ($1::uuid[])
    ) AS own ON true
"""

FIND_DECLARED = """
    SELECT asset.asset_uid, asset.content_type, asset.arrived_at IS NOT NULL AS arrived, platform.is_remote
    FROM skygw.asset
    JOIN observation_asset AS platform ON platform.uid = asset.asset_uid
    WHERE install_id = $1 AND sha256 = $2 AND size = $3 AND observation_uid = $4 AND instrument_uid = $5
      AND asset.role = $6 AND file_name = $7 AND task_uid IS NOT DISTINCT FROM $8
"""

# What this installation has sent, and nobody else: with its upload, whose bytes may not be a content yet.
FIND_HELD = """
    SELECT upload_uid
    FROM skygw.asset
    WHERE install_id = $1 AND sha256 = $2 AND size = $3 AND arrived_at IS NOT NULL
    ORDER BY verified_at NULLS LAST
    LIMIT 1
"""
FIND_SENT_BEFORE = """
    SELECT upload_uid
    FROM skygw.upload
    WHERE install_id = $1 AND sha256 = $2 AND size = $3 AND state = 'complete' AND asset_uid IS NULL
    LIMIT 1
    FOR UPDATE
"""
OTHER_SIZE = """
    SELECT size FROM skygw.asset
    WHERE install_id = $1 AND sha256 = $2 AND size <> $3 AND arrived_at IS NOT NULL
    LIMIT 1
"""

INSERT = """
    WITH asset AS (
        INSERT INTO skygw.asset (asset_uid, install_id, task_uid, observation_uid, instrument_uid, role, file_name,
                                 content_type, size, sha256)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
    )
    INSERT INTO observation_asset (uid, observation_id, instrument_id, role, is_remote, is_transferrable,
                                   transfer_state)
    VALUES ($1, $11, $12, $6, $13, true, 'pending')
"""

ARRIVE = """
    WITH asset AS (
        UPDATE skygw.asset SET upload_uid = $2, arrived_at = clock_timestamp(), failure = NULL
        WHERE asset_uid = $1
    )
    UPDATE observation_asset
    SET transfer_state = 'active', transfer_progress = 1, transfer_error = NULL
    WHERE uid = $1
"""
NAME_UPLOAD = "UPDATE skygw.upload SET asset_uid = $2 WHERE upload_uid = $1"

WANT = """
    WITH asset AS (
        UPDATE skygw.asset SET failure = NULL WHERE asset_uid = $1 AND failure IS NOT NULL
    )
    UPDATE observation_asset
    SET transfer_state = 'pending', transfer_progress = NULL, transfer_error = NULL
    WHERE uid = $1 AND transfer_state IN ('failed', 'canceled')
"""
KEEP_OPEN = """
    UPDATE skygw.upload SET expires_at = greatest(expires_at, $2) WHERE asset_uid = $1 AND state = 'open'
    RETURNING upload_uid
"""
LOCK_WANTED = "SELECT FROM skygw.asset WHERE asset_uid = $1 AND arrived_at IS NULL FOR UPDATE"

SELECT = f"""
    SELECT platform.id, platform.is_remote, platform.transfer_state, platform.transfer_progress,
           platform.transfer_error, platform.last_transfer_attempt,
           asset.*,
           telescope.uid AS telescope_uid,
           ARRAY(SELECT DISTINCT result_uid
                 FROM skygw.result_asset
                 WHERE result_asset.asset_uid = asset.asset_uid
                 ORDER BY result_uid) AS result_uids,
           CASE WHEN asset.arrived_at IS NOT NULL THEN content.wcs_box::text END AS wcs_box,
           asset.arrived_at IS NOT NULL AND content.sha256 IS NOT NULL AS stored,
           {", ".join(f'open.{name} AS "open.{name}"' for name in UPLOAD_NAMES)}
    FROM skygw.asset
    JOIN observation_asset AS platform ON platform.uid = asset.asset_uid
    LEFT JOIN instrument ON instrument.uid = asset.instrument_uid
    LEFT JOIN telescope ON telescope.id = instrument.telescope_id
    LEFT JOIN skygw.content ON content.sha256 = asset.sha256 AND content.size = asset.size
    LEFT JOIN skygw.upload AS open ON open.asset_uid = asset.asset_uid AND open.state = 'open'
"""  # noqa: S608 -- names of ours
FIND = SELECT + "WHERE asset.asset_uid = $1 AND ($2::uuid IS NULL OR asset.install_id = $2)"
FIND_BY_ID = SELECT + "WHERE platform.id = $1 AND ($2::uuid IS NULL OR asset.install_id = $2)"

FITTING = """
    WHERE ($1::uuid IS NULL OR asset.install_id = $1)
      AND ($2::uuid IS NULL OR asset.task_uid = $2)
      AND ($3::uuid IS NULL OR asset.observation_uid = $3)
      AND ($4::uuid IS NULL OR asset.asset_uid IN (
          SELECT result_asset.asset_uid FROM skygw.result_asset WHERE result_asset.result_uid = $4))
      AND ($5::text IS NULL OR asset.role = $5)
      AND ($6::text IS NULL OR platform.transfer_state = $6)
      AND ($7::timestamptz IS NULL OR asset.declared_at > $7)
"""
LIST_PAGE = SELECT + FITTING + "ORDER BY asset.declared_at DESC, asset.asset_uid LIMIT $8 OFFSET $9"
COUNT = (
    "SELECT count(*) FROM skygw.asset JOIN observation_asset AS platform ON platform.uid = asset.asset_uid" + FITTING  # noqa: S608
)

LIST_ARRIVED = """
    SELECT asset.asset_uid, asset.install_id, asset.sha256, asset.size, asset.upload_uid, asset.content_type,
           asset.arrived_at, content.examined_at IS NOT NULL AS examined, content.problem
    FROM skygw.asset
    LEFT JOIN skygw.content ON content.sha256 = asset.sha256 AND content.size = asset.size
    WHERE asset.arrived_at IS NOT NULL AND asset.verified_at IS NULL AND asset.failure IS NULL
      AND ($1::timestamptz IS NULL OR (asset.arrived_at, asset.asset_uid) > ($1, $2::uuid))
    ORDER BY asset.arrived_at, asset.asset_uid
    LIMIT $3
"""

KEEP_CONTENT = """
    INSERT INTO skygw.content AS kept (sha256, size, examined_at, problem, wcs_box)
    VALUES ($1, $2, CASE WHEN $3 THEN clock_timestamp() END, $4, $5::jsonb)
    ON CONFLICT (sha256, size) DO UPDATE
        SET examined_at = excluded.examined_at, problem = excluded.problem, wcs_box = excluded.wcs_box
        WHERE excluded.examined_at IS NOT NULL AND kept.examined_at IS NULL
"""

# Ours first, then the platform's, then the results: in this order everybody locks them.
VERIFY = """
    WITH asset AS (
        UPDATE skygw.asset
        SET verified_at = clock_timestamp()
        WHERE asset_uid = $1 AND arrived_at IS NOT NULL AND verified_at IS NULL AND failure IS NULL
        RETURNING asset_uid
    ), told AS (
        UPDATE observation_asset AS platform
        SET transfer_state = 'completed', transfer_progress = 1, transfer_error = NULL, is_remote = false
        FROM asset
        WHERE platform.uid = asset.asset_uid
    )
    SELECT count(*) FROM asset
"""

REFUSE = """
    WITH asset AS (
        UPDATE skygw.asset
        SET failure = $2
        WHERE asset_uid = $1 AND arrived_at IS NOT NULL AND verified_at IS NULL AND failure IS NULL
        RETURNING asset_uid
    ), told AS (
        UPDATE observation_asset AS platform
        SET transfer_state = 'failed', transfer_error = $2
        FROM asset
        WHERE platform.uid = asset.asset_uid
    )
    SELECT count(*) FROM asset
"""

LOSE = """
    WITH asset AS (
        UPDATE skygw.asset
        SET arrived_at = NULL, upload_uid = NULL, failure = $2
        WHERE asset_uid = $1 AND verified_at IS NULL
        RETURNING asset_uid
    )
    UPDATE observation_asset AS platform
    SET transfer_state = 'failed', transfer_progress = NULL, transfer_error = $2
    FROM asset
    WHERE platform.uid = asset.asset_uid
"""

# With the assets it goes by held, as it wants.
FULFIL = "SELECT skygw.fulfil_results_with(ARRAY[$1::uuid])"


class PgAssets:
    """`AssetStore` and `ArrivedAssets` in PostgreSQL."""

    def __init__(self, database: Database, *, committed: Callable[[], None] | None = None) -> None:
        """`committed` is told that there may be more in the log, and must not wait."""
        self._database = database
        self._committed = committed

    async def declare(
        self,
        install_id: InstallId,
        telescopes: Collection[TelescopeUid],
        declaration: Declaration,
        upload: NewUpload,
        *,
        quota: Quota,
    ) -> Declared:
        refused: GatewayError | None = None
        declared: Declared | None = None
        async with self._database.transaction() as connection:
            try:
                uid, is_new = await _declare(connection, install_id, telescopes, declaration, upload, quota)
                declared = Declared(await _get(connection, uid), is_new)
            except GatewayError as error:
                refused = error  # it has changed nothing, and need not cost the connection
        if declared is None:
            raise refused or RuntimeError("an asset is neither declared nor refused")
        return declared

    async def find(self, id_or_uid: str, *, install_id: InstallId | None = None) -> Asset | None:
        query: str
        key: object
        if id_or_uid.isascii() and id_or_uid.isdigit() and len(id_or_uid) <= 10 and int(id_or_uid) <= LARGEST_ID:
            query, key = FIND_BY_ID, int(id_or_uid)
        else:
            try:
                query, key = FIND, UUID(id_or_uid)
            except ValueError:
                return None
        async with self._database.connection() as connection:
            row = await connection.fetchrow(query, key, install_id)
        return None if row is None else _asset(row)

    async def page(self, query: AssetQuery) -> tuple[Sequence[Asset], int]:
        fitting = (
            query.install_id,
            query.task_uid,
            query.observation_uid,
            query.result_uid,
            query.role,
            query.state,
            query.created_after,
        )
        async with self._database.connection() as connection:
            rows = await connection.fetch(LIST_PAGE, *fitting, query.size, (query.page - 1) * query.size)
            total = await connection.fetchval(COUNT, *fitting)
        return [_asset(row) for row in rows], total

    async def want(self, uid: AssetUid, upload: NewUpload, *, quota: Quota) -> Asset | None:
        refused: GatewayError | None = None
        async with self._database.transaction() as connection:
            await connection.execute(LOCK_INSTALLATION, upload.install_id)
            if await connection.fetchrow(LOCK_WANTED, uid) is not None:
                try:
                    await _want(connection, uid, upload, quota)
                except GatewayError as error:
                    refused = error
            row = await connection.fetchrow(FIND, uid, upload.install_id)
        if refused is not None:
            raise refused
        return None if row is None else _asset(row)

    async def arrived(self, *, after: Arrived | None, limit: int) -> Sequence[Arrived]:
        behind = (None, None) if after is None else (after.arrived_at, after.uid)
        async with self._database.connection() as connection:
            rows = await connection.fetch(LIST_ARRIVED, *behind, limit)
        return [_arrived(row) for row in rows]

    async def settle(self, asset: Arrived, finding: FitsFinding | None) -> bool:
        async with self._database.transaction() as connection:
            problem = None if finding is None else finding.problem
            box = None if finding is None or finding.box is None else finding.box
            await connection.execute(
                KEEP_CONTENT,
                asset.content.sha256,
                asset.content.size,
                finding is not None,
                problem,
                None if box is None else json.dumps({"center": box.center, "corners": box.corners}),
            )
            if problem is not None:
                settled = bool(await connection.fetchval(REFUSE, asset.uid, problem))
            else:
                settled = bool(await connection.fetchval(VERIFY, asset.uid))
                if settled:
                    await connection.execute(FULFIL, asset.uid)
        if settled and self._committed is not None:
            self._committed()
        return settled

    async def lost(self, asset: Arrived, reason: str) -> None:
        async with self._database.connection() as connection:
            await connection.execute(LOSE, asset.uid, reason)


async def _declare(
    connection: Connection,
    install_id: InstallId,
    telescopes: Collection[TelescopeUid],
    asked: Declaration,
    upload: NewUpload,
    quota: Quota,
) -> tuple[AssetUid, bool]:
    """Refuses before it changes anything."""
    observation_id, instrument_id = await _place(connection, telescopes, asked)
    await connection.execute(LOCK_INSTALLATION, install_id)
    content = (install_id, asked.sha256, asked.size)
    there = await connection.fetchrow(
        FIND_DECLARED,
        *content,
        asked.observation_uid,
        asked.instrument_uid,
        asked.role,
        asked.file_name,
        asked.task_uid,
    )
    uid = AssetUid(uuid4() if there is None else there["asset_uid"])
    if there is not None:
        _check_same(there, asked)
        if there["arrived"]:
            return uid, False
    elif (size := await connection.fetchval(OTHER_SIZE, *content)) is not None:
        raise IdReused(f"What has this SHA-256 has {size} bytes, and not {asked.size}.", details={"differs": ["size"]})
    held = await connection.fetchrow(FIND_HELD, *content)
    sent = None if held is not None else await connection.fetchrow(FIND_SENT_BEFORE, *content)
    is_open = await connection.fetchrow(KEEP_OPEN, uid, upload.expires_at) is not None
    wanted = held is None and sent is None and not asked.is_remote
    if wanted and not is_open:
        await check_quota(connection, upload, quota)
    if there is None:
        await connection.execute(
            INSERT,
            uid,
            install_id,
            asked.task_uid,
            asked.observation_uid,
            asked.instrument_uid,
            asked.role,
            asked.file_name,
            asked.content_type,
            asked.size,
            asked.sha256,
            observation_id,
            instrument_id,
            asked.is_remote,
        )
    if held is not None:
        await connection.execute(ARRIVE, uid, held["upload_uid"])
    elif sent is not None:
        await connection.execute(NAME_UPLOAD, sent["upload_uid"], uid)
        await connection.execute(ARRIVE, uid, sent["upload_uid"])
    elif wanted:
        await connection.execute(WANT, uid)
        if not is_open:
            await open_upload(connection, upload, asset_uid=uid)
    return uid, there is None


async def _want(connection: Connection, uid: AssetUid, upload: NewUpload, quota: Quota) -> None:
    if await connection.fetchrow(KEEP_OPEN, uid, upload.expires_at) is None:
        await check_quota(connection, upload, quota)
        await open_upload(connection, upload, asset_uid=uid)
    await connection.execute(WANT, uid)


async def _place(connection: Connection, telescopes: Collection[TelescopeUid], asked: Declaration) -> tuple[int, int]:
    """The platform's keys of the observation and the instrument. Raises `NotFound`, `Invalid`."""
    row = await connection.fetchrow(
        PLACE, list(telescopes), asked.instrument_uid, asked.observation_uid, asked.task_uid
    )
    if row is None:
        raise RuntimeError("a place is always a row")
    for name, there, wanted in (
        ("instrument", row["instrument_id"], asked.instrument_uid),
        ("task", row["task_id"] if asked.task_uid is not None else 0, asked.task_uid),
        ("observation", row["observation_id"], asked.observation_uid),
    ):
        if there is None:
            raise NotFound(f"No {name} of this installation has the uid {wanted}.")
    for name, of_task, told in (
        ("observation", row["task_observation_id"], row["observation_id"]),
        ("instrument", row["task_instrument_id"], row["instrument_id"]),
    ):
        if of_task is not None and of_task != told:
            message = f"The task is of another {name}."
            raise Invalid(message, fields=[{"type": "value_error", "loc": ["body", f"{name}Uid"], "msg": message}])
    return row["observation_id"], row["instrument_id"]


def _check_same(there: asyncpg.Record, asked: Declaration) -> None:
    differs = []
    if there["content_type"] != asked.content_type:
        differs.append("contentType")
    if asked.is_remote and not there["is_remote"] and not there["arrived"]:
        differs.append("isRemote")
    if differs:
        raise IdReused(
            f"This file was declared already, with another {' and '.join(differs)}.",
            details={"assetUid": str(there["asset_uid"]), "differs": differs},
        )


async def _get(connection: Connection, uid: AssetUid) -> Asset:
    row = await connection.fetchrow(FIND, uid, None)
    if row is None:
        raise NotFound(f"The asset {uid} is no longer there.")
    return _asset(row)


def _asset(row: asyncpg.Record) -> Asset:
    box: Any = None if row["wcs_box"] is None else json.loads(row["wcs_box"])
    return Asset(
        id=row["id"],
        uid=AssetUid(row["asset_uid"]),
        install_id=InstallId(row["install_id"]),
        telescope_uid=None if row["telescope_uid"] is None else TelescopeUid(row["telescope_uid"]),
        declared=Declaration(
            observation_uid=row["observation_uid"],
            instrument_uid=row["instrument_uid"],
            role=AssetRole(row["role"]),
            file_name=row["file_name"],
            size=row["size"],
            sha256=row["sha256"],
            content_type=row["content_type"],
            task_uid=None if row["task_uid"] is None else TaskUid(row["task_uid"]),
            is_remote=row["is_remote"],
        ),
        result_uids=row["result_uids"],
        state=TransferState(row["transfer_state"]),
        progress=row["transfer_progress"],
        error=row["transfer_error"],
        last_attempt=row["last_transfer_attempt"],
        declared_at=row["declared_at"],
        arrived_at=row["arrived_at"],
        verified_at=row["verified_at"],
        stored=row["stored"],
        box=box,
        upload=None if row["open.upload_uid"] is None else upload_of(row, prefix="open."),
    )


def _arrived(row: asyncpg.Record) -> Arrived:
    return Arrived(
        uid=AssetUid(row["asset_uid"]),
        install_id=InstallId(row["install_id"]),
        content=ContentKey(row["sha256"], row["size"]),
        upload=None if row["upload_uid"] is None else UploadUid(row["upload_uid"]),
        must_be_fits=row["content_type"] in FITS_TYPES,
        arrived_at=row["arrived_at"],
        known=FitsFinding(row["problem"]) if row["examined"] else None,
    )
