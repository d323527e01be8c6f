"""The log of events read from PostgreSQL: behind its head for those who listen, page by page for those who resume."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg
import trio

from skygw.database.pool import Database
from skygw.ids import InstallId
from skygw.protocol.streams import StreamFilter, StreamName
from skygw.telemetry.log import PAGE, PAGE_BYTES, LogEvent, LogKind

GAP = "*"
"""In front of a stream's name: a gap in it. Alone: a gap in all streams of its node."""

FEWEST = 8
"""Rows a lookup may bring, when there are very many lookups in one page."""

REPLAYS_AT_ONCE = 2
"""Pages read at once. A page of a thousand devices can take a second or two: a socket may ask for hundreds, which would
take every connection there is, and each other's time until none is done within a statement's limit.
"""

HEAD = "SELECT position FROM skygw.log_head"
LIFT = """
    WITH head AS (
        UPDATE skygw.log_head SET position = $1 WHERE position < $1 RETURNING position, clock_timestamp() AS received_at
    )
    INSERT INTO skygw.log (position, stream, received_at, data) SELECT position, '*', received_at, '{}' FROM head
"""
FLOOR = "SELECT dropped_through FROM skygw.log_head"

COLUMNS = (
    "position, stream, install_id, observatory_uid, telescope_uid, device_uid, observed_at, received_at, "
    "data, missing, nacked"
)

# The row that goes beyond `$2` bytes is the last but not left out, so that a page is never empty by its bytes.
WITHIN_BYTES = (
    f"SELECT {COLUMNS} FROM ("  # noqa: S608 -- names of ours
    "SELECT *, sum(octet_length(data)) OVER (ORDER BY position) - octet_length(data) AS bytes_before FROM found"
    ") AS sized WHERE bytes_before < $2 ORDER BY position"
)

TAIL = (
    f"WITH found AS (SELECT {COLUMNS} FROM skygw.log WHERE position > $3 ORDER BY position LIMIT $1) "  # noqa: S608
    + WITHIN_BYTES
)

# Each lookup reads one index in order and stops after `$5` rows. What lies behind the last row of a lookup that may
# have more waits for the next page: nothing is passed over, and a page costs no more than its lookups.
PAGE_OF = """
    WITH looked_up AS MATERIALIZED ({lookups}), found AS (
        SELECT *
        FROM looked_up
        WHERE position <= coalesce((SELECT min(position) FROM looked_up WHERE nth = $5), $4)
        ORDER BY position
        LIMIT $1
    )
"""

# What an index is made of is compared as one, so that no plan, whatever it expects, reads another index and leaves out
# nearly all it finds there.
LOOKUP = """
    SELECT hit.*
    FROM {wanted}
    CROSS JOIN LATERAL (
        SELECT {columns}, row_number() OVER (ORDER BY {key}) AS nth
        FROM skygw.log
        WHERE ({key}) > ({sought}, $3::bigint) AND ({key}) <= ({sought}, $4::bigint) {conditions}
        ORDER BY {key}
        LIMIT $5
    ) AS hit
"""

FIND_DEVICES = """
    SELECT telescope.uid AS telescope_uid, observatory.uid AS observatory_uid
    FROM device
    JOIN observatory ON observatory.id = device.observatory_id
    LEFT JOIN telescope ON telescope.id = device.telescope_id
    WHERE device.uid = ANY ($1::uuid[])
"""


@dataclass(slots=True)
class _Lookups:
    """The lookups of one page with their arguments, which begin behind the five of the page."""

    arguments: list[object] = field(default_factory=list)
    selects: list[str] = field(default_factory=list)
    count: int = 0

    def argument(self, value: object) -> str:
        self.arguments.append(value)
        return f"${5 + len(self.arguments)}"

    def among(self, column: str, values: Sequence[UUID]) -> str:
        return f"{column} = ANY ({self.argument(values)}::uuid[])"

    def add(self, streams: Sequence[str], column: str | None, values: Sequence[UUID], *also: str) -> None:
        """One lookup for each value of the column in each of the streams; without a column, for each stream."""
        wanted = f"unnest({self.argument(streams)}::text[]) AS named (stream)"
        key, sought, conditions = "log.stream, log.position", "named.stream", [*also]
        self.count += len(streams) * (1 if column is None else len(values))
        if column is not None:
            wanted += f" CROSS JOIN unnest({self.argument(values)}::uuid[]) AS wanted (uid)"
            key, sought = f"log.{column}, {key}", f"wanted.uid, {sought}"
            conditions.append(f"log.{column} IS NOT NULL")  # as the index says
        self.selects.append(
            LOOKUP.format(
                wanted=wanted,
                columns=COLUMNS,
                key=key,
                sought=sought,
                conditions="".join(f" AND {condition}" for condition in conditions),
            )
        )


class PgEventLog:
    """`telemetry.log.EventLog` in PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._replays = trio.Semaphore(REPLAYS_AT_ONCE)

    async def head(self) -> int:
        """The position of the last committed event, 0 before the first."""
        async with self._database.connection() as connection:
            return int(await connection.fetchval(HEAD))

    async def lift(self, position: int) -> None:
        """Lets the next event have a position above this one, and appends a gap of nobody's at it."""
        async with self._database.connection() as connection:
            await connection.execute(LIFT, position)

    async def floor(self) -> int:
        """Everything up to this position is no longer kept."""
        async with self._database.connection() as connection:
            return int(await connection.fetchval(FLOOR))

    async def tail(self, after: int, *, limit: int = PAGE, max_bytes: int = PAGE_BYTES) -> Sequence[LogEvent]:
        """The next committed events of all streams, in order."""
        async with self._database.connection() as connection:
            return [_event(row) for row in await connection.fetch(TAIL, limit, max_bytes, after)]

    async def page(
        self,
        stream: StreamName,
        after: int,
        *,
        upto: int,
        wanted: StreamFilter,
        limit: int = PAGE,
        max_bytes: int = PAGE_BYTES,
    ) -> Sequence[LogEvent]:
        """The next events of one stream that fit the filter, and the gaps of the nodes it speaks of. May be fewer than
        `limit`; none when there are no more.

        With a filter by device these are the gaps of the node that has the device by the hub's records of today. Waits
        for its turn among `REPLAYS_AT_ONCE`.
        """
        async with self._replays, self._database.connection() as connection:
            devices = await connection.fetch(FIND_DEVICES, wanted.device_uid) if wanted.device_uid else []
            lookups = _lookups(stream, wanted, devices)
            each = max(FEWEST, min(limit, 4 * limit // max(1, lookups.count)))
            query = PAGE_OF.format(lookups=" UNION ALL ".join(lookups.selects)) + WITHIN_BYTES
            rows = await connection.fetch(query, limit, max_bytes, after, upto, each, *lookups.arguments)
        return [_event(row) for row in rows]


def _lookups(stream: StreamName, wanted: StreamFilter, devices: Sequence[asyncpg.Record]) -> _Lookups:
    """By the key that says most; the others are looked at in what it finds. `devices` are those of the filter: the
    nodes where they are tell of gaps without a device.
    """
    lookups = _Lookups()
    gaps = [GAP, GAP + stream]
    keys = {
        column: list(set(values))
        for column, values in (
            ("device_uid", wanted.device_uid),
            ("telescope_uid", wanted.telescope_uid),
            ("install_id", wanted.install_id),
            ("observatory_uid", wanted.observatory_uid),
        )
        if values is not None
    }
    if not keys:
        lookups.add([stream, *gaps], None, ())
        return lookups
    first, *others = keys
    also = [lookups.among(column, keys[column]) for column in others]
    lookups.add([stream, *gaps], first, keys[first], *also)
    lookups.add([GAP], None, (), "install_id IS NULL")
    if devices:
        telescopes = {device["telescope_uid"] for device in devices if device["telescope_uid"] is not None}
        lookups.add(gaps, "telescope_uid", list(telescopes), "device_uid IS NULL", *also)
        sharing = {device["observatory_uid"] for device in devices if device["telescope_uid"] is None}
        of_shared = ("device_uid IS NULL", "telescope_uid IS NULL")
        lookups.add(gaps, "observatory_uid", list(sharing), *of_shared, *also)
    return lookups


def _event(row: asyncpg.Record) -> LogEvent:
    name = row["stream"].removeprefix(GAP)
    return LogEvent(
        position=row["position"],
        kind=LogKind.GAP if row["stream"].startswith(GAP) else LogKind.EVENT,
        stream=StreamName(name) if name else None,
        install_id=None if row["install_id"] is None else InstallId(row["install_id"]),
        observatory_uid=row["observatory_uid"],
        telescope_uid=row["telescope_uid"],
        device_uid=row["device_uid"],
        observed_at=row["observed_at"],
        received_at=row["received_at"],
        data=row["data"],
        missing=row["missing"],
        nacked=row["nacked"],
    )
