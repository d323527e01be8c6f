"""A database of before the log of events: what its nodes had reported is in the log, in order and byte for byte."""

from datetime import UTC, datetime, timedelta
from importlib.resources import as_file, files
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from yoyo import read_migrations
from yoyo.connections import parse_uri

from skygw.database.event_log import PgEventLog
from skygw.database.migrate import MIGRATION_TABLE, _Books, known_migrations, migrate
from skygw.database.platform import create_platform
from skygw.database.pool import open_loop_and_database
from skygw.database.provision import NewDevice, NewObservatory, NewTelescope, provision
from skygw.ids import CommandId, DeviceUid, InstallId, OutboxUid, TelescopeUid
from skygw.protocol.streams import StreamFilter, StreamName
from skygw.telemetry.log import LogKind
from tests.fakes.postgres import PostgresServer

NOW = datetime.now(UTC)
INSERT = """
    INSERT INTO skygw.node_report (install_id, outbox_uid, seq, kind, body, received_at, nacked)
    VALUES (%s, %s, %s, %s, %s, %s, %s)
"""
INSERT_COMMAND = """
    INSERT INTO skygw.command (command_id, install_id, telescope_uid, device_uid, command, command_sha256, service,
                               state, created_at, updated_at)
    VALUES (%s, %s, %s, %s, '{}', '', 'scheduler', 'written', now(), now())
"""


def migrate_up_to(owner_url: str, last: str) -> None:
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA skygw")
    with (
        as_file(files("skygw.database").joinpath("migrations")) as folder,
        _Books(parse_uri(owner_url), MIGRATION_TABLE) as books,
    ):
        for migration in books.to_apply(read_migrations(str(folder))):
            if migration.id <= last:
                books.apply_one(migration)


class Old:
    """A database as it was, with a telescope whose node had reported."""

    def __init__(self, owner_url: str, gateway_url: str) -> None:
        self.owner_url, self.gateway_url = owner_url, gateway_url
        self.observatory_uid = uuid4()
        self.telescope_uid = TelescopeUid(uuid4())
        self.mount_uid = DeviceUid(uuid4())
        self.install_id = InstallId(uuid4())
        self.outbox_uid = OutboxUid(uuid4())

    async def provision(self) -> None:
        mount = NewDevice(self.mount_uid, "mount")
        telescope = NewTelescope(self.telescope_uid, "T", (mount,), install_id=self.install_id)
        await provision(self.owner_url, [NewObservatory(self.observatory_uid, "O", (telescope,))])

    def report(
        self,
        seq: int,
        kind: str,
        body: str,
        *,
        age: timedelta,
        nacked: str | None = None,
        install_id: UUID | None = None,
    ) -> None:
        row = (install_id or self.install_id, self.outbox_uid, seq, kind, body, NOW - age, nacked)
        with psycopg.connect(self.gateway_url) as connection:
            connection.execute(INSERT, row)

    def command(self) -> CommandId:
        command_id = CommandId(uuid4())
        with psycopg.connect(self.gateway_url) as connection:
            connection.execute(INSERT_COMMAND, [command_id, self.install_id, None, self.mount_uid])
        return command_id

    def asked(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.owner_url) as connection:
            return connection.execute(query.encode()).fetchall()


@pytest.fixture
def old(postgres: PostgresServer) -> Old:
    owner_url, gateway_url = postgres.new_database(empty=True)
    create_platform(owner_url)
    migrate_up_to(owner_url, "0002_gateway_role")
    return Old(owner_url, gateway_url)


async def test_what_was_reported_is_in_the_log_in_order(old: Old) -> None:
    await old.provision()
    command_id, stranger = old.command(), InstallId(uuid4())
    day, hour = timedelta(days=1), timedelta(hours=1)
    line = (
        '{"kind":"publish_log", "seq":1, "data":{ "a": 1.50,  "b":"H\\u00f6he" }, "observed_at":"2026-07-01T03:00:00Z"}'
    )
    event = '{"kind":"publish_event","seq":2,"data":{"n":[1, 2]},"observedAt":"2026-07-01T05:30:00.25+02:00"}'
    result = f'{{"kind":"publish_command_result","seq":3,"command_id":"{command_id}","status":"running"}}'
    gap = '{"kind":"publish_gap","seq":4,"data":{"count":3},"observed_at":"2026-07-01T03:00:00Z"}'
    old.report(1, "publish_log", line, age=40 * day)
    old.report(2, "publish_event", event, age=2 * day)
    old.report(4, "publish_gap", gap, age=day)
    old.report(3, "publish_command_result", result, age=day)
    old.report(5, "publish_log", "", age=hour, nacked="data is missing")
    old.report(6, "publish_gap", "", age=hour, nacked="data is missing")
    old.report(1, "publish_log", line, age=3 * hour, install_id=stranger)

    assert (await migrate(old.owner_url)).applied == known_migrations()[2:]

    async with open_loop_and_database(old.gateway_url) as database:
        log = PgEventLog(database)
        told = list(await log.tail(0))
        page = await log.page(
            StreamName.TELESCOPE_LOG, 0, upto=7, wanted=StreamFilter(telescope_uid=(old.telescope_uid,))
        )
        assert await log.head() == 7
    assert [(row.position, row.kind, row.stream, row.data, row.missing) for row in told] == [
        (1, LogKind.EVENT, StreamName.TELESCOPE_LOG, '{ "a": 1.50,  "b":"H\\u00f6he" }', None),
        (2, LogKind.EVENT, StreamName.NODE_EVENT, '{"n":[1, 2]}', None),
        (3, LogKind.EVENT, StreamName.COMMAND_RESULT, result, None),
        (4, LogKind.GAP, None, '{"count":3}', None),
        (5, LogKind.EVENT, StreamName.TELESCOPE_LOG, '{ "a": 1.50,  "b":"H\\u00f6he" }', None),
        (6, LogKind.GAP, StreamName.TELESCOPE_LOG, "{}", 1),
        (7, LogKind.GAP, None, "{}", 1),
    ]
    assert [row.observed_at for row in told[:2]] == [
        datetime(2026, 7, 1, 3, tzinfo=UTC),
        datetime(2026, 7, 1, 3, 30, 0, 250_000, tzinfo=UTC),
    ]
    assert [row.received_at for row in told[:2]] == [NOW - 40 * day, NOW - 2 * day]
    for row in told:
        at_home = row.position != 5
        assert row.install_id == (old.install_id if at_home else stranger)
        assert row.telescope_uid == (old.telescope_uid if at_home else None)
        assert row.observatory_uid == (old.observatory_uid if at_home else None)
        assert row.device_uid == (old.mount_uid if row.position == 3 else None)
    assert [row.position for row in page] == [1, 4, 6, 7]
    assert old.asked("SELECT to_regclass('skygw.node_report')") == [(None,)]
    assert old.asked("SELECT count(*) FROM skygw.log_default") == [(0,)]
    assert old.asked("SELECT array_agg(seq ORDER BY position) FROM skygw.log") == [([1, 2, 3, 4, 1, 5, 6],)]


async def test_all_that_is_old_goes_at_once_and_what_came_today_stays(old: Old) -> None:
    body = '{"data":{},"observed_at":"2026-07-01T03:00:00Z"}'
    for seq, days in enumerate((400, 31, 3, 0), start=1):
        old.report(seq, "publish_log", body, age=timedelta(days=days))
    await migrate(old.owner_url)
    assert old.asked("SELECT count(*) FROM skygw.log_days()") == [(9,)]
    assert old.asked("SELECT skygw.keep_log('30 days')") == [(True,)]
    assert old.asked("SELECT position FROM skygw.log ORDER BY position") == [(1,), (2,), (3,), (4,)]
    with psycopg.connect(old.owner_url) as connection:
        # As if a month had gone by since.
        (name,) = connection.execute("SELECT min(partition::text) FROM skygw.log_days()").fetchone() or ("",)
        connection.execute(f"ALTER TABLE {name} RENAME TO log_20200101".encode())
    assert old.asked("SELECT skygw.keep_log('30 days')") == [(True,)]
    assert old.asked("SELECT position FROM skygw.log") == [(4,)]
    assert old.asked("SELECT position, dropped_through FROM skygw.log_head") == [(4, 3)]


async def test_a_migration_that_was_done_and_not_marked_repeats_nothing(old: Old) -> None:
    old.report(1, "publish_log", '{"data":{},"observed_at":"2026-07-01T03:00:00Z"}', age=timedelta(days=3))
    await migrate(old.owner_url)
    with psycopg.connect(old.owner_url) as connection:
        connection.execute("DELETE FROM skygw._yoyo_migration")
    assert (await migrate(old.owner_url)).applied == known_migrations()
    assert old.asked("SELECT position, seq FROM skygw.log") == [(1, 1)]
    assert old.asked("SELECT position FROM skygw.log_head") == [(1,)]
