"""Numbered SQL migrations, run by the database's owner, one runner at a time.

yoyo keeps the books, in the schema `skygw`; an advisory lock replaces its lock table, whose row would outlive
a killed run.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import as_file, files
from typing import Any
from uuid import uuid4

import psycopg
import trio
from yoyo import read_migrations
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.connections import parse_uri

from skygw.database.addresses import name_database
from skygw.database.platform import check_platform_blocking, create_platform
from skygw.errors import StartupError

LOWEST_SERVER_VERSION = 14
MIGRATION_TABLE = "_yoyo_migration"
LOCK_KEY = 0x736B79677701
"""Any number, as long as it is always this one: `skygw` and a counter."""
CONNECT_TIMEOUT_S = 10
LOCK_TIMEOUT_S = 60

LOCK = "SELECT pg_advisory_lock(%s)"
MAKE_SCHEMA = "CREATE SCHEMA IF NOT EXISTS skygw"
FIND_BOOKS = "SELECT to_regclass('skygw._yoyo_migration')"
LIST_APPLIED = "SELECT migration_id FROM skygw._yoyo_migration"
INSTALL_GRAPH_TRIGGERS = "SELECT refused FROM skygw.install_graph_triggers()"
LOOK_HERE_FIRST = """
    SELECT set_config('search_path', 'skygw, ' || current_setting('search_path'), false)
    WHERE current_schema() IS DISTINCT FROM 'skygw'
"""


class _Books(PostgresqlPsycopgBackend):  # type: ignore[misc] # yoyo carries no types
    """yoyo's psycopg 3 backend in the schema `skygw`, without what it does beside migrating."""

    def init_connection(self, connection: psycopg.Connection) -> None:
        """Our schema before those the platform's tables are found in."""
        connection.execute(LOOK_HERE_FIRST)

    @contextmanager
    def lock(self, timeout: float = 10) -> Iterator[None]:  # noqa: ARG002 -- yoyo's signature
        """Nothing to do: the advisory lock is held all along."""
        yield

    def get_log_data(self, migration: Any = None, operation: str = "apply") -> dict[str, Any]:
        """yoyo would look our host up in the name service and our user up on the system; either may fail."""
        return {
            "id": str(uuid4()),
            "migration_id": migration.id if migration else None,
            "migration_hash": migration.hash if migration else None,
            "username": self.connection.info.user,
            "hostname": socket.gethostname(),
            "created_at_utc": datetime.now(UTC).replace(tzinfo=None),
            "operation": operation,
        }


@dataclass(frozen=True, slots=True)
class Migrated:
    """The ids of the migrations that were applied now, in order, and the platform's tables that this role may not give
    the triggers of the hardware graph: while there are such, gateways look for changes themselves.
    """

    applied: list[str]
    unwatched: list[str]


async def migrate(owner_url: str) -> Migrated:
    """Bring the database up to date.

    Doing it again applies nothing, but gives triggers to tables that lack them; a second runner waits for the first, at
    most `LOCK_TIMEOUT_S`. Cancelling takes effect when the run has ended. Raises `StartupError` if the database does not answer, is older than
    PostgreSQL 14, lacks the platform's tables, or refuses a statement.
    """
    return await trio.to_thread.run_sync(_migrate, owner_url)


async def pending(url: str) -> list[str]:
    """The ids of the migrations this program knows and the database has not had; any role of ours may ask.

    Raises `StartupError` if the database does not answer.
    """
    return await trio.to_thread.run_sync(_pending, url)


async def prepare_development(owner_url: str) -> Migrated:
    """The platform's tables as assumed, then the migrations: what an embedded database needs to begin."""
    with said_as_a_sentence(owner_url):
        await trio.to_thread.run_sync(create_platform, owner_url)
    return await migrate(owner_url)


def known_migrations() -> list[str]:
    """The ids of the migrations in this package, in order."""
    folder = files("skygw.database").joinpath("migrations")
    return sorted(entry.name.removesuffix(".sql") for entry in folder.iterdir() if entry.name.endswith(".sql"))


def _migrate(owner_url: str) -> Migrated:
    with said_as_a_sentence(owner_url), _connect(owner_url) as connection:
        server_version = connection.info.server_version // 10000
        if server_version < LOWEST_SERVER_VERSION:
            raise StartupError(
                f"the database {name_database(owner_url)} runs PostgreSQL {server_version}; "
                f"the gateway needs {LOWEST_SERVER_VERSION} or later"
            )
        if missing := check_platform_blocking(connection):
            raise StartupError(f"{name_database(owner_url)} is not the platform's database: {'; '.join(missing)}")
        connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'".encode())
        connection.execute(LOCK, [LOCK_KEY])
        connection.execute(MAKE_SCHEMA)
        with (
            as_file(files("skygw.database").joinpath("migrations")) as folder,
            _Books(parse_uri(owner_url), MIGRATION_TABLE) as books,
        ):
            waiting = books.to_apply(read_migrations(str(folder)))
            # Not `apply_migrations`: that one goes on after a migration it cannot read.
            for migration in waiting:
                books.apply_one(migration)
        unwatched = [name for (name,) in connection.execute(INSTALL_GRAPH_TRIGGERS).fetchall()]
        return Migrated([migration.id for migration in waiting], unwatched)


def _pending(url: str) -> list[str]:
    with said_as_a_sentence(url), _connect(url) as connection:
        books = connection.execute(FIND_BOOKS).fetchone()
        if books is None or books[0] is None:
            return known_migrations()
        applied = {row[0] for row in connection.execute(LIST_APPLIED).fetchall()}
        return [name for name in known_migrations() if name not in applied]


def _connect(url: str) -> psycopg.Connection:
    return psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S, application_name="skygw migrate")


@contextmanager
def said_as_a_sentence(url: str) -> Iterator[None]:
    """What the database refuses in the block becomes a `StartupError` that names it, without its password."""
    try:
        yield
    except psycopg.OperationalError as error:
        # What libpq says of a failed connection names the server and the user, never the password.
        raise StartupError(f"the database {name_database(url)} cannot be used: {_first_line(error)}") from error
    except psycopg.errors.Error as error:
        said = error.diag.message_primary or "its URL is not understood"
        raise StartupError(f"the database {name_database(url)} cannot be used: {said}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
