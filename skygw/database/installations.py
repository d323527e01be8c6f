"""The installations as the hub's records say: who they are, whether they may be here, what they control."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID

import asyncpg

from skygw.database.pool import Database
from skygw.database.together import Together
from skygw.ids import DeviceUid, InstallId, TelescopeUid
from skygw.nodes.ports import Binding
from skygw.protocol.node_frames import NodeType
from skygw.resources import Resource, ResourceKind

# A telescope's node controls the telescope and what belongs to it; an observatory's node what no telescope owns. `OR`,
# and not `CASE`: the indexes serve it.
SELECT_INSTALLATIONS = """
    SELECT installation.id,
           installation.uid AS install_id,
           installation.name,
           installation.client_id,
           installation.node_type,
           telescope.uid AS telescope_uid,
           observatory.uid AS observatory_uid,
           installation.is_active,
           installation.is_deleted,
           installation.revoked_on IS NOT NULL AS revoked,
           owned.uids AS device_uids,
           owned.types AS device_types,
           carried.uids AS instrument_uids,
           carried.parts AS instrument_parts,
           watched.uids AS constraint_uids
    FROM sky_node_installation AS installation
    JOIN observatory ON observatory.id = installation.observatory_id
    LEFT JOIN telescope ON telescope.id = installation.telescope_id AND NOT telescope.is_deleted
    LEFT JOIN LATERAL (
        SELECT array_agg(device.uid ORDER BY device.id) AS uids,
               array_agg(device.device_type ORDER BY device.id) AS types
        FROM device
        WHERE NOT device.is_deleted
          AND (installation.node_type = 'telescope' AND device.telescope_id = telescope.id
               OR installation.node_type = 'observatory'
                  AND device.telescope_id IS NULL AND device.observatory_id = installation.observatory_id)
    ) AS owned ON true
    LEFT JOIN LATERAL (
        SELECT array_agg(instrument.uid ORDER BY instrument.id, part.id) AS uids,
               array_agg(part.uid ORDER BY instrument.id, part.id) AS parts
        FROM instrument
        LEFT JOIN instrument_device ON instrument_device.instrument_id = instrument.id
        LEFT JOIN device AS part ON part.id = instrument_device.device_id AND NOT part.is_deleted
        WHERE NOT instrument.is_deleted AND instrument.telescope_id = telescope.id
    ) AS carried ON true
    LEFT JOIN LATERAL (
        SELECT array_agg(watch.uid ORDER BY watch.id) AS uids
        FROM operational_constraint AS watch
        WHERE NOT watch.is_deleted
          AND (installation.node_type = 'telescope' AND watch.telescope_id = telescope.id
               OR installation.node_type = 'observatory'
                  AND watch.telescope_id IS NULL AND watch.observatory_id = installation.observatory_id)
    ) AS watched ON true
"""

FIND = SELECT_INSTALLATIONS + "WHERE installation.uid = $1"
FIND_TOGETHER = SELECT_INSTALLATIONS + "WHERE installation.uid = ANY ($1::uuid[])"
FIND_BY_ID = SELECT_INSTALLATIONS + "WHERE installation.id = $1"
FIND_BY_CLIENT_ID = SELECT_INSTALLATIONS + "WHERE installation.client_id = $1"

LIST_REFUSED = """
    SELECT connected.uid
    FROM unnest($1::uuid[]) AS connected (uid)
    LEFT JOIN sky_node_installation AS installation ON installation.uid = connected.uid
    WHERE installation.id IS NULL
       OR NOT installation.is_active
       OR installation.is_deleted
       OR installation.revoked_on IS NOT NULL
"""

LIST_PAGE = (
    SELECT_INSTALLATIONS
    + """
    WHERE ($1 OR NOT installation.is_deleted)
      AND ($2::uuid IS NULL OR observatory.uid = $2)
    ORDER BY installation.id
    LIMIT $3 OFFSET $4
"""
)

COUNT = """
    SELECT count(*)
    FROM sky_node_installation AS installation
    JOIN observatory ON observatory.id = installation.observatory_id
    WHERE ($1 OR NOT installation.is_deleted)
      AND ($2::uuid IS NULL OR observatory.uid = $2)
"""

# Where two may be here, the newer record is meant.
FIND_CONTROLLER_OF_TELESCOPE = """
    SELECT installation.uid
    FROM sky_node_installation AS installation
    JOIN telescope ON telescope.id = installation.telescope_id
    WHERE telescope.uid = $1
      AND NOT telescope.is_deleted
      AND installation.is_active AND NOT installation.is_deleted AND installation.revoked_on IS NULL
    ORDER BY installation.id DESC
    LIMIT 1
"""

FIND_CONTROLLER_OF_DEVICE = """
    SELECT installation.uid
    FROM device
    JOIN sky_node_installation AS installation
        ON installation.telescope_id = device.telescope_id
        OR (device.telescope_id IS NULL
            AND installation.node_type = 'observatory'
            AND installation.observatory_id = device.observatory_id)
    LEFT JOIN telescope ON telescope.id = device.telescope_id
    WHERE device.uid = $1
      AND NOT device.is_deleted
      AND telescope.is_deleted IS NOT TRUE
      AND installation.is_active AND NOT installation.is_deleted AND installation.revoked_on IS NULL
    ORDER BY installation.id DESC
    LIMIT 1
"""

LARGEST_ID = 2**31 - 1
"""The platform's integer keys."""


@dataclass(frozen=True, slots=True)
class Installation:
    """One `SkyNodeInstallation` with what it controls. `id` is the platform's integer key."""

    id: int
    install_id: InstallId
    name: str
    client_id: str | None
    node_type: NodeType
    telescope_uid: TelescopeUid | None
    observatory_uid: UUID
    is_active: bool
    is_deleted: bool
    revoked: bool
    telescopes: tuple[TelescopeUid, ...]
    devices: tuple[tuple[DeviceUid, str], ...]
    """Each with its device type."""
    instruments: tuple[tuple[UUID, tuple[UUID, ...]], ...] = ()
    """Each with the devices it is made of."""
    constraints: tuple[UUID, ...] = ()

    @property
    def refusal(self) -> str | None:
        """Why its node may not be here whatever its token says, as a sentence."""
        if self.is_deleted:
            return "This installation is deleted."
        if self.revoked:
            return "This installation's access is revoked."
        if not self.is_active:
            return "This installation is inactive."
        return None

    @property
    def binding(self) -> Binding:
        """As its session wants it."""
        return Binding(
            install_id=self.install_id,
            name=self.name,
            node_type=self.node_type,
            observatory_uid=self.observatory_uid,
            telescopes=frozenset(self.telescopes),
            devices=frozenset(uid for uid, _ in self.devices),
            resources={resource.uid: resource for resource in self._resources()},
        )

    def _resources(self) -> Iterator[Resource]:
        """What the gateway takes this installation's word about."""

        def one(uid: UUID, kind: ResourceKind) -> Resource:
            return Resource(uid, kind, self.install_id, self.observatory_uid, self.telescope_uid)

        if self.node_type is NodeType.OBSERVATORY:
            yield one(self.observatory_uid, ResourceKind.OBSERVATORY)
        for telescope_uid in self.telescopes:
            yield one(telescope_uid, ResourceKind.TELESCOPE)
        for device_uid, device_type in self.devices:
            yield replace(one(device_uid, ResourceKind.DEVICE), device_type=device_type)
        for instrument_uid, parts in self.instruments:
            yield replace(one(instrument_uid, ResourceKind.INSTRUMENT), parts=parts)
        for constraint_uid in self.constraints:
            yield one(constraint_uid, ResourceKind.CONSTRAINT)


class Installations:
    """The hub's records, read only. Everything raises `RoutingUnavailable` when they cannot be asked."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._findings = Together[InstallId, InstallId, Installation | None](self._find_together)

    async def find(self, install_id: InstallId) -> Installation | None:
        """The installation of this uid, also if it is deleted or revoked: see `refusal`. Those who ask at the same time
        ask together; the answer is read after the question, as if one had asked alone.
        """
        return await self._findings.ask(install_id, install_id, partial(self._find, FIND, install_id))

    async def by_client_id(self, client_id: str) -> InstallId | None:
        """The installation an OAuth client belongs to."""
        if "\0" in client_id:  # PostgreSQL has no such text
            return None
        found = await self._find(FIND_BY_CLIENT_ID, client_id)
        return None if found is None else found.install_id

    async def find_by_any(self, id_or_uid: str) -> Installation | None:
        """By the platform's integer key or by uid, as a path has it; None for anything else."""
        if id_or_uid.isascii() and id_or_uid.isdecimal():
            key = int(id_or_uid[:20])
            return await self._find(FIND_BY_ID, key) if key <= LARGEST_ID else None
        try:
            uid = UUID(id_or_uid)
        except ValueError:
            return None
        return await self._find(FIND, uid)

    async def refused_among(self, install_ids: Collection[InstallId]) -> set[InstallId]:
        """Which of these may not be here any more: inactive, deleted, revoked or gone. One query for all."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(LIST_REFUSED, list(install_ids))
        return {InstallId(row["uid"]) for row in rows}

    async def list_page(
        self, *, page: int, size: int, include_deleted: bool = False, observatory_uid: UUID | None = None
    ) -> tuple[Sequence[Installation], int]:
        """A page (from 1) in the order they were made, and how many there are in all."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(LIST_PAGE, include_deleted, observatory_uid, size, (page - 1) * size)
            total = await connection.fetchval(COUNT, include_deleted, observatory_uid)
        return [_installation(row) for row in rows], int(total)

    async def bindings(self, install_ids: Collection[InstallId]) -> dict[InstallId, Binding]:
        """Of those among these that there are and that are not deleted. One query for all."""
        found = await self._find_together(list(install_ids))
        return {
            install_id: installation.binding
            for install_id, installation in found.items()
            if installation is not None and not installation.is_deleted
        }

    async def controller_of(
        self, *, telescope_uid: TelescopeUid | None, device_uid: DeviceUid | None
    ) -> InstallId | None:
        """The installation a command for this device, or else for this telescope, goes to."""
        async with self._database.connection() as connection:
            if device_uid is not None:
                found = await connection.fetchval(FIND_CONTROLLER_OF_DEVICE, device_uid)
            else:
                found = await connection.fetchval(FIND_CONTROLLER_OF_TELESCOPE, telescope_uid)
        return None if found is None else InstallId(found)

    async def _find_together(self, install_ids: Sequence[InstallId]) -> dict[InstallId, Installation | None]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(FIND_TOGETHER, install_ids)
        found = {InstallId(row["install_id"]): _installation(row) for row in rows}
        return {install_id: found.get(install_id) for install_id in install_ids}

    async def _find(self, query: str, key: object) -> Installation | None:
        async with self._database.connection() as connection:
            row = await connection.fetchrow(query, key)
        return None if row is None else _installation(row)


def _installation(row: asyncpg.Record) -> Installation:
    telescope_uid = None if row["telescope_uid"] is None else TelescopeUid(row["telescope_uid"])
    parts: dict[UUID, list[UUID]] = {}
    for instrument_uid, part in zip(row["instrument_uids"] or (), row["instrument_parts"] or (), strict=True):
        parts.setdefault(instrument_uid, []).extend(() if part is None else (part,))
    return Installation(
        id=row["id"],
        install_id=InstallId(row["install_id"]),
        name=row["name"],
        client_id=row["client_id"],
        node_type=NodeType(row["node_type"]),
        telescope_uid=telescope_uid,
        observatory_uid=row["observatory_uid"],
        is_active=row["is_active"],
        is_deleted=row["is_deleted"],
        revoked=row["revoked"],
        telescopes=() if telescope_uid is None else (telescope_uid,),
        devices=tuple(
            (DeviceUid(uid), device_type)
            for uid, device_type in zip(row["device_uids"] or (), row["device_types"] or (), strict=True)
        ),
        instruments=tuple((uid, tuple(of_it)) for uid, of_it in parts.items()),
        constraints=tuple(row["constraint_uids"] or ()),
    )
