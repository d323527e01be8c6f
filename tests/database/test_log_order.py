"""Positions of the log are in commit order and without holes, whoever appends: a reader at 2 has not lost a 1."""

from functools import partial
from uuid import uuid4

import psycopg
import pytest
import trio

from skygw.control.ledger import CommandState
from skygw.database.commands import Commands
from skygw.database.event_log import PgEventLog
from skygw.database.node_reports import NodeReports
from skygw.database.pool import Database, open_database, open_loop_and_database
from skygw.errors import RoutingUnavailable
from skygw.ids import InstallId, OutboxUid
from skygw.telemetry.log import EventLog
from tests.database.test_command_events import Fixture, step
from tests.database.test_node_reports import a_log
from tests.fakes.postgres import PostgresServer

PATIENCE_S = 20.0

INSERT = """
    INSERT INTO skygw.command (command_id, install_id, command, command_sha256, service, state, created_at, updated_at)
    VALUES (gen_random_uuid(), gen_random_uuid(), '{}', '', %s, 'received', now(), now())
"""
WAITS = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s"


class Reader:
    """Somebody who listens, and remembers how far."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self.positions: list[int] = []
        self.texts: list[str] = []

    async def read(self) -> None:
        """Everything there is behind what was read."""
        while page := await self._log.tail(self.positions[-1] if self.positions else 0, limit=7):
            self.positions += [event.position for event in page]
            self.texts += [event.data for event in page]


async def test_two_slow_transactions_that_commit_in_the_other_order_lose_nobody_an_event(
    postgres: PostgresServer,
) -> None:
    _, url = postgres.new_database()
    async with open_loop_and_database(url) as database:
        reader = Reader(PgEventLog(database))
        with psycopg.connect(url) as slow, psycopg.connect(url) as quick:
            # The events are appended at once, and the commits come later.
            slow.execute("SET CONSTRAINTS ALL IMMEDIATE")
            quick.execute("SET CONSTRAINTS ALL IMMEDIATE")
            slow.execute(INSERT, ["slow"])
            committed = trio.Event()

            async def commit_quickly() -> None:
                await trio.to_thread.run_sync(quick.execute, INSERT, ["quick"])
                await trio.to_thread.run_sync(quick.commit)
                committed.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(commit_quickly)
                with trio.fail_after(PATIENCE_S):
                    while not (committed.is_set() or await _waits(database, quick.info.backend_pid)):
                        await trio.lowlevel.checkpoint()
                await reader.read()
                slow.commit()
            await reader.read()
    assert reader.positions == [1, 2]
    assert sorted(text.partition('"service":')[2].split(",")[0] for text in reader.texts) == ['"quick"', '"slow"']


async def _waits(database: Database, backend: int) -> bool:
    async with database.connection() as connection:
        return bool(await connection.fetchval(WAITS.replace("%s", "$1"), backend))


async def test_everything_that_two_gateways_write_at_once_is_read_once_and_in_the_order_of_each_writer(
    postgres: PostgresServer,
) -> None:
    owner_url, url = postgres.new_database()
    nodes, rounds = 6, 8
    async with open_loop_and_database(url) as one, open_database(url) as other:
        reader = Reader(PgEventLog(one))
        woken: list[None] = []
        written = trio.Event()

        async def report(database: NodeReports, outbox: OutboxUid) -> None:
            for number in range(rounds):
                await database.commit(InstallId(outbox), outbox, [a_log(2 * number + 1), a_log(2 * number + 2)])

        async def command(commands: Commands, site: Fixture) -> None:
            for _ in range(rounds):
                record = site.command(CommandState.RECEIVED, device_uid=site.mount_uid)
                await commands.admit(record)
                await commands.move([step(record, CommandState.WRITTEN)])

        async def write() -> None:
            async with trio.open_nursery() as writers:
                for database in (one, other):
                    reports = NodeReports(database, committed=partial(woken.append, None))
                    for _ in range(nodes):
                        writers.start_soon(report, reports, OutboxUid(uuid4()))
                    writers.start_soon(command, Commands(database), Fixture(database))
            written.set()

        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write)
                while not written.is_set():
                    await reader.read()
        await reader.read()
    expected = 2 * (nodes * 2 * rounds + 3 * rounds)
    assert reader.positions == list(range(1, expected + 1))
    assert 2 * rounds <= len(woken) <= 2 * nodes * rounds
    with psycopg.connect(owner_url) as connection:
        rows = connection.execute(
            "SELECT outbox_uid, array_agg(seq ORDER BY position) FROM skygw.log "
            "WHERE outbox_uid IS NOT NULL GROUP BY outbox_uid"
        ).fetchall()
    assert [seqs for _, seqs in rows] == [list(range(1, 2 * rounds + 1))] * 2 * nodes


async def test_an_append_that_is_undone_leaves_no_hole(postgres: PostgresServer) -> None:
    _, url = postgres.new_database()
    async with open_loop_and_database(url) as database:
        reports, outbox = NodeReports(database), OutboxUid(uuid4())
        assert not await reports.refuses(InstallId(outbox), outbox, [a_log(1), a_log(2)])
        await reports.commit(InstallId(outbox), outbox, [a_log(1)])
        reader = Reader(PgEventLog(database))
        await reader.read()
    assert reader.positions == [1]


async def test_a_gateway_that_stands_still_does_not_hold_the_head_for_ever(postgres: PostgresServer) -> None:
    _, url = postgres.new_database()
    outbox = OutboxUid(uuid4())
    async with open_loop_and_database(url) as frozen, open_database(url) as other:
        with pytest.raises(RoutingUnavailable):  # noqa: PT012 -- what happens to the block is what is asked
            async with frozen.transaction() as connection:
                await connection.execute("SET idle_in_transaction_session_timeout = '300ms'")
                await connection.execute("UPDATE skygw.log_head SET position = position")
                with trio.fail_after(PATIENCE_S):
                    assert await NodeReports(other).commit(InstallId(outbox), outbox, [a_log(1)]) == 1
        assert not frozen.available
        await frozen.ping()
