"""The order of sockets: each claim by an installation gets a higher epoch, whatever was restored from a backup."""

from collections.abc import Mapping
from uuid import UUID

from skygw.database.pool import Database
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

TRANSFER = """
    INSERT INTO skygw.node_session (install_id, epoch, instance_uid, claimed_at)
    VALUES ($1, 0, $2, now())
    ON CONFLICT (install_id) DO UPDATE SET instance_uid = excluded.instance_uid
"""

LARGEST_LEAP = 2**32
"""How far a node's own memory may lift the ledger in one claim. A ledger restored from a backup is behind by the
connects since then; a stolen token that claims 2**52 must not use the numbers up for the real node.
"""


class NodeSessions:
    """Epochs and fences in PostgreSQL. Everything raises `RoutingUnavailable` when it cannot be asked."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(
        self,
        *,
        install_id: InstallId,
        instance_uid: InstanceUid,
        last_epoch: int,
        last_fences: Mapping[UUID, int],
    ) -> Claim:
        """A new epoch, above the ledger's and the node's own; one statement, so that no two claims get the same.

        Fences rise to what the node remembers: the caller passes only those of what the installation controls.
        Cancelling may use an epoch up; the next claim is above it.
        """
        # In one order everywhere, or two claims that share resources could lock each other out.
        fences = sorted(last_fences.items())
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                CLAIM,
                install_id,
                instance_uid,
                last_epoch,
                [resource_uid for resource_uid, _ in fences],
                [fence for _, fence in fences],
                LARGEST_LEAP,
            )
        if row is None:
            raise RuntimeError("an upsert returned no row")
        return Claim(epoch=Epoch(row["epoch"]), registry_uid=RegistryUid(row["registry_uid"]))

    async def transfer(self, install_id: InstallId, instance_uid: InstanceUid) -> None:
        """Write down which machine an installation belongs to from now on, before it has come."""
        async with self._database.connection() as connection:
            await connection.execute(TRANSFER, install_id, instance_uid)
