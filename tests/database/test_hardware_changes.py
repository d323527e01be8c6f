"""Whoever has the graph of a revision, any revision, and takes what has changed since, has the graph of now."""

import json
from collections.abc import AsyncIterator, Sequence
from random import Random
from typing import Any
from uuid import UUID

import psycopg
import pytest
import trio

from skygw.database.hardware import PgHardware
from skygw.database.pool import open_loop_and_database
from skygw.ids import InstallId
from tests.fakes.hardware_records import TOLD_AS_A_WHOLE, TOLD_ONE_BY_ONE, Change, Hall
from tests.fakes.postgres import PostgresServer

STEPS = 60
WRITERS = 3
ROUNDS = 20

Resources = dict[str, Any]


@pytest.fixture
def hall(postgres: PostgresServer) -> tuple[Hall, str]:
    owner_url, gateway_url = postgres.new_database()
    return Hall(owner_url), gateway_url


@pytest.fixture
async def hardware(hall: tuple[Hall, str]) -> AsyncIterator[PgHardware]:
    async with open_loop_and_database(hall[1]) as database:
        yield PgHardware(database)


async def read(hardware: PgHardware, install_id: UUID) -> tuple[int, Resources]:
    graph = await hardware.graph(InstallId(install_id))
    assert graph is not None
    return graph.stamp.revision, json.loads(graph.resources)


async def caught_up(hardware: PgHardware, install_id: UUID, since: int, had: Resources) -> tuple[int, Resources]:
    """What somebody makes of what he had and of what he is told."""
    changes = await hardware.changes(InstallId(install_id), since)
    assert changes is not None
    upserted: Resources = json.loads(changes.upserted)
    removed = {str(uid) for uid in changes.removed}
    assert not removed & set(upserted)
    kept = {} if changes.complete else {uid: value for uid, value in had.items() if uid not in removed}
    return changes.stamp.revision, {**kept, **upserted}


def differences(made: Resources, now: Resources) -> Resources:
    return {uid: (made.get(uid), now.get(uid)) for uid in {*made, *now} if made.get(uid) != now.get(uid)}


async def change_at_random(
    connection: psycopg.Connection, random: Random, hall: Hall, among: Sequence[Change] = TOLD_ONE_BY_ONE
) -> None:
    """One transaction of a few changes; one in five is given up."""

    def change() -> None:
        with connection.transaction(force_rollback=random.random() < 0.2):
            for _ in range(random.randint(1, 3)):
                random.choice(among)(connection, random, hall)

    await trio.to_thread.run_sync(change)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "among", [TOLD_ONE_BY_ONE, (*TOLD_ONE_BY_ONE, *TOLD_AS_A_WHOLE)], ids=["one by one", "one by one or as a whole"]
)
async def test_what_has_changed_since_any_revision_makes_the_graph_of_now(
    hall: tuple[Hall, str], hardware: PgHardware, among: Sequence[Change], seed: int
) -> None:
    records, random = hall[0], Random(seed)  # noqa: S311
    seen: list[tuple[UUID, int, Resources]] = []
    with psycopg.connect(records.owner_url, autocommit=True) as connection:
        for _ in range(STEPS):
            await change_at_random(connection, random, records, among)
            reader = random.choice(records.installations)
            seen.append((reader, *await read(hardware, reader)))
            for install_id, since, had in random.sample(seen, min(3, len(seen))):
                made, now = await caught_up(hardware, install_id, since, had), await read(hardware, install_id)
                assert (made[0], differences(made[1], now[1])) == (now[0], {}), since


async def test_changes_that_are_committed_at_the_same_time_are_missed_by_nobody(
    hall: tuple[Hall, str], hardware: PgHardware
) -> None:
    records = hall[0]
    random = Random(9)  # noqa: S311
    writing = WRITERS
    unequal: list[tuple[int, UUID]] = []

    async def write(number: int) -> None:
        nonlocal writing
        mine = Random(number)  # noqa: S311
        with psycopg.connect(records.owner_url, autocommit=True) as connection:
            for _ in range(ROUNDS):
                try:
                    await change_at_random(connection, mine, records)
                except (psycopg.errors.DeadlockDetected, psycopg.errors.IntegrityError):
                    continue  # two of them wanted the same rows; that one was undone
        writing -= 1

    held = {install_id: await read(hardware, install_id) for install_id in records.installations}
    async with trio.open_nursery() as nursery:
        for number in range(WRITERS):
            nursery.start_soon(write, number)
        while writing:
            install_id = random.choice(records.installations)
            held[install_id] = await caught_up(hardware, install_id, *held[install_id])
    for install_id, had in held.items():
        if (await caught_up(hardware, install_id, *had))[1] != (await read(hardware, install_id))[1]:
            unequal.append((had[0], install_id))
    assert unequal == []


async def test_a_filter_that_is_renamed_while_another_begins_to_use_it_is_told_by_its_new_name(
    hall: tuple[Hall, str], hardware: PgHardware
) -> None:
    """Neither transaction sees the other's rows before it commits."""
    records = hall[0]
    with psycopg.connect(records.owner_url) as connection:
        uid = connection.execute("SELECT uid FROM sky_node_installation WHERE node_type = 'observatory'").fetchone()
        wheel = connection.execute(
            "INSERT INTO device (uid, name, device_type, observatory_id) "
            "SELECT gen_random_uuid(), '', 'filter_wheel', observatory_id FROM sky_node_installation WHERE uid = %s "
            "RETURNING id",
            uid,
        ).fetchone()
        which = connection.execute(
            "INSERT INTO filter (uid, name) VALUES (gen_random_uuid(), 'old') RETURNING id, uid"
        ).fetchone()
    assert uid is not None
    assert wheel is not None
    assert which is not None
    with psycopg.connect(records.owner_url) as renaming, psycopg.connect(records.owner_url) as using:
        renaming.execute("UPDATE filter SET name = 'new' WHERE id = %s", [which[0]])
        using.execute(
            "INSERT INTO filter_wheel_position (uid, device_id, position, filter_id) "
            "VALUES (gen_random_uuid(), %s, 1, %s)",
            [wheel[0], which[0]],
        )
        using.commit()
        held = await read(hardware, uid[0])
        assert held[1][str(which[1])]["name"] == "old"
        renaming.commit()
    _, now = await caught_up(hardware, uid[0], *held)
    assert now[str(which[1])]["name"] == "new"
    assert now == (await read(hardware, uid[0]))[1]
