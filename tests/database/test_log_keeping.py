"""The log of events has its partitions ahead and loses its oldest ones, and nothing else."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import partial

import psycopg
import pytest
import trio
import trio_asyncio

from skygw.database import log_keeping
from skygw.database.log_keeping import keep_log
from skygw.database.pool import Database, open_loop_and_database
from tests.fakes.postgres import PostgresServer

PATIENCE_S = 20.0

APPEND = """
    WITH head AS (UPDATE skygw.log_head SET position = position + 1 RETURNING position)
    INSERT INTO skygw.log (position, stream, received_at, data) SELECT position, 'telescope_log', %s, '{}' FROM head
"""


class Log:
    """The log of one test's database, seen by its owner."""

    def __init__(self, connection: "psycopg.Connection[tuple[object, ...]]") -> None:
        self.connection = connection
        self.today = datetime.now(UTC).date()

    def append(self, day: date) -> None:
        """An event of noon of that day."""
        self.connection.execute(APPEND, [datetime(day.year, day.month, day.day, 12, tzinfo=UTC)])

    def ago(self, days: int) -> date:
        return self.today - timedelta(days=days)

    def make_day(self, day: date) -> None:
        self.connection.execute("SELECT skygw.make_log_day(%s)", [day])

    def forget_days(self) -> None:
        """As if nobody had kept the log for long: there are no partitions but the default one."""
        for (partition,) in self.connection.execute("SELECT partition::text FROM skygw.log_days()").fetchall():
            self.connection.execute(f"DROP TABLE {partition}".encode())

    def days(self) -> list[object]:
        return [row[0] for row in self.connection.execute("SELECT day FROM skygw.log_days() ORDER BY day")]

    def positions(self, table: str = "log") -> list[object]:
        query = f"SELECT position FROM skygw.{table} ORDER BY position"  # noqa: S608 -- the test's own word
        return [row[0] for row in self.connection.execute(query.encode())]

    def dropped_through(self) -> object:
        row = self.connection.execute("SELECT dropped_through FROM skygw.log_head").fetchone()
        assert row is not None
        return row[0]

    def keep(self, days: int) -> object:
        row = self.connection.execute("SELECT skygw.keep_log(make_interval(days => %s))", [days]).fetchone()
        assert row is not None
        return row[0]

    @property
    def ahead(self) -> list[object]:
        return [self.today + timedelta(days=days) for days in range(8)]


@pytest.fixture
def urls(postgres: PostgresServer) -> tuple[str, str]:
    return postgres.new_database()


@pytest.fixture
def log(urls: tuple[str, str]) -> Iterator[Log]:
    with psycopg.connect(urls[0], autocommit=True) as connection:
        yield Log(connection)


def test_partitions_are_there_for_today_and_the_week_to_come_however_often_they_are_made(log: Log) -> None:
    assert log.days() == log.ahead
    log.forget_days()
    assert log.keep(30) is True
    assert log.days() == log.ahead
    assert log.keep(30) is True
    assert log.days() == log.ahead


def test_what_is_wholly_older_is_dropped_and_the_log_remembers_up_to_where(log: Log) -> None:
    for days in (9, 8, 7, 0):
        log.make_day(log.ago(days))
        log.append(log.ago(days))
        log.append(log.ago(days))
    assert log.keep(9) is True
    assert log.positions() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert log.keep(7) is True
    assert log.days() == [log.ago(7), *log.ahead]
    assert log.positions() == [5, 6, 7, 8]
    assert log.dropped_through() == 4
    assert log.keep(30) is True
    assert log.dropped_through() == 4


def test_empty_days_that_are_dropped_move_no_position(log: Log) -> None:
    log.make_day(log.ago(40))
    log.append(log.today)
    log.keep(30)
    assert (log.dropped_through(), log.positions(), log.days()) == (0, [1], log.ahead)


def test_events_that_found_no_partition_come_into_that_of_their_day(log: Log) -> None:
    log.forget_days()
    log.append(log.today)
    log.append(log.today)
    assert log.positions("log_default") == [1, 2]
    assert log.keep(30) is True
    assert log.positions("log_default") == []
    assert log.positions() == [1, 2]


def test_an_event_of_a_clock_that_had_leapt_goes_with_its_neighbours(log: Log) -> None:
    log.make_day(log.ago(5))
    log.append(date(2100, 1, 1))
    log.append(date(1999, 1, 1))
    log.append(log.ago(5))
    log.append(date(1999, 1, 1))
    log.append(log.today)
    assert log.keep(5) is True
    assert log.positions() == [1, 2, 3, 4, 5]
    assert log.keep(3) is True
    assert log.positions() == [4, 5]
    assert log.dropped_through() == 3


@pytest.mark.parametrize("keep", ["0", "23 hours", "-1 day", None])
def test_no_call_drops_the_last_day(log: Log, urls: tuple[str, str], keep: str | None) -> None:
    log.append(log.today)
    with psycopg.connect(urls[1]) as gateway, pytest.raises(psycopg.errors.InvalidParameterValue):
        gateway.execute("SELECT skygw.keep_log(%s::interval)", [keep])
    assert log.positions() == [1]


def test_who_keeps_the_log_gives_way_to_who_uses_it_and_does_nothing_by_halves(log: Log, urls: tuple[str, str]) -> None:
    log.make_day(log.ago(9))
    log.append(log.ago(9))
    with psycopg.connect(urls[1]) as reader:
        reader.execute("SELECT position FROM skygw.log")
        assert log.keep(7) is False
        assert log.ago(9) in log.days()
        reader.rollback()
    assert log.keep(7) is True
    assert log.positions() == []


async def test_the_log_is_kept_from_the_start_on(log: Log, urls: tuple[str, str]) -> None:
    log.forget_days()
    async with open_loop_and_database(urls[1]) as database, trio.open_nursery() as nursery:
        nursery.start_soon(keep_log, database, timedelta(days=30))
        with trio.fail_after(PATIENCE_S):
            while log.days() != log.ahead:  # noqa: ASYNC110 - a table has no events
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert log.days() == log.ahead


async def test_a_database_that_is_away_is_waited_for(
    log: Log, urls: tuple[str, str], postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_keeping, "AGAIN_S", 0.02)
    log.forget_days()
    name = log.connection.info.dbname
    with psycopg.connect(postgres.owner_url, autocommit=True) as owner:
        allow = partial(owner.execute, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
        owner.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
        async with trio_asyncio.open_loop():
            database = Database(urls[1])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(keep_log, database, timedelta(days=30))
                with trio.fail_after(PATIENCE_S):
                    while database.available:  # noqa: ASYNC110
                        await trio.sleep(0.01)
                    assert log.days() == []
                    allow()
                    while log.days() != log.ahead:  # noqa: ASYNC110
                        await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
            database.close()
    assert log.days() == log.ahead
