"""Where the platform's tables may not have triggers, who asks for the graph finds what has changed all the same."""

from collections.abc import AsyncIterator
from random import Random
from uuid import uuid4

import psycopg
import pytest
import trio

from skygw.database.hardware import PgHardware
from skygw.database.migrate import migrate
from skygw.database.pool import open_loop_and_database
from skygw.ids import InstallId
from tests.database.test_hardware_changes import Resources, caught_up, change_at_random, differences, read
from tests.fakes.hardware_records import TOLD_AS_A_WHOLE, TOLD_ONE_BY_ONE, Hall
from tests.fakes.postgres import PostgresServer

STEPS = 25


@pytest.fixture
def hall(postgres: PostgresServer) -> tuple[Hall, str]:
    owner_url, gateway_url = postgres.new_database()
    with psycopg.connect(owner_url) as connection:
        found = connection.execute("SELECT tgname, tgrelid::regclass FROM pg_trigger WHERE tgname LIKE 'skygw_graph_%'")
        for name, table in found.fetchall():
            connection.execute(f"DROP TRIGGER {name} ON {table}".encode())
    return Hall(owner_url), gateway_url


@pytest.fixture
async def hardware(hall: tuple[Hall, str]) -> AsyncIterator[PgHardware]:
    async with open_loop_and_database(hall[1]) as database:
        yield PgHardware(database)


async def test_what_has_changed_since_any_revision_makes_the_graph_of_now(
    hall: tuple[Hall, str], hardware: PgHardware
) -> None:
    records, random = hall[0], Random(4)  # noqa: S311
    assert not await hardware.is_watched()
    seen: list[tuple[InstallId, int, Resources]] = []
    with psycopg.connect(records.owner_url, autocommit=True) as connection:
        for step in range(STEPS):
            among = TOLD_ONE_BY_ONE if step % 5 else TOLD_AS_A_WHOLE
            await change_at_random(connection, random, records, among)
            reader = InstallId(random.choice(records.installations))
            seen.append((reader, *await read(hardware, reader)))
            for install_id, since, had in random.sample(seen, min(3, len(seen))):
                made, now = await caught_up(hardware, install_id, since, had), await read(hardware, install_id)
                assert (made[0], differences(made[1], now[1])) == (now[0], {}), since


async def test_a_revision_stays_while_nothing_changes_and_one_that_was_looked_for_is_another(
    hall: tuple[Hall, str], hardware: PgHardware
) -> None:
    install_id = InstallId(hall[0].installations[0])
    first = await hardware.stamp(install_id)
    assert first == await hardware.stamp(install_id)
    assert first is not None
    with psycopg.connect(hall[0].owner_url) as connection:
        connection.execute("UPDATE observatory SET name = 'Vale'")
    await hardware.look(first.root)
    assert (await hardware.revisions())[first.root] > first.revision


async def test_those_who_look_at_the_same_time_agree(hall: tuple[Hall, str], hardware: PgHardware) -> None:
    install_id = InstallId(hall[0].installations[0])
    stamp = await hardware.stamp(install_id)
    assert stamp is not None
    root = stamp.root
    with psycopg.connect(hall[0].owner_url) as connection:
        connection.execute("UPDATE observatory SET name = 'Vale'")
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(hardware.look, root)
    after = await hardware.revisions()
    await hardware.look(root)
    assert after == await hardware.revisions()
    assert after[root] > stamp.revision


async def test_migrating_says_which_tables_it_may_not_watch_and_watches_them_when_it_may(
    postgres: PostgresServer,
) -> None:
    """A role that owns the gateway's schema and reads the platform's tables, which are somebody else's."""
    owner_url, gateway_url = postgres.new_database()
    migrator = f"migrator_{uuid4().hex[:8]}"
    with psycopg.connect(owner_url) as connection:
        connection.execute(f"CREATE ROLE {migrator} LOGIN".encode())
        connection.execute(f"GRANT skynet_gateway TO {migrator}".encode())
        connection.execute(f"GRANT USAGE, CREATE ON SCHEMA public, skygw TO {migrator}".encode())
        connection.execute("DROP TRIGGER skygw_graph_update ON device")
        connection.execute("DROP TRIGGER skygw_graph_truncate ON site")
        for signature in ("graph_triggers()", "install_graph_triggers()", "touch_graph()"):
            connection.execute(f"ALTER FUNCTION skygw.{signature} OWNER TO {migrator}".encode())
        connection.commit()
        connection.execute(f"SET ROLE {migrator}".encode())
        refused = connection.execute("SELECT refused FROM skygw.install_graph_triggers() ORDER BY refused").fetchall()
        connection.execute("RESET ROLE")
    assert refused == [("device",), ("site",)]
    async with open_loop_and_database(gateway_url) as database:
        assert not await PgHardware(database).is_watched()
        assert (await migrate(owner_url)).unwatched == []
        assert await PgHardware(database).is_watched()
