"""Latest values in PostgreSQL, so that a gateway that begins anew knows what was said before; and the count of eras."""

from collections.abc import Collection, Sequence

import asyncpg

from skygw.database.pool import Database
from skygw.ids import InstallId
from skygw.protocol.streams import StreamName
from skygw.telemetry.kept_values import KeptValue

# Hours, so that a database restored from a backup does not give an era again: what subscribers hold of the lost ones
# would seem to be of the new one. At most a few more per hour fit as well.
NEXT_ERA = """
    UPDATE skygw.era
    SET era = greatest(era + 1, floor(extract(epoch FROM now()) / 3600)::bigint)
    RETURNING era
"""

PUT = """
    INSERT INTO skygw.retained_value AS kept (stream, uid, install_id, version, epoch, step, data, observed_at,
                                              received_at, heard_at, max_silence_s)
    SELECT stream, uid, install_id, version, epoch, step, data, observed_at,
           received_at, now() - make_interval(secs => age_s), max_silence_s
    FROM unnest($1::text[], $2::uuid[], $3::uuid[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[],
                $8::timestamptz[], $9::timestamptz[], $10::double precision[], $11::double precision[])
        AS said (stream, uid, install_id, version, epoch, step, data, observed_at, received_at, age_s, max_silence_s)
    ON CONFLICT (stream, uid) DO UPDATE
        SET install_id = excluded.install_id,
            version = excluded.version,
            epoch = excluded.epoch,
            step = excluded.step,
            data = excluded.data,
            observed_at = excluded.observed_at,
            received_at = excluded.received_at,
            heard_at = excluded.heard_at,
            max_silence_s = excluded.max_silence_s
        WHERE (kept.version, kept.epoch, kept.step) < (excluded.version, excluded.epoch, excluded.step)
"""

LIST_INSTALLATIONS = "SELECT DISTINCT install_id FROM skygw.retained_value"

FIND = """
    SELECT stream, uid, install_id, version, epoch, step, data, observed_at, received_at, max_silence_s,
           extract(epoch FROM now() - heard_at)::double precision AS age_s
    FROM skygw.retained_value
    WHERE install_id = ANY ($1::uuid[]) AND stream = ANY ($2::text[])
"""


async def next_era(database: Database) -> int:
    """The number of the run of a gateway that begins now, above all before it. Raises `RoutingUnavailable`."""
    async with database.connection() as connection:
        return int(await connection.fetchval(NEXT_ERA))


class PgRetainedValues:
    """`ValueStore` in PostgreSQL. Everything raises `RoutingUnavailable` when it cannot be asked, `StoreFailed` about
    the data if one of the rows cannot be kept.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, values: Collection[KeptValue]) -> None:
        """One statement. When cancelled it is not known whether it happened; it may be repeated."""
        async with self._database.connection() as connection:
            await connection.execute(
                PUT,
                [value.stream.value for value in values],
                [value.uid for value in values],
                [value.install_id for value in values],
                [value.version for value in values],
                [value.order[0] for value in values],
                [value.order[1] for value in values],
                [value.data for value in values],
                [value.observed_at for value in values],
                [value.received_at for value in values],
                [value.age_s for value in values],
                [value.max_silence_s for value in values],
            )

    async def installations(self) -> Sequence[InstallId]:
        async with self._database.connection() as connection:
            return [InstallId(row["install_id"]) for row in await connection.fetch(LIST_INSTALLATIONS)]

    async def of(self, install_ids: Collection[InstallId]) -> Sequence[KeptValue]:
        """A stream this version does not know is left where it is."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(FIND, list(install_ids), list(StreamName))
        return [_kept(row) for row in rows]


def _kept(row: asyncpg.Record) -> KeptValue:
    return KeptValue(
        stream=StreamName(row["stream"]),
        uid=row["uid"],
        install_id=InstallId(row["install_id"]),
        order=(row["epoch"], row["step"]),
        version=row["version"],
        data=row["data"],
        observed_at=row["observed_at"],
        received_at=row["received_at"],
        max_silence_s=row["max_silence_s"],
        age_s=row["age_s"],
    )
