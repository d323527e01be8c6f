"""Epochs grow at every claim, everywhere, whatever the ledger has forgotten."""

from functools import partial
from uuid import UUID, uuid4

import psycopg
import pytest
import trio
import trio.testing

from skygw.database.migrate import prepare_development
from skygw.database.node_sessions import LARGEST_LEAP, NodeSessions
from skygw.database.pool import Database, open_database
from skygw.errors import StoreFailed
from skygw.ids import InstallId, InstanceUid
from tests.fakes.postgres import PostgresServer


@pytest.fixture
def sessions(database: Database) -> NodeSessions:
    return NodeSessions(database)


async def claim(
    sessions: NodeSessions,
    install_id: InstallId,
    *,
    instance: InstanceUid | None = None,
    last_epoch: int = 0,
    fences: dict[UUID, int] | None = None,
) -> int:
    claimed = await sessions.claim(
        install_id=install_id,
        instance_uid=instance or InstanceUid(uuid4()),
        last_epoch=last_epoch,
        last_fences=fences or {},
    )
    return claimed.epoch


def fence_of(postgres: PostgresServer, resource: UUID) -> int:
    with psycopg.connect(postgres.gateway_url) as connection:
        row = connection.execute("SELECT fence FROM skygw.fence WHERE resource_uid = %s", [resource]).fetchone()
    assert row is not None
    return int(row[0])


def machine_of(postgres: PostgresServer, install_id: InstallId) -> UUID | None:
    with psycopg.connect(postgres.gateway_url) as connection:
        found = "SELECT instance_uid FROM skygw.node_session WHERE install_id = %s"
        row = connection.execute(found, [install_id]).fetchone()
    return None if row is None else row[0]


async def test_each_claim_is_above_the_one_before(sessions: NodeSessions) -> None:
    install_id = InstallId(uuid4())
    assert [await claim(sessions, install_id) for _ in range(3)] == [1, 2, 3]


async def test_installations_count_by_themselves(sessions: NodeSessions) -> None:
    assert await claim(sessions, InstallId(uuid4())) == 1
    assert await claim(sessions, InstallId(uuid4())) == 1


async def test_a_claim_is_above_what_the_node_remembers_from_before_a_restored_backup(
    sessions: NodeSessions,
) -> None:
    install_id = InstallId(uuid4())
    assert await claim(sessions, install_id, last_epoch=40) == 41
    assert await claim(sessions, install_id, last_epoch=7) == 42


async def test_one_claim_cannot_use_up_the_numbers_of_the_real_node(sessions: NodeSessions) -> None:
    install_id = InstallId(uuid4())
    assert await claim(sessions, install_id, last_epoch=2**52) == LARGEST_LEAP + 1
    assert await claim(sessions, install_id, last_epoch=2**52) == 2 * LARGEST_LEAP + 2
    assert await claim(sessions, install_id, last_epoch=3) == 2 * LARGEST_LEAP + 3


async def test_claims_at_the_same_time_get_different_epochs(sessions: NodeSessions) -> None:
    install_id = InstallId(uuid4())
    epochs: list[int] = []
    fences = {uuid4(): 1 for _ in range(5)}

    async def run(order: list[UUID]) -> None:
        epochs.append(await claim(sessions, install_id, fences={uid: fences[uid] for uid in order}))

    async with trio.open_nursery() as nursery:
        for turn in range(10):
            nursery.start_soon(run, list(fences) if turn % 2 else list(reversed(fences)))
    assert sorted(epochs) == list(range(1, 11))


async def test_claims_of_many_at_the_same_time_are_each_above_the_ledger_and_the_node(
    sessions: NodeSessions, postgres: PostgresServer
) -> None:
    new, known, ahead, raising = (InstallId(uuid4()) for _ in range(4))
    resource = uuid4()
    for install_id in (known, ahead):
        await claim(sessions, install_id)
    claimed: dict[InstallId, int] = {}

    async def run(install_id: InstallId, last_epoch: int, fences: dict[UUID, int]) -> None:
        claimed[install_id] = await claim(sessions, install_id, last_epoch=last_epoch, fences=fences)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, new, 0, {})
        nursery.start_soon(run, known, 0, {})
        nursery.start_soon(run, ahead, 9, {})
        nursery.start_soon(run, raising, 5, {resource: 3})
    assert claimed == {new: 1, known: 2, ahead: 10, raising: 6}
    assert fence_of(postgres, resource) == 3


async def test_a_claim_that_waits_for_somebodys_lock_keeps_no_other_waiting(
    sessions: NodeSessions, postgres: PostgresServer
) -> None:
    locked, free = InstallId(uuid4()), InstallId(uuid4())
    await claim(sessions, locked)
    claimed: list[tuple[InstallId, int]] = []

    async def run(install_id: InstallId) -> None:
        claimed.append((install_id, await claim(sessions, install_id)))

    with psycopg.connect(postgres.gateway_url) as rival:
        rival.execute("UPDATE skygw.node_session SET epoch = 7 WHERE install_id = %s", [locked])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, locked)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(3):
                await run(free)
            assert claimed == [(free, 1), (free, 2), (free, 3)]
            rival.commit()
    assert claimed[-1] == (locked, 8)


async def test_a_claim_that_cannot_be_stored_fails_no_other(sessions: NodeSessions) -> None:
    good, bad = InstallId(uuid4()), InstallId(uuid4())
    claimed: dict[InstallId, int] = {}
    refused: list[InstallId] = []

    async def run(install_id: InstallId, last_epoch: int) -> None:
        try:
            claimed[install_id] = await claim(sessions, install_id, last_epoch=last_epoch)
        except StoreFailed:
            refused.append(install_id)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, InstallId(uuid4()), 0)
        nursery.start_soon(run, bad, 2**70)
        nursery.start_soon(run, good, 4)
    assert refused == [bad]
    assert claimed[good] == 5


async def test_fences_rise_to_what_the_node_remembers_and_never_fall(
    sessions: NodeSessions, postgres: PostgresServer
) -> None:
    install_id, high, low = InstallId(uuid4()), uuid4(), uuid4()
    await claim(sessions, install_id, fences={high: 5, low: 9})
    await claim(sessions, install_id, fences={high: 8, low: 3})
    assert (fence_of(postgres, high), fence_of(postgres, low)) == (8, 9)


async def test_the_ledger_has_one_name_and_a_database_made_anew_has_another(
    sessions: NodeSessions, postgres: PostgresServer
) -> None:
    async def name_of(ledger: NodeSessions) -> UUID:
        claimed = await ledger.claim(
            install_id=InstallId(uuid4()), instance_uid=InstanceUid(uuid4()), last_epoch=0, last_fences={}
        )
        return claimed.registry_uid

    owner, gateway = postgres.new_database(empty=True)
    await prepare_development(owner)
    async with open_database(gateway) as anew:
        other = await name_of(NodeSessions(anew))
    assert await name_of(sessions) == await name_of(sessions) != other


async def test_a_transfer_is_remembered_and_keeps_the_epoch(sessions: NodeSessions, postgres: PostgresServer) -> None:
    install_id, first, second = InstallId(uuid4()), InstanceUid(uuid4()), InstanceUid(uuid4())
    assert machine_of(postgres, install_id) is None
    await claim(sessions, install_id, instance=first)
    assert machine_of(postgres, install_id) == first
    await sessions.transfer(install_id, second)
    assert machine_of(postgres, install_id) == second
    assert await claim(sessions, install_id, instance=second) == 2


async def test_an_installation_that_never_came_can_be_transferred(
    sessions: NodeSessions, postgres: PostgresServer
) -> None:
    install_id, machine = InstallId(uuid4()), InstanceUid(uuid4())
    await sessions.transfer(install_id, machine)
    assert machine_of(postgres, install_id) == machine
    assert await claim(sessions, install_id, instance=machine) == 1


async def test_a_claim_takes_fences_in_one_order_so_that_two_never_lock_each_other_out(
    sessions: NodeSessions, postgres: PostgresServer
) -> None:
    install_id, low, high = InstallId(uuid4()), *sorted([uuid4(), uuid4()])
    await claim(sessions, install_id, fences={low: 1, high: 1})
    with (
        psycopg.connect(postgres.gateway_url) as rival,
        psycopg.connect(postgres.owner_url, autocommit=True) as watcher,
    ):
        rival.execute("UPDATE skygw.fence SET fence = 5 WHERE resource_uid = %s", [low])
        blocked = "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(claim, sessions, install_id, fences={high: 2, low: 2}))
            with trio.fail_after(10):
                while watcher.execute(blocked, [rival.info.backend_pid]).fetchone() == (0,):
                    await trio.lowlevel.checkpoint()
            rival.execute("SET lock_timeout = '100ms'")
            rival.execute("UPDATE skygw.fence SET fence = 5 WHERE resource_uid = %s", [high])
            rival.commit()
    assert (fence_of(postgres, low), fence_of(postgres, high)) == (5, 5)
