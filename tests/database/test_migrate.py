"""The schema is brought up to date once, whoever runs it and however often."""

import psycopg
import pytest
import trio

from skygw.database.migrate import Migrated, known_migrations, migrate, pending, prepare_development
from skygw.database.platform import PLATFORM_COLUMNS, check_platform, create_platform
from skygw.database.pool import open_loop_and_database
from skygw.errors import StartupError
from tests.fakes.postgres import PostgresServer


async def test_migrating_twice_applies_everything_once(postgres: PostgresServer) -> None:
    owner, _ = postgres.new_database(empty=True)
    assert await prepare_development(owner) == Migrated(known_migrations(), [])
    assert await prepare_development(owner) == Migrated([], [])


async def test_what_waits_is_said_before_and_after(postgres: PostgresServer) -> None:
    owner, gateway = postgres.new_database(empty=True)
    assert await pending(gateway) == known_migrations()
    await prepare_development(owner)
    assert await pending(gateway) == []


async def test_runners_at_the_same_time_apply_each_migration_once(postgres: PostgresServer) -> None:
    owner, _ = postgres.new_database(empty=True)
    create_platform(owner)
    applied: list[str] = []

    async def run() -> None:
        applied.extend((await migrate(owner)).applied)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(run)
    assert applied == known_migrations()


async def test_a_migration_that_was_done_and_not_marked_may_be_done_again(postgres: PostgresServer) -> None:
    owner, _ = postgres.new_database()
    with psycopg.connect(owner) as connection:
        uid = connection.execute("SELECT registry_uid FROM skygw.registry").fetchone()
        connection.execute("DELETE FROM skygw._yoyo_migration")
    assert (await migrate(owner)).applied == known_migrations()
    with psycopg.connect(owner) as connection:
        assert connection.execute("SELECT registry_uid FROM skygw.registry").fetchall() == [uid]


async def test_a_database_without_the_platforms_tables_is_refused_by_name(postgres: PostgresServer) -> None:
    owner, _ = postgres.new_database(empty=True)
    with pytest.raises(StartupError, match=r"table observatory is missing; .*table operational_constraint is missing"):
        await migrate(owner)
    with psycopg.connect(owner) as connection:
        assert connection.execute("SELECT to_regnamespace('skygw')").fetchone() == (None,)


async def test_a_role_that_may_not_migrate_is_told_so_in_a_sentence(postgres: PostgresServer) -> None:
    _, gateway = postgres.new_database()
    with pytest.raises(StartupError, match="permission denied"):
        await migrate(gateway)


@pytest.mark.parametrize("work", [migrate, pending], ids=["migrate", "pending"])
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s3cret@127.0.0.1:1/sky",
        "postgresql://me:s3cret@127.0.0.1:1/sky?no_such_option=s3cret",
        "postgresql://me:s3/cret@127.0.0.1/sky",
        "postgresql://me:x@s3cret@127.0.0.1:1/sky",
        "mysql://me:s3cret@127.0.0.1/sky",
    ],
)
async def test_a_database_that_cannot_be_used_is_a_sentence_without_the_password(work, url: str) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    with pytest.raises(StartupError) as refused:
        await work(url)
    assert "\n" not in str(refused.value)
    assert "s3" not in str(refused.value)
    assert "cret" not in str(refused.value)


async def test_the_assumed_platform_is_exactly_what_the_check_asks_for(postgres: PostgresServer) -> None:
    owner, gateway = postgres.new_database()
    with psycopg.connect(owner) as connection:
        found: dict[str, set[str]] = {}
        for table, column in connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
        ):
            found.setdefault(table, set()).add(column)
    assert found == {table: set(columns) for table, columns in PLATFORM_COLUMNS.items()}
    async with open_loop_and_database(gateway) as database, database.connection() as connection_:
        assert await check_platform(connection_) == []


async def test_the_check_names_what_is_missing_and_what_may_not_be_read(postgres: PostgresServer) -> None:
    owner, gateway = postgres.new_database()
    with psycopg.connect(owner) as connection:
        connection.execute("ALTER TABLE sky_node_installation RENAME COLUMN revoked_on TO revoked_at")
        connection.execute("ALTER TABLE telescope RENAME TO scope")
        connection.execute("REVOKE SELECT ON device FROM skynet_gateway")
        connection.execute("GRANT SELECT (id, uid, device_type) ON device TO skynet_gateway")
    async with open_loop_and_database(gateway) as database, database.connection() as connection_:
        missing = await check_platform(connection_)
    assert missing == [
        "the table telescope is missing",
        "the column sky_node_installation.revoked_on is missing",
        *[
            f"the column device.{column} may not be read by this role"
            for column in ("name", "telescope_id", "observatory_id", "is_deleted")
        ],
    ]


async def test_a_server_that_is_too_old_is_refused_with_both_versions(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, _ = postgres.new_database()
    monkeypatch.setattr("skygw.database.migrate.LOWEST_SERVER_VERSION", 99)
    with pytest.raises(StartupError, match="runs PostgreSQL 18; the gateway needs 99 or later"):
        await migrate(owner)
