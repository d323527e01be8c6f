"""The pool is quick to say that the database is away, comes back by itself, and is never held by a server."""
# ruff: noqa: PT012 -- what a block of statements raises is what is asked here

import logging
import os
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import trio

from skygw.database.embedded import EmbeddedCluster, embedded_postgres
from skygw.database.pool import (
    IDLE_IN_TRANSACTION_S,
    STATEMENT_TIMEOUT_S,
    Database,
    open_database,
    open_loop_and_database,
)
from skygw.errors import Outcome, Retry, RoutingUnavailable, StartupError, StoreFailed
from tests.fakes.postgres import PostgresServer

BACKEND = "SELECT pg_backend_pid()"


@pytest.fixture
async def own_cluster(data_dir: Path) -> AsyncIterator[EmbeddedCluster]:
    async with embedded_postgres(data_dir) as cluster:
        yield cluster


async def test_a_connection_is_used_again(database: Database) -> None:
    async with database.connection() as connection:
        first = await connection.fetchval(BACKEND)
    async with database.connection() as connection:
        assert await connection.fetchval(BACKEND) == first


async def test_borrowers_at_the_same_time_have_connections_of_their_own(database: Database) -> None:
    async with database.connection() as one, database.connection() as other:
        assert await one.fetchval(BACKEND) != await other.fetchval(BACKEND)


async def test_nobody_waits_for_a_turn_longer_than_told(postgres: PostgresServer) -> None:
    async with open_loop_and_database(postgres.gateway_url, size=1, busy_wait_s=0.05) as small:
        async with small.connection():
            with pytest.raises(RoutingUnavailable, match="too much to do"):
                await small.ping()
        await small.ping()
        assert small.available


async def test_many_more_callers_than_connections_all_have_their_turn(postgres: PostgresServer) -> None:
    answered = 0

    async def ask() -> None:
        nonlocal answered
        await small.ping()
        answered += 1

    async with open_loop_and_database(postgres.gateway_url, size=2) as small, trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(ask)
    assert answered == 100


async def test_a_borrower_that_is_cancelled_leaves_nothing_behind(database: Database) -> None:
    with trio.move_on_after(0.05) as scope:
        async with database.connection() as connection:
            backend = await connection.fetchval(BACKEND)
            await connection.fetchval("SELECT pg_sleep(60)")
    assert scope.cancelled_caught
    async with database.connection() as connection:
        assert await connection.fetchval(BACKEND) != backend


async def test_a_statement_the_server_refuses_leaves_its_connection_in_use(database: Database) -> None:
    backends = set()
    for _ in range(2):
        with pytest.raises(StoreFailed, match="42P01"):
            async with database.connection() as connection:
                backends.add(await connection.fetchval(BACKEND))
                await connection.execute("SELECT * FROM no_such_table")
    assert len(backends) == 1
    assert database.available


async def test_what_the_database_refuses_is_counted_and_said_once_without_what_was_to_be_stored(
    postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    counted: list[None] = []
    failed = partial(counted.append, None)
    async with open_loop_and_database(postgres.gateway_url, failed=failed) as database:
        for _ in range(3):
            with pytest.raises(StoreFailed) as refused:
                async with database.connection() as connection:
                    await connection.execute("SELECT 'precious'::uuid")
            assert refused.value.about_the_data
        with pytest.raises(StoreFailed) as mistaken:
            async with database.connection() as connection:
                await connection.fetchval("SELECT $1::int", "precious")
        assert mistaken.value.about_the_data
        with pytest.raises(StoreFailed) as renamed:
            async with database.connection() as connection:
                await connection.execute("SELECT no_such_column FROM observatory")
        assert not renamed.value.about_the_data
        assert (renamed.value.reason, renamed.value.outcome) == ("internal", Outcome.NOT_SENT)
    assert len(counted) == 5
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [vars(record)["sqlstate"] for record in errors] == ["22P02", "22000", "42703"]
    assert "no_such_column" in errors[2].getMessage()
    assert "precious" not in caplog.text


async def test_a_transaction_in_which_nothing_happens_is_ended_by_the_server(database: Database) -> None:
    async with database.connection() as connection:
        limit = await connection.fetchval("SHOW idle_in_transaction_session_timeout")
    assert limit == f"{IDLE_IN_TRANSACTION_S:.0f}s"


async def test_a_statement_that_takes_too_long_is_ended_by_the_server(database: Database) -> None:
    with pytest.raises(RoutingUnavailable, match="statement timeout"):
        async with database.connection() as connection:
            assert await connection.fetchval("SHOW statement_timeout") == f"{STATEMENT_TIMEOUT_S:.0f}s"
            await connection.execute("SET statement_timeout = '10ms'")
            await connection.fetchval("SELECT pg_sleep(60)")
    async with database.connection() as connection:
        assert await connection.fetchval("SHOW statement_timeout") == f"{STATEMENT_TIMEOUT_S:.0f}s"


async def test_a_transaction_is_done_whole_or_not_at_all(postgres: PostgresServer) -> None:
    owner, _ = postgres.new_database(empty=True)
    async with open_loop_and_database(owner) as database:
        async with database.transaction() as connection:
            await connection.execute("CREATE TABLE seen (id int PRIMARY KEY)")
        with pytest.raises(LookupError):
            async with database.transaction() as connection:
                await connection.execute("INSERT INTO seen VALUES (1)")
                raise LookupError
        with pytest.raises(StoreFailed, match="23505"):
            async with database.transaction() as connection:
                await connection.execute("INSERT INTO seen VALUES (2)")
                await connection.execute("INSERT INTO seen VALUES (2)")
        with trio.move_on_after(0.05):
            async with database.transaction() as connection:
                await connection.execute("INSERT INTO seen VALUES (3)")
                await trio.sleep_forever()
        async with database.connection() as connection:
            assert await connection.fetch("SELECT id FROM seen") == []


async def test_an_absent_database_is_said_at_once_and_comes_back_by_itself(
    own_cluster: EmbeddedCluster, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_loop_and_database(own_cluster.owner_url) as database:
        # Two idle connections, so that a dead one is met, too.
        async with database.connection(), database.connection():
            pass
        await own_cluster.kill()
        for _ in range(4):
            with pytest.raises(RoutingUnavailable, match="the database does not answer") as refused:
                await database.ping()
            assert refused.value.retry is Retry.AFTER
            assert refused.value.retry_after_s
        assert not database.available
        await own_cluster.start()
        await database.ping()
        assert database.available
    said = [record.getMessage() for record in caplog.records if record.name == "skygw.database.pool"]
    assert len(said) == 2, "once when it goes, once when it comes back"
    assert all(record.levelno <= logging.WARNING for record in caplog.records)


async def test_a_database_lost_under_a_statement_is_unavailable_not_an_error_of_ours(
    own_cluster: EmbeddedCluster,
) -> None:
    async with open_loop_and_database(own_cluster.owner_url) as database:
        waiting = trio.Event()

        async def kill_when_waiting() -> None:
            await waiting.wait()
            await own_cluster.kill()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill_when_waiting)
            with pytest.raises(RoutingUnavailable):
                async with database.transaction() as connection:
                    await connection.fetchval("SELECT 1")
                    waiting.set()
                    await connection.fetchval("SELECT pg_sleep(60)")
        await own_cluster.start()
        await database.ping()


async def test_a_server_that_hangs_holds_nobody(own_cluster: EmbeddedCluster) -> None:
    async with open_loop_and_database(own_cluster.owner_url, wait_s=0.5) as database:
        async with database.connection() as connection:
            backend = await connection.fetchval(BACKEND)
        postmaster = own_cluster.pid
        assert postmaster is not None
        os.kill(postmaster, signal.SIGSTOP)
        os.kill(backend, signal.SIGSTOP)
        try:
            with trio.move_on_after(0.2) as scope:
                async with database.transaction() as connection:
                    await connection.fetchval("SELECT 1")
            assert scope.cancelled_caught
            refusals: list[RoutingUnavailable] = []

            async def ask() -> None:
                try:
                    await database.ping()
                except RoutingUnavailable as error:
                    refusals.append(error)

            with trio.move_on_after(10) as patience:
                async with trio.open_nursery() as nursery:
                    for _ in range(100):
                        nursery.start_soon(ask)
            assert not patience.cancelled_caught
            assert len(refusals) == 100
        finally:
            os.kill(backend, signal.SIGCONT)
            os.kill(postmaster, signal.SIGCONT)
        await database.ping()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s3cret@127.0.0.1:1/sky",
        "postgresql://me:s3cret@127.0.0.1:1/sky?sslmode=s3cret",
        "postgresql://me:s3/cret@127.0.0.1/sky",
        "postgresql://me:s3:cret@127.0.0.1/sky",
        "postgresql://me:x@s3cret@127.0.0.1:1/sky",
        "postgresql://me:s3cret@127.0.0.1:99999/sky",
        "mysql://me:s3cret@127.0.0.1/sky",
    ],
)
async def test_a_database_that_does_not_answer_at_the_start_is_a_sentence_without_the_password(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(StartupError) as refused:
        async with open_loop_and_database(url):
            pass
    assert caplog.text == ""
    assert "\n" not in str(refused.value)
    assert "s3" not in str(refused.value)
    assert "cret" not in str(refused.value)


async def test_an_exception_of_the_body_comes_out_as_it_is(postgres: PostgresServer) -> None:
    with pytest.raises(LookupError, match="mine"):
        async with open_loop_and_database(postgres.gateway_url):
            raise LookupError("mine")


async def test_a_closed_database_has_no_connections_left(postgres: PostgresServer) -> None:
    _, url = postgres.new_database()
    name = url.partition("@/")[2].partition("?")[0]
    count = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'"  # noqa: S608
    async with open_loop_and_database(postgres.owner_url) as watcher:
        async with open_database(url) as database, database.connection(), watcher.connection() as connection:
            assert await connection.fetchval(count) == 1
        with trio.fail_after(10):
            remaining = 1
            while remaining:
                async with watcher.connection() as connection:
                    remaining = await connection.fetchval(count)
        assert remaining == 0
