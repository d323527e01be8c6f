"""The order of sockets: each claim by an installation gets a higher epoch, whatever was restored from a backup."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from uuid import UUID

import asyncpg

from skygw.database.pool import Database
from skygw.database.together import Together
from skygw.ids import Epoch, InstallId, InstanceUid, RegistryUid
from skygw.nodes.ports import Claim

CLAIM = """
    WITH known_fences AS (
        INSERT INTO skygw.fence (resource_uid, fence)
        SELECT resource_uid, fence FROM unnest($4::uuid[], $5::bigint[]) AS known (resource_uid, fence)
        ON CONFLICT (resource_uid) DO UPDATE SET fence = greatest(skygw.fence.fence, excluded.fence)
    )
    INSERT INTO skygw.node_session AS session (install_id, epoch, instance_uid, claimed_at)
    VALUES ($1, least($3::bigint, $6::bigint) + 1, $2, now())
    ON CONFLICT (install_id) DO UPDATE
        SET epoch = greatest(session.epoch, least($3::bigint, session.epoch + $6::bigint)) + 1,
            instance_uid = excluded.instance_uid,
            claimed_at = excluded.claimed_at
    RETURNING epoch, (SELECT registry_uid FROM skygw.registry) AS registry_uid
"""

# CLAIM for several installations, that never waits for a lock of somebody else: whoever is left out claims alone. Left
# out is whose row is locked, and who knows of a fence that the ledger has yet to be lifted to.
CLAIM_TOGETHER = """
    WITH ahead AS (
        SELECT known.install_id
        FROM unnest($4::uuid[], $5::uuid[], $6::bigint[]) AS known (install_id, resource_uid, fence)
        LEFT JOIN skygw.fence AS kept ON kept.resource_uid = known.resource_uid
        WHERE kept.fence IS NULL OR kept.fence < known.fence
    ), asked AS (
        SELECT install_id, instance_uid, last_epoch
        FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS all_asked (install_id, instance_uid, last_epoch)
        WHERE NOT EXISTS (SELECT FROM ahead WHERE ahead.install_id = all_asked.install_id)
    ), held AS (
        SELECT install_id, epoch
        FROM skygw.node_session
        WHERE install_id IN (SELECT install_id FROM asked)
        FOR UPDATE SKIP LOCKED
    )
    INSERT INTO skygw.node_session AS session (install_id, epoch, instance_uid, claimed_at)
    SELECT asked.install_id,
           greatest(coalesce(held.epoch, 0), least(asked.last_epoch, coalesce(held.epoch, 0) + $7::bigint)) + 1,
           asked.instance_uid,
           now()
    FROM asked
    LEFT JOIN held ON held.install_id = asked.install_id
    WHERE held.install_id IS NOT NULL
       OR NOT EXISTS (SELECT FROM skygw.node_session AS known WHERE known.install_id = asked.install_id)
    ORDER BY asked.install_id
    ON CONFLICT (install_id) DO UPDATE
        SET epoch = excluded.epoch, instance_uid = excluded.instance_uid, claimed_at = excluded.claimed_at
        WHERE session.epoch < excluded.epoch
    RETURNING install_id, epoch, (SELECT registry_uid FROM skygw.registry) AS registry_uid
"""

TRANSFER = """
    INSERT INTO skygw.node_session (install_id, epoch, instance_uid, claimed_at)
    VALUES ($1, 0, $2, now())
    ON CONFLICT (install_id) DO UPDATE SET instance_uid = excluded.instance_uid
"""

LARGEST_LEAP = 2**32
"""How far a node's own memory may lift the ledger in one claim. A ledger restored from a backup is behind by the
connects since then; a stolen token that claims 2**52 must not use the numbers up for the real node.
"""


@dataclass(frozen=True, slots=True)
class _Wish:
    install_id: InstallId
    instance_uid: InstanceUid
    last_epoch: int
    last_fences: Mapping[UUID, int]


class NodeSessions:
    """Epochs and fences in PostgreSQL. Everything raises `RoutingUnavailable` when it cannot be asked."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._claims = Together[InstallId, _Wish, Claim](self._claim_together)

    async def claim(
        self,
        *,
        install_id: InstallId,
        instance_uid: InstanceUid,
        last_epoch: int,
        last_fences: Mapping[UUID, int],
    ) -> Claim:
        """A new epoch, above the ledger's and the node's own. Claims that come at the same time are made together; no
        two get the same epoch.

        Fences rise to what the node remembers: the caller passes only those of what the installation controls.
        Cancelling may use an epoch up; the next claim is above it.
        """
        wish = _Wish(install_id, instance_uid, last_epoch, last_fences)
        return await self._claims.ask(install_id, wish, partial(self._claim_alone, wish))

    async def _claim_together(self, wishes: Sequence[_Wish]) -> dict[InstallId, Claim]:
        fences = [(wish.install_id, uid, fence) for wish in wishes for uid, fence in wish.last_fences.items()]
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                CLAIM_TOGETHER,
                [wish.install_id for wish in wishes],
                [wish.instance_uid for wish in wishes],
                [wish.last_epoch for wish in wishes],
                [install_id for install_id, _, _ in fences],
                [resource_uid for _, resource_uid, _ in fences],
                [fence for _, _, fence in fences],
                LARGEST_LEAP,
            )
        return {InstallId(row["install_id"]): _claim(row) for row in rows}

    async def _claim_alone(self, wish: _Wish) -> Claim:
        # In one order everywhere, or two claims that share resources could lock each other out.
        fences = sorted(wish.last_fences.items())
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                CLAIM,
                wish.install_id,
                wish.instance_uid,
                wish.last_epoch,
                [resource_uid for resource_uid, _ in fences],
                [fence for _, fence in fences],
                LARGEST_LEAP,
            )
        if row is None:
            raise RuntimeError("an upsert returned no row")
        return _claim(row)

    async def transfer(self, install_id: InstallId, instance_uid: InstanceUid) -> None:
        """Write down which machine an installation belongs to from now on, before it has come."""
        async with self._database.connection() as connection:
            await connection.execute(TRANSFER, install_id, instance_uid)


def _claim(row: asyncpg.Record) -> Claim:
    return Claim(epoch=Epoch(row["epoch"]), registry_uid=RegistryUid(row["registry_uid"]))
