"""The hardware graph read from the platform's tables, and its revisions."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar
from uuid import UUID

import asyncpg
import trio

from skygw.database.hardware_sql import LIST_COLUMNS, TABLES, GraphStatements, write_statements
from skygw.database.pool import Connection, Database
from skygw.errors import RoutingUnavailable, StoreFailed
from skygw.ids import InstallId
from skygw.observing.hardware import Graph, GraphChanges, GraphStamp

LOOK_AGAIN_S = 60.0
"""How long it is believed which columns there are, and whether the tables have their triggers."""

TRIES = 3
"""Two who look at the same time, where there are no triggers, may both see a change: one has to look again."""

FIND_SCOPE = """
    SELECT installation.observatory_id, installation.telescope_id,
           CASE WHEN installation.node_type = 'telescope' THEN telescope.uid ELSE observatory.uid END AS root,
           coalesce(standing.revision, 0) AS revision,
           coalesce($2::bigint = ANY (standing.known), false) AS knows_since
    FROM sky_node_installation AS installation
    JOIN observatory ON observatory.id = installation.observatory_id
    LEFT JOIN telescope ON telescope.id = installation.telescope_id
    LEFT JOIN skygw.graph_revision AS standing ON standing.observatory_id = observatory.id
    WHERE installation.uid = $1 AND NOT installation.is_deleted
"""

LIST_CHANGED = """
    SELECT array_agg(DISTINCT uid)
    FROM skygw.graph_change
    WHERE observatory_id = $1 AND revision > $2 AND ($3::int IS NULL OR telescope_id IN (0, $3))
"""

LIST_REVISIONS = """
    SELECT observatory.uid, standing.revision
    FROM skygw.graph_revision AS standing JOIN observatory ON observatory.id = standing.observatory_id
"""

LIST_UNWATCHED = "SELECT DISTINCT name FROM skygw.graph_triggers() WHERE NOT installed ORDER BY name"
FIND_OBSERVATORY = "SELECT id FROM observatory WHERE uid = $1"

AnswerT = TypeVar("AnswerT")


@dataclass(frozen=True, slots=True)
class _View:
    """What was found of the tables at a moment of trio's clock."""

    statements: GraphStatements
    is_watched: bool
    found_at: float


@dataclass(frozen=True, slots=True)
class _Scope:
    """Whose graph, and as of when. `telescope_id` is null for all of the observatory."""

    statements: GraphStatements
    observatory_id: int
    telescope_id: int | None
    stamp: GraphStamp
    knows_since: bool

    async def everything(self, connection: Connection) -> str:
        found = await connection.fetchval(self.statements.everything, self.observatory_id, self.telescope_id)
        return f"{{{found or ''}}}"


class PgHardware:
    """`observing.hardware.GraphStore` in PostgreSQL.

    Where the tables have no triggers, whoever asks looks at all of his observatory in the same snapshot: what has a
    revision is the same for everybody who has it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._view: _View | None = None

    async def stamp(self, install_id: InstallId) -> GraphStamp | None:
        if await self.is_watched():
            async with self._database.connection() as connection:
                scope = await self._scope(connection, install_id)
        else:
            scope = await self._in_one_snapshot(partial(self._scope, install_id=install_id))
        return None if scope is None else scope.stamp

    async def graph(self, install_id: InstallId) -> Graph | None:
        async def read(connection: Connection) -> Graph | None:
            scope = await self._scope(connection, install_id)
            return None if scope is None else Graph(scope.stamp, await scope.everything(connection))

        return await self._in_one_snapshot(read)

    async def changes(self, install_id: InstallId, since: int) -> GraphChanges | None:
        async def read(connection: Connection) -> GraphChanges | None:
            scope = await self._scope(connection, install_id, since)
            return None if scope is None else await _changes(connection, scope, since)

        return await self._in_one_snapshot(read)

    # For those who tell nodes of changes.

    async def revisions(self) -> Mapping[UUID, int]:
        """Of each observatory that has one. Raises `RoutingUnavailable`."""
        async with self._database.connection() as connection:
            return {row["uid"]: row["revision"] for row in await connection.fetch(LIST_REVISIONS)}

    async def is_watched(self) -> bool:
        """Whether the tables have their triggers, so that nobody needs to look. Raises `RoutingUnavailable`."""
        if self._fresh_view is not None:
            return self._fresh_view.is_watched
        async with self._database.connection() as connection:
            return (await self._viewed(connection)).is_watched

    async def look(self, observatory_uid: UUID) -> None:
        """Gives the observatory a new revision if something is not as it was. Raises `RoutingUnavailable`."""

        async def look(connection: Connection) -> None:
            view = await self._viewed(connection)
            observatory_id = await connection.fetchval(FIND_OBSERVATORY, observatory_uid)
            if observatory_id is not None:
                await connection.fetchval(view.statements.seen, observatory_id, None)

        await self._in_one_snapshot(look)

    async def _in_one_snapshot(self, work: Callable[[Connection], Awaitable[AnswerT]]) -> AnswerT:
        for _ in range(TRIES - 1):
            with suppress(_InTheWay):
                return await self._once(work)
        return await self._once(work)

    async def _once(self, work: Callable[[Connection], Awaitable[AnswerT]]) -> AnswerT:
        try:
            async with self._database.transaction(in_one_snapshot=True) as connection:
                return await work(connection)
        except StoreFailed:
            self._view = None  # a column may be gone
            raise
        except RoutingUnavailable as error:
            if isinstance(error.__cause__, asyncpg.TransactionRollbackError):
                raise _InTheWay(error.message, retry_after_s=error.retry_after_s) from error
            raise

    async def _scope(self, connection: Connection, install_id: InstallId, since: int = 0) -> _Scope | None:
        view = await self._viewed(connection)
        row = await connection.fetchrow(FIND_SCOPE, install_id, since)
        if row is not None and not view.is_watched:
            await connection.fetchval(view.statements.seen, row["observatory_id"], None)
            row = await connection.fetchrow(FIND_SCOPE, install_id, since)
        if row is None or row["root"] is None:
            return None
        return _Scope(
            statements=view.statements,
            observatory_id=row["observatory_id"],
            telescope_id=row["telescope_id"],
            stamp=GraphStamp(row["root"], row["revision"], view.statements.shape),
            knows_since=row["knows_since"],
        )

    @property
    def _fresh_view(self) -> _View | None:
        view = self._view
        return None if view is None or trio.current_time() > view.found_at + LOOK_AGAIN_S else view

    async def _viewed(self, connection: Connection) -> _View:
        if self._fresh_view is not None:
            return self._fresh_view
        found_at = trio.current_time()
        columns: dict[str, dict[str, str | None]] = {}
        for row in await connection.fetch(LIST_COLUMNS, list(TABLES)):
            of_table = columns.setdefault(row["table_name"], {})
            of_table[row["column_name"]] = of_table.get(row["column_name"]) or row["refers_to"]
        statements = write_statements({table: list(named.items()) for table, named in columns.items()})
        is_watched = not await connection.fetch(LIST_UNWATCHED)
        self._view = _View(statements, is_watched, found_at)
        return self._view


class _InTheWay(RoutingUnavailable):
    """Somebody else wrote what this one wanted to."""


async def _changes(connection: Connection, scope: _Scope, since: int) -> GraphChanges:
    if not scope.knows_since:
        return GraphChanges(scope.stamp, await scope.everything(connection), (), complete=True)
    changed = await connection.fetchval(LIST_CHANGED, scope.observatory_id, since, scope.telescope_id)
    if not changed:
        return GraphChanges(scope.stamp, "{}", (), complete=False)
    there = await connection.fetchrow(scope.statements.among, scope.observatory_id, scope.telescope_id, changed)
    members, uids = ("", ()) if there is None else (there["members"] or "", there["uids"] or ())
    return GraphChanges(scope.stamp, f"{{{members}}}", tuple(sorted(set(changed).difference(uids))), complete=False)


async def list_unwatched(connection: Connection) -> list[str]:
    """The platform's tables that lack the triggers of the graph: while there are such, gateways look for changes."""
    return [row["name"] for row in await connection.fetch(LIST_UNWATCHED)]
