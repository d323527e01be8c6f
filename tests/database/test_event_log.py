"""The log of events is read in order, by what a subscriber asks for, and says where it begins: in both its homes."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol
from uuid import UUID, uuid4

import psycopg
import pytest
import trio
import trio.testing

from skygw.database.event_log import REPLAYS_AT_ONCE, PgEventLog
from skygw.database.pool import open_loop_and_database
from skygw.database.provision import NewDevice, NewObservatory, NewTelescope, provision
from skygw.ids import DeviceUid, InstallId, TelescopeUid
from skygw.protocol.streams import StreamFilter, StreamName
from skygw.telemetry.log import EventLog, LogEvent, LogKind
from tests.fakes.memory_log import MemoryLog, an_event
from tests.fakes.memory_log import Place as Where
from tests.fakes.postgres import PostgresServer

NOW = datetime.now(UTC)
EVERYTHING = StreamFilter()
LOG, RESULT = StreamName.TELESCOPE_LOG, StreamName.COMMAND_RESULT


@dataclass(frozen=True)
class Place:
    """An observatory with one telescope that has a mount, and a dome beside it; a node for each."""

    observatory_uid: UUID = field(default_factory=uuid4)
    telescope_uid: TelescopeUid = field(default_factory=lambda: TelescopeUid(uuid4()))
    mount_uid: DeviceUid = field(default_factory=lambda: DeviceUid(uuid4()))
    dome_uid: DeviceUid = field(default_factory=lambda: DeviceUid(uuid4()))
    install_id: InstallId = field(default_factory=lambda: InstallId(uuid4()))
    dome_install_id: InstallId = field(default_factory=lambda: InstallId(uuid4()))

    def says(self, stream: StreamName | None, data: str = "{}", **columns: Any) -> LogEvent:
        """Of the telescope's node; without a stream, a gap."""
        where = {"observatory_uid": self.observatory_uid, "telescope_uid": self.telescope_uid}
        return an_event(stream, data, **{"install_id": self.install_id, **where, **columns})

    def says_of_dome(self, stream: StreamName | None, data: str = "{}", **columns: Any) -> LogEvent:
        """Of the observatory's node."""
        where = {"install_id": self.dome_install_id, "observatory_uid": self.observatory_uid}
        return an_event(stream, data, **{**where, **columns})

    @property
    def records(self) -> NewObservatory:
        telescope = NewTelescope(
            self.telescope_uid, "T", (NewDevice(self.mount_uid, "mount"),), install_id=self.install_id
        )
        dome = NewDevice(self.dome_uid, "enclosure")
        return NewObservatory(self.observatory_uid, "O", (telescope,), (dome,), install_id=self.dome_install_id)


class Kept(Protocol):
    """A log that a test can write to."""

    @property
    def log(self) -> EventLog: ...

    async def append(self, *events: LogEvent) -> None: ...

    async def drop(self, through: int) -> None: ...


class InMemory:
    def __init__(self, places: Sequence[Place]) -> None:
        self.log = MemoryLog()
        for place in places:
            self.log.devices[place.mount_uid] = Where(place.observatory_uid, place.telescope_uid)
            self.log.devices[place.dome_uid] = Where(place.observatory_uid, None)

    async def append(self, *events: LogEvent) -> None:
        self.log.append(*events)

    async def drop(self, through: int) -> None:
        self.log.drop(through)


class InPostgres:
    def __init__(self, log: PgEventLog, owner_url: str) -> None:
        self.log = log
        self._owner_url = owner_url

    async def append(self, *events: LogEvent) -> None:
        with psycopg.connect(self._owner_url) as connection, connection.cursor() as cursor:
            cursor.executemany(
                "WITH head AS (UPDATE skygw.log_head SET position = position + 1 RETURNING position) "
                "INSERT INTO skygw.log (position, stream, install_id, observatory_uid, telescope_uid, device_uid, "
                "observed_at, received_at, data, missing, nacked) "
                "SELECT position, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s FROM head",
                [(("*" if event.kind is LogKind.GAP else "") + (event.stream or ""), *event[3:]) for event in events],
            )

    async def drop(self, through: int) -> None:
        """Ages what is to go, and lets the log be kept."""
        with psycopg.connect(self._owner_url) as connection:
            old = NOW - timedelta(days=9)
            connection.execute("SELECT skygw.make_log_day(%s)", [old.date()])
            connection.execute("UPDATE skygw.log SET received_at = %s WHERE position <= %s", [old, through])
            connection.execute("SELECT skygw.keep_log('7 days')")


@pytest.fixture
def places() -> tuple[Place, Place]:
    return Place(), Place()


@pytest.fixture(params=["memory", "postgresql"])
async def kept(
    request: pytest.FixtureRequest, places: tuple[Place, Place], postgres: PostgresServer
) -> AsyncIterator[Kept]:
    if request.param == "memory":
        yield InMemory(places)
        return
    owner_url, gateway_url = postgres.new_database()
    await provision(owner_url, [place.records for place in places])
    async with open_loop_and_database(gateway_url) as database:
        yield InPostgres(PgEventLog(database), owner_url)


async def read(
    log: EventLog, stream: StreamName, wanted: StreamFilter = EVERYTHING, *, after: int = 0, limit: int = 500
) -> list[str]:
    """What a subscriber is told from there to the head, page by page, as the text of each."""
    found: list[str] = []
    head = await log.head()
    while page := await log.page(stream, after, upto=head, wanted=wanted, limit=limit):
        assert len(page) <= limit
        assert [event.position for event in page] == sorted({event.position for event in page})
        assert after < page[0].position
        assert page[-1].position <= head
        after = page[-1].position
        found += [event.data for event in page]
    return found


async def test_a_log_nobody_wrote_to_is_empty_and_whole(kept: Kept) -> None:
    assert (await kept.log.head(), await kept.log.floor()) == (0, 0)
    assert await kept.log.tail(0) == []
    assert await read(kept.log, LOG) == []


async def test_an_event_is_read_as_it_was_written(kept: Kept, places: tuple[Place, Place]) -> None:
    place, _ = places
    written = [
        place.says(LOG, '{ "a": 1.50,  "b":"Höhe" }', device_uid=place.mount_uid, observed_at=NOW, received_at=NOW),
        place.says(None, '{"why":"disk full"}', missing=7, received_at=NOW),
        place.says(LOG, kind=LogKind.GAP, missing=1, received_at=NOW),
        an_event(StreamName.COMMAND, received_at=NOW),
    ]
    await kept.append(*written)
    expected = [event._replace(position=position) for position, event in enumerate(written, start=1)]
    assert await kept.log.head() == 4
    assert list(await kept.log.tail(0)) == expected
    assert list(await kept.log.page(LOG, 0, upto=4, wanted=EVERYTHING)) == expected[:3]


async def test_a_page_has_the_stream_it_is_asked_for_between_its_positions(
    kept: Kept, places: tuple[Place, Place]
) -> None:
    place, _ = places
    await kept.append(*(place.says(stream, f"{at}") for at, stream in enumerate([LOG, RESULT] * 4, start=1)))
    assert await read(kept.log, LOG) == ["1", "3", "5", "7"]
    assert await read(kept.log, RESULT, after=4) == ["6", "8"]
    assert [event.data for event in await kept.log.page(LOG, 1, upto=5, wanted=EVERYTHING)] == ["3", "5"]
    assert [event.data for event in await kept.log.tail(6)] == ["7", "8"]


async def test_pages_end_by_count_and_by_bytes_and_have_one_event_at_least(
    kept: Kept, places: tuple[Place, Place]
) -> None:
    place, _ = places
    await kept.append(*(place.says(LOG, "ü" * 50) for _ in range(10)))
    assert len(await kept.log.tail(0, limit=3)) == 3
    assert len(await kept.log.tail(0, max_bytes=250)) == 3
    assert len(await kept.log.tail(0, max_bytes=1)) == 1
    assert len(await kept.log.page(LOG, 0, upto=10, wanted=EVERYTHING, max_bytes=300)) == 3
    assert len(await kept.log.page(LOG, 0, upto=10, wanted=EVERYTHING, max_bytes=1)) == 1
    assert len(await read(kept.log, LOG, limit=3)) == 10


async def test_a_filter_finds_what_fits_all_its_keys(kept: Kept, places: tuple[Place, Place]) -> None:
    here, there = places
    stranger = uuid4()
    await kept.append(
        here.says(LOG, "here"),
        there.says(LOG, "there"),
        here.says(LOG, "mount here", device_uid=here.mount_uid),
        there.says(LOG, "mount there", device_uid=there.mount_uid),
        here.says_of_dome(LOG, "dome here", device_uid=here.dome_uid),
        here.says(LOG, "unheard of", device_uid=stranger),
        an_event(LOG, "nobody's"),
    )
    for wanted, found in (
        (StreamFilter(), 7),
        (StreamFilter(telescope_uid=(here.telescope_uid,)), ["here", "mount here", "unheard of"]),
        (StreamFilter(observatory_uid=(here.observatory_uid,)), ["here", "mount here", "dome here", "unheard of"]),
        (StreamFilter(install_id=(here.dome_install_id, there.install_id)), ["there", "mount there", "dome here"]),
        (StreamFilter(device_uid=(here.mount_uid, stranger)), ["mount here", "unheard of"]),
        (StreamFilter(device_uid=(here.mount_uid, here.dome_uid), telescope_uid=(here.telescope_uid,)), ["mount here"]),
        (StreamFilter(device_uid=(here.mount_uid,), telescope_uid=(there.telescope_uid,)), []),
        (
            StreamFilter(telescope_uid=(there.telescope_uid, here.telescope_uid), install_id=(there.install_id,)),
            ["there", "mount there"],
        ),
        (StreamFilter(telescope_uid=(here.telescope_uid, here.telescope_uid)), ["here", "mount here", "unheard of"]),
        (StreamFilter(telescope_uid=()), []),
        (StreamFilter(device_uid=()), []),
        (StreamFilter(install_id=(InstallId(uuid4()),)), []),
    ):
        if isinstance(found, int):
            assert len(await read(kept.log, LOG, wanted, limit=2)) == found
        else:
            assert await read(kept.log, LOG, wanted, limit=2) == found, wanted
            assert await read(kept.log, LOG, wanted) == found, wanted


async def test_a_gap_is_told_to_every_stream_that_might_have_lost_something(
    kept: Kept, places: tuple[Place, Place]
) -> None:
    here, there = places
    await kept.append(
        here.says(None, "all of here"),
        here.says(LOG, "log of here", kind=LogKind.GAP),
        there.says(None, "all of there"),
        here.says_of_dome(None, "all of the dome"),
    )
    for stream, wanted, found in (
        (LOG, StreamFilter(), ["all of here", "log of here", "all of there", "all of the dome"]),
        (RESULT, StreamFilter(), ["all of here", "all of there", "all of the dome"]),
        (LOG, StreamFilter(telescope_uid=(here.telescope_uid,)), ["all of here", "log of here"]),
        (RESULT, StreamFilter(install_id=(there.install_id,)), ["all of there"]),
        (LOG, StreamFilter(observatory_uid=(here.observatory_uid,)), ["all of here", "log of here", "all of the dome"]),
        (LOG, StreamFilter(device_uid=(here.mount_uid,)), ["all of here", "log of here"]),
        (LOG, StreamFilter(device_uid=(here.dome_uid,)), ["all of the dome"]),
        (RESULT, StreamFilter(device_uid=(here.mount_uid, there.mount_uid)), ["all of here", "all of there"]),
        (
            LOG,
            StreamFilter(device_uid=(here.mount_uid, there.mount_uid), install_id=(there.install_id,)),
            ["all of there"],
        ),
        (LOG, StreamFilter(device_uid=(DeviceUid(uuid4()),)), []),
    ):
        assert await read(kept.log, stream, wanted) == found, wanted


async def test_what_was_never_taken_is_told_from_what_its_node_declared(
    kept: Kept, places: tuple[Place, Place]
) -> None:
    here, _ = places
    await kept.append(here.says(None, missing=3), here.says(None, missing=1, nacked="data is missing"))
    for rows in (
        await kept.log.tail(0),
        await kept.log.page(LOG, 0, upto=await kept.log.head(), wanted=EVERYTHING),
    ):
        assert [(row.missing, row.nacked) for row in rows] == [(3, None), (1, "data is missing")]


async def test_ten_thousand_events_of_many_are_paged_through_in_order(kept: Kept, places: tuple[Place, Place]) -> None:
    telescopes = [TelescopeUid(uuid4()) for _ in range(200)]
    place, _ = places
    await kept.append(*(place.says(LOG, f"{at}", telescope_uid=telescopes[at % 200]) for at in range(10_000)))
    assert await read(kept.log, LOG) == [f"{at}" for at in range(10_000)]
    assert await read(kept.log, LOG, StreamFilter(telescope_uid=tuple(telescopes))) == [f"{at}" for at in range(10_000)]
    few = StreamFilter(telescope_uid=(telescopes[3], telescopes[5]))
    assert await read(kept.log, LOG, few) == [f"{at}" for at in range(10_000) if at % 200 in (3, 5)]


async def test_what_is_no_longer_kept_is_gone_and_said(kept: Kept, places: tuple[Place, Place]) -> None:
    place, _ = places
    await kept.append(*(place.says(LOG, f"{at}", received_at=NOW) for at in range(1, 6)))
    await kept.drop(through=3)
    assert (await kept.log.floor(), await kept.log.head()) == (3, 5)
    assert [event.position for event in await kept.log.tail(0)] == [4, 5]
    assert await read(kept.log, LOG) == ["4", "5"]
    await kept.append(place.says(LOG, "6"))
    assert (await kept.log.floor(), await kept.log.head()) == (3, 6)


TUPLES = """
    SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::int
    FROM pg_stat_user_tables
    WHERE relid IN (SELECT relid FROM pg_partition_tree('skygw.log'))
"""


async def test_a_page_reads_what_fits_and_hardly_more(places: tuple[Place, Place], postgres: PostgresServer) -> None:
    here, there = places
    owner_url, gateway_url = postgres.new_database()
    await provision(owner_url, [place.records for place in places])
    async with open_loop_and_database(gateway_url, size=1) as database:
        log = PgEventLog(database)
        writer = InPostgres(log, owner_url)
        crowd = there.says(LOG, "crowd", device_uid=there.mount_uid)
        mine = here.says(LOG, "mine", device_uid=here.mount_uid)
        rare = there.says(RESULT, "rare", device_uid=there.mount_uid)
        dome = here.says_of_dome(LOG, "dome", device_uid=here.dome_uid)
        await writer.append(*[crowd] * 9_000)
        with psycopg.connect(owner_url) as connection:
            connection.execute("ANALYZE skygw.log")  # plans are made for a log of nothing but the crowd
        for _ in range(3):
            await writer.append(*[crowd] * 1_000, mine, dome, here.says(None, "gap"), rare)

        async def tuples() -> int:
            async with database.connection() as connection:
                await connection.execute("SELECT pg_stat_force_next_flush()")
                return int(await connection.fetchval(TUPLES))

        read_for: dict[str, int] = {}
        found: dict[str, list[str]] = {}
        for name, stream, wanted in (
            ("stream", RESULT, StreamFilter()),
            ("telescope", LOG, StreamFilter(telescope_uid=(here.telescope_uid,))),
            ("device", LOG, StreamFilter(device_uid=(here.mount_uid,))),
            ("installation", LOG, StreamFilter(install_id=(here.install_id,))),
            ("observatory", LOG, StreamFilter(observatory_uid=(here.observatory_uid,))),
            ("dome", LOG, StreamFilter(device_uid=(here.dome_uid,))),
            ("rare one of the crowd", RESULT, StreamFilter(telescope_uid=(there.telescope_uid,))),
            ("nobody", LOG, StreamFilter(telescope_uid=(uuid4(),))),
        ):
            before = await tuples()
            found[name] = await read(log, stream, wanted)
            read_for[name] = await tuples() - before
    assert found == {
        "stream": ["gap", "rare"] * 3,
        "telescope": ["mine", "gap"] * 3,
        "device": ["mine", "gap"] * 3,
        "installation": ["mine", "gap"] * 3,
        "observatory": ["mine", "dome", "gap"] * 3,
        "dome": ["dome"] * 3,
        "rare one of the crowd": ["rare"] * 3,
        "nobody": [],
    }
    assert max(read_for.values()) < 100, read_for


async def test_what_a_log_gave_before_it_was_restored_is_not_given_again(
    kept: Kept, places: tuple[Place, Place]
) -> None:
    place = places[0]
    await kept.append(place.says(LOG, '"before"'))
    await kept.log.lift(9)
    await kept.log.lift(5)
    await kept.append(place.says(LOG, '"after"'))
    found = await kept.log.tail(1)
    assert [(event.position, event.kind, event.stream, event.install_id) for event in found] == [
        (9, LogKind.GAP, None, None),
        (10, LogKind.EVENT, LOG, place.install_id),
    ]
    assert await kept.log.head() == 10
    for wanted in (EVERYTHING, StreamFilter(device_uid=(place.mount_uid,)), StreamFilter(telescope_uid=(uuid4(),))):
        (gap, *_) = await kept.log.page(LOG, 1, upto=10, wanted=wanted)
        assert (gap.position, gap.kind) == (9, LogKind.GAP)


async def test_readers_of_the_past_leave_connections_to_the_others(postgres: PostgresServer) -> None:
    async with open_loop_and_database(postgres.gateway_url, size=REPLAYS_AT_ONCE + 1) as database:
        log = PgEventLog(database)
        held = psycopg.connect(postgres.owner_url)
        try:
            held.execute("LOCK TABLE skygw.log IN ACCESS EXCLUSIVE MODE")
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(partial(log.page, LOG, 0, upto=1, wanted=EVERYTHING))
                await trio.testing.wait_all_tasks_blocked(0.05)
                with trio.fail_after(3):
                    await database.ping()
                nursery.cancel_scope.cancel()
        finally:
            held.close()
        assert database.available
