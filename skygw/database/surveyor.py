"""Where telescopes, devices and installations stand, by the hub's records."""

from uuid import UUID

from skygw.control.allow_list import Surroundings
from skygw.database.pool import Connection, Database
from skygw.resources import ResourceKind

AROUND = """
    SELECT observatory.uid AS observatory_uid,
           ARRAY(SELECT telescope.uid
                 FROM telescope
                 WHERE telescope.observatory_id = place.observatory_id AND NOT telescope.is_deleted
                   AND (place.telescope_id IS NULL OR telescope.id = place.telescope_id)) AS telescopes
    FROM ({place}) AS place
    JOIN observatory ON observatory.id = place.observatory_id
"""
AROUND_TELESCOPE = AROUND.format(place="SELECT id AS telescope_id, observatory_id FROM telescope WHERE uid = $1")
AROUND_DEVICE = AROUND.format(place="SELECT telescope_id, observatory_id FROM device WHERE uid = $1")
AROUND_INSTALLATION = AROUND.format(
    place="SELECT telescope_id, observatory_id FROM sky_node_installation WHERE uid = $1"
)

LIST_UNKNOWN = """
    SELECT listed.uid
    FROM unnest($1::uuid[]) AS listed (uid)
    WHERE NOT EXISTS (SELECT FROM telescope WHERE telescope.uid = listed.uid AND NOT telescope.is_deleted)
      AND NOT EXISTS (SELECT FROM observatory WHERE observatory.uid = listed.uid AND NOT observatory.is_deleted)
    ORDER BY listed.uid
"""


class PgSurveyor:
    """`Surveyor` in PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def around(self, kind: ResourceKind, uid: UUID) -> Surroundings | None:
        match kind:
            case ResourceKind.TELESCOPE:
                query = AROUND_TELESCOPE
            case ResourceKind.DEVICE:
                query = AROUND_DEVICE
            case _:
                query = AROUND_INSTALLATION
        async with self._database.connection() as connection:
            row = await connection.fetchrow(query, uid)
        return None if row is None else Surroundings(row["observatory_uid"], frozenset(row["telescopes"]))


async def unknown_among(connection: Connection, uids: list[UUID]) -> list[UUID]:
    """Which of these are neither a telescope nor an observatory."""
    return [row["uid"] for row in await connection.fetch(LIST_UNKNOWN, uids)]
