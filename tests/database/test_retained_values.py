"""Latest values in PostgreSQL: the newest of each is kept, byte for byte, and is as old after a restart as it is."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from skygw.database.pool import Database, open_loop_and_database
from skygw.database.retained_values import PgRetainedValues, next_era
from skygw.errors import RoutingUnavailable, StoreFailed
from skygw.ids import Epoch, InstallId
from skygw.protocol.streams import StaleReason, StreamName
from skygw.telemetry.hub import StreamHub
from skygw.telemetry.kept_values import KeptValue, KeptValues, restore
from tests.fakes.memory_log import MemoryLog
from tests.fakes.memory_values import MemoryDirectory
from tests.fakes.postgres import PostgresServer
from tests.fakes.telemetry_rooms import Session, Site, snapshot

DEVICE = StreamName.DEVICE_SNAPSHOT
NOW = datetime(2026, 7, 1, 3, 0, 0, 123456, tzinfo=UTC)


def a_value(uid: UUID | None = None, **changed: Any) -> KeptValue:
    value = KeptValue(
        stream=DEVICE,
        uid=uid or uuid4(),
        install_id=InstallId(uuid4()),
        order=(3, 7),
        version=100,
        data='{"uid": 1,  "z":"ü", "t":-10.000000000000001}',
        observed_at=NOW,
        received_at=NOW,
        max_silence_s=30.5,
        age_s=12.0,
    )
    return value._replace(**changed)


@pytest.fixture
def values(database: Database) -> PgRetainedValues:
    return PgRetainedValues(database)


async def kept(values: PgRetainedValues, *said: KeptValue) -> Sequence[KeptValue]:
    return await values.of({value.install_id for value in said})


async def test_a_value_is_kept_byte_for_byte_and_ages_by_the_databases_clock(values: PgRetainedValues) -> None:
    said = a_value()
    await values.put([said])
    (found,) = await kept(values, said)
    assert found._replace(age_s=12.0) == said
    assert 12.0 <= found.age_s < 72.0
    assert said.install_id in await values.installations()


@pytest.mark.parametrize(
    ("newer", "is_kept"),
    [
        ({"version": 101, "order": (1, 1)}, True),
        ({"version": 100, "order": (3, 8)}, True),
        ({"version": 100, "order": (4, 0)}, True),
        ({"version": 100, "order": (3, 7)}, False),
        ({"version": 100, "order": (2, 9)}, False),
        ({"version": 99, "order": (9, 9)}, False),
    ],
    ids=str,
)
async def test_only_a_newer_value_takes_its_place(
    values: PgRetainedValues, newer: dict[str, Any], *, is_kept: bool
) -> None:
    said = a_value()
    await values.put([said])
    await values.put([said._replace(data="{}", **newer)])
    (found,) = await kept(values, said)
    assert (found.data == "{}") is is_kept


async def test_a_resource_that_moved_is_kept_for_its_new_installation(values: PgRetainedValues) -> None:
    before = a_value()
    after = a_value(before.uid, version=101, order=(1, 1))
    await values.put([before])
    await values.put([after])
    assert await kept(values, before) == []
    (found,) = await kept(values, after)
    assert found.install_id == after.install_id


async def test_one_that_cannot_be_kept_is_said_to_be_about_the_data_and_takes_the_others_with_it(
    values: PgRetainedValues, caplog: pytest.LogCaptureFixture
) -> None:
    sound, broken = a_value(), a_value(data="\0")
    with pytest.raises(StoreFailed) as refused:
        await values.put([sound, broken])
    assert refused.value.about_the_data
    assert await kept(values, sound, broken) == []
    assert len(caplog.records) == 1


async def test_a_stream_this_version_does_not_know_is_left_where_it_is(
    values: PgRetainedValues, postgres: PostgresServer
) -> None:
    said = a_value()
    await values.put([said])
    with psycopg.connect(postgres.owner_url) as connection:
        connection.execute("UPDATE skygw.retained_value SET stream = 'of_tomorrow' WHERE uid = %s", [said.uid])
    assert await kept(values, said) == []


async def test_writing_the_same_rows_over_and_over_makes_few_new_index_entries(postgres: PostgresServer) -> None:
    _, url = postgres.new_database()  # in which nobody else looks at what the rows were before
    said = [a_value() for _ in range(20)]
    async with open_loop_and_database(url) as database:
        values = PgRetainedValues(database)
        await values.put(said)
        for step in range(20):
            await values.put([value._replace(order=(4, step)) for value in said])
        async with database.connection() as connection:  # the one that wrote: it has not told the others yet
            await connection.execute("SELECT pg_stat_force_next_flush()")
        async with database.connection() as connection:
            counts = await connection.fetchrow(
                "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'retained_value'"
            )
    assert counts is not None
    assert counts["n_tup_upd"] == 400
    assert counts["n_tup_hot_upd"] > 200


async def test_eras_only_grow_and_are_not_given_again_after_a_restore_from_a_backup(
    database: Database, postgres: PostgresServer
) -> None:
    first, second = await next_era(database), await next_era(database)
    with psycopg.connect(postgres.owner_url) as connection:
        connection.execute("UPDATE skygw.era SET era = 3")  # of a backup, long ago
    restored = await next_era(database)
    assert second == first + 1
    assert restored >= first > 3
    assert restored < 2**23  # a version of this era fits into a bigint


class Process:
    """A gateway's telemetry on a database, as far as it is kept; the next one takes over where it was killed."""

    def __init__(self, database: Database, era: int) -> None:
        self.values = PgRetainedValues(database)
        self.hub = StreamHub(era=era, log=MemoryLog())
        self.kept = KeptValues(self.values)
        self.hub.watch(self.kept)

    def say(self, site: Site, uid: UUID, seq: int, *, epoch: int = 1) -> None:
        frame = snapshot(uid, seq, n=seq)
        assert self.hub.retained.offer(site, Epoch(epoch), frame) is None

    def number(self, uid: UUID) -> tuple[str, StaleReason | None]:
        value = self.hub.retained.find(DEVICE, uid)
        assert value is not None
        return value.data, value.stale


async def test_a_gateway_killed_between_two_flushes_loses_the_last_seconds_and_says_so(database: Database) -> None:
    site = Site()
    mount, camera = site.device(), site.device("camera")
    killed = Process(database, await next_era(database))
    killed.hub.session_began(Session(site, Epoch(1)))
    killed.say(site, mount, 1)
    killed.say(site, camera, 2)
    await killed.kept.flush()
    killed.say(site, mount, 3)  # and nothing is left of it that could write this

    following = Process(database, await next_era(database))
    await restore(following.values, MemoryDirectory(site), following.hub.retained, known=following.hub.instruments.know)
    following.hub.presence.resume()
    restored = [following.number(uid) for uid in (mount, camera)]
    presence = following.hub.retained.find(StreamName.NODE_PRESENCE, site.install_id)
    following.say(site, mount, 1, epoch=2)
    await following.kept.flush()

    third = Process(database, await next_era(database))
    await restore(third.values, MemoryDirectory(site), third.hub.retained, known=third.hub.instruments.know)
    assert restored == [
        (f'{{"uid":"{mount}","n":1}}', StaleReason.GATEWAY_RESTARTED),
        (f'{{"uid":"{camera}","n":2}}', StaleReason.GATEWAY_RESTARTED),
    ]
    assert presence is not None
    assert '"state":"uncertain"' in presence.data
    assert third.number(mount)[0] == f'{{"uid":"{mount}","n":1}}'
    assert third.hub.retained.find(DEVICE, mount).order == (2, 1)  # type: ignore[union-attr]


async def test_a_gateway_that_is_still_ending_does_not_overwrite_what_the_next_one_wrote(database: Database) -> None:
    site = Site()
    mount = site.device()
    ending = Process(database, await next_era(database))
    following = Process(database, await next_era(database))
    following.say(site, mount, 1, epoch=2)
    await following.kept.flush()
    ending.say(site, mount, 50, epoch=1)
    await ending.kept.flush()
    (found,) = await following.values.of([site.install_id])
    assert found.order == (2, 1)


async def test_while_the_database_is_away_nothing_piles_up_and_then_the_newest_is_written(
    postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    _, url = postgres.new_database()
    name = url.partition("@/")[2].partition("?")[0]
    site = Site()
    mount = site.device()
    async with open_loop_and_database(url) as database:
        process = Process(database, await next_era(database))
        allow_connections(postgres, name, allowed=False)
        for seq in range(1, 50):
            process.say(site, mount, seq)
        with pytest.raises(RoutingUnavailable):
            await process.kept.flush()
        process.say(site, mount, 50)
        waiting = len(process.kept)
        allow_connections(postgres, name, allowed=True)
        await process.kept.flush()
        (found,) = await process.values.of([site.install_id])
    assert waiting == 1
    assert found.data == f'{{"uid":"{mount}","n":50}}'
    assert "does not answer" in caplog.text


def allow_connections(postgres: PostgresServer, name: str, *, allowed: bool) -> None:
    """Lets nobody in, and throws out who is in."""
    with psycopg.connect(postgres.owner_url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {str(allowed).lower()}".encode())
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
