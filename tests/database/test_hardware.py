"""Revisions of the hardware graph: one for each transaction that changes what an observatory sees, in their order."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID, uuid4

import psycopg
import pytest
import trio

from skygw.database.hardware import PgHardware
from skygw.database.listening import Listening
from skygw.database.pool import Database, open_loop_and_database
from skygw.database.provision import provision
from skygw.demo.records import records_of
from skygw.ids import InstallId
from skygw.sim.blueprint import FILTERS, SiteBlueprint, draw_site, filter_uid
from tests.fakes.postgres import PostgresServer

PATIENCE_S = 20.0


@dataclass
class Hub:
    """A database of its own with two observatories of two telescopes each."""

    owner_url: str
    database: Database
    graphs: PgHardware
    here: SiteBlueprint
    there: SiteBlueprint

    def do(self, *statements: str, **values: object) -> None:
        """In one transaction."""
        with psycopg.connect(self.owner_url) as connection:
            for statement in statements:
                connection.execute(statement.encode(), values or None)

    async def revisions(self) -> tuple[int, int]:
        known = await self.graphs.revisions()
        return known[self.here.observatory_uid], known[self.there.observatory_uid]

    async def changes(self, install_id: UUID, since: int) -> tuple[set[str], set[str], bool]:
        """What came, what went, and whether it was everything."""
        told = await self.graphs.changes(InstallId(install_id), since)
        assert told is not None
        return set(json.loads(told.upserted)), {str(uid) for uid in told.removed}, told.complete

    async def resources(self, install_id: UUID) -> dict[str, dict[str, object]]:
        graph = await self.graphs.graph(InstallId(install_id))
        assert graph is not None
        found: dict[str, dict[str, object]] = json.loads(graph.resources)
        return found


@pytest.fixture
async def hub(postgres: PostgresServer) -> AsyncIterator[Hub]:
    owner_url, gateway_url = postgres.new_database()
    here, there = draw_site("graph", 1, telescopes=2), draw_site("graph", 2, telescopes=2)
    await provision(owner_url, [records_of(here), records_of(there)])
    async with open_loop_and_database(gateway_url) as database:
        yield Hub(owner_url, database, PgHardware(database), here, there)


# What is in sight.


async def test_a_telescopes_node_sees_its_own_and_what_is_shared_and_nothing_of_its_neighbour(hub: Hub) -> None:
    mine, neighbour = hub.here.telescopes
    seen = await hub.resources(mine.install_id)
    kinds = sorted(str(resource["resourceType"]) for resource in seen.values())
    assert kinds == sorted(
        [
            *("observatory", "site", "telescope", "instrument", "ip_camera"),
            *["device"] * 7,
            *["filter"] * len(FILTERS),
            *["filter_wheel_position"] * len(FILTERS),
            *["operational_constraint"] * 2,
        ]
    )
    assert {str(hub.here.weather_sensor_uid), str(hub.here.enclosure_uid)} <= set(seen)
    assert not {str(neighbour.uid), str(neighbour.mount_uid), str(neighbour.instrument_uid)} & set(seen)
    assert set(seen) < set(await hub.resources(hub.here.install_id))


async def test_resources_refer_to_each_other_by_uid(hub: Hub) -> None:
    telescope = hub.here.telescopes[0]
    seen = await hub.resources(telescope.install_id)
    position = seen[str(telescope.position_uids[1])]
    assert position["deviceUid"] == str(telescope.filter_wheel_uid)
    assert position["filterUid"] == str(filter_uid(FILTERS[1].filter_id))
    assert seen[str(position["filterUid"])]["name"] == FILTERS[1].name
    instrument = seen[str(telescope.instrument_uid)]
    assert instrument["telescopeUid"] == str(telescope.uid)
    parts = (telescope.ota_uid, telescope.camera_uid, telescope.focuser_uid, telescope.filter_wheel_uid)
    assert instrument["deviceUids"] == sorted(str(uid) for uid in parts)
    assert list(instrument)[:2] == ["resourceType", "instrumentType"]


async def test_columns_the_platform_adds_come_along_as_far_as_the_role_may_read_them(hub: Hub) -> None:
    hub.do(
        "ALTER TABLE device ADD COLUMN serial_number text DEFAULT 'SN 7', "
        "ADD COLUMN backup_device_id int REFERENCES device, ADD COLUMN last_service timestamptz DEFAULT '2026-11-22 03:00+02'",
        "ALTER TABLE ip_camera ADD COLUMN password text DEFAULT 'hunter2'",
        "REVOKE SELECT ON ip_camera FROM skynet_gateway",
        "GRANT SELECT (id, uid, name, telescope_id, observatory_id, is_deleted) ON ip_camera TO skynet_gateway",
    )
    hub.do(
        "UPDATE device SET backup_device_id = (SELECT id FROM device WHERE uid = %(other)s)",
        other=hub.here.weather_sensor_uid,
    )
    seen = await hub.resources(hub.here.install_id)
    roof = seen[str(hub.here.enclosure_uid)]
    assert (roof["serialNumber"], roof["backupDeviceUid"]) == ("SN 7", str(hub.here.weather_sensor_uid))
    assert roof["lastService"] == "2026-11-22T01:00:00+00:00"
    assert "password" not in seen[str(hub.here.ip_camera_uid)]


async def test_an_installation_that_is_not_there_has_no_graph(hub: Hub) -> None:
    assert await hub.graphs.graph(InstallId(uuid4())) is None
    assert await hub.graphs.changes(InstallId(uuid4()), 0) is None
    assert await hub.graphs.stamp(InstallId(uuid4())) is None


# What makes a revision.


async def test_a_change_bumps_its_own_observatory_and_no_other(hub: Hub) -> None:
    before = await hub.revisions()
    hub.do("UPDATE device SET name = 'x' WHERE uid = %(uid)s", uid=hub.here.enclosure_uid)
    after = await hub.revisions()
    assert (after[0] > before[0], after[1]) == (True, before[1])


async def test_what_is_written_and_is_the_same_bumps_nothing(hub: Hub) -> None:
    before = await hub.revisions()
    hub.do("UPDATE device SET name = name", "UPDATE sky_node_installation SET name = name || '.'")
    assert await hub.revisions() == before


async def test_what_is_rolled_back_bumps_nothing(hub: Hub) -> None:
    before = await hub.revisions()
    with psycopg.connect(hub.owner_url) as connection:
        connection.execute("UPDATE device SET name = 'x'")
        connection.rollback()
    assert await hub.revisions() == before


async def test_a_filter_bumps_every_observatory_that_uses_it(hub: Hub) -> None:
    before = await hub.revisions()
    used = filter_uid(FILTERS[0].filter_id)
    hub.do("UPDATE filter SET name = 'clear' WHERE uid = %(uid)s", uid=used)
    after = await hub.revisions()
    assert after[0] == after[1] > max(before)
    for site, since in ((hub.here, before[0]), (hub.there, before[1])):
        assert await hub.changes(site.telescopes[1].install_id, since) == ({str(used)}, set(), False)
    hub.do("INSERT INTO filter (uid, name) VALUES (gen_random_uuid(), 'unused')")
    assert await hub.revisions() == after


async def test_a_device_that_moves_between_observatories_goes_here_and_comes_there(hub: Hub) -> None:
    before = await hub.revisions()
    mine, other = hub.here.telescopes[0], hub.there.telescopes[0]
    hub.do(
        "UPDATE device SET (telescope_id, observatory_id) = "
        "(SELECT id, observatory_id FROM telescope WHERE uid = %(to)s) WHERE uid = %(uid)s",
        to=other.uid,
        uid=mine.filter_wheel_uid,
    )
    wheel = {str(mine.filter_wheel_uid), *map(str, mine.position_uids)}
    filters = {str(filter_uid(each.filter_id)) for each in FILTERS}
    came, went, complete = await hub.changes(mine.install_id, before[0])
    assert (came, went, complete) == ({str(mine.instrument_uid)}, wheel | filters, False)
    came, went, complete = await hub.changes(other.install_id, before[1])
    assert (came, went, complete) == (wheel | filters, set(), False)
    assert (await hub.changes(hub.here.telescopes[1].install_id, before[0]))[:2] == (set(), set())


async def test_many_rows_in_one_transaction_are_one_revision(hub: Hub) -> None:
    said, hearing = trio.open_memory_channel[str](100)
    listens = trio.Event()

    async def began() -> None:
        await trio.lowlevel.checkpoint()
        listens.set()

    listening = Listening(hub.database, "skygw_graph", heard=said.send_nowait, began=began, lost=lambda: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listening.run)
        await listens.wait()
        with psycopg.connect(hub.owner_url) as connection, connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO device (uid, name, device_type, observatory_id) "
                "SELECT gen_random_uuid(), '', 'camera', id FROM observatory, generate_series(1, 2000) "
                "WHERE observatory.uid = %s RETURNING id",
                [hub.here.observatory_uid],
            )
            cursor.executemany("UPDATE device SET name = 'x' WHERE id = %s", cursor.fetchall())
        many = (await hub.revisions())[0]
        hub.do("UPDATE device SET name = 'y' WHERE uid = %(uid)s", uid=hub.here.enclosure_uid)
        one = (await hub.revisions())[0]
        with trio.fail_after(PATIENCE_S):
            heard = [await hearing.receive(), await hearing.receive()]
        nursery.cancel_scope.cancel()
    assert heard == [f"{hub.here.observatory_uid} {revision}" for revision in (many, one)]
    assert len(await hub.resources(hub.here.install_id)) > 2000


@pytest.mark.parametrize("table", ["ip_camera", "filter_wheel_position", "instrument_device"])
async def test_a_table_that_is_emptied_leaves_nobody_with_what_was_in_it(hub: Hub, table: str) -> None:
    before = await hub.revisions()
    hub.do(f"TRUNCATE {table}")
    after = await hub.revisions()
    assert min(after) > max(before)
    came, _, complete = await hub.changes(hub.here.install_id, before[0])
    assert (came, complete) == (set(await hub.resources(hub.here.install_id)), True)


async def test_who_is_bound_to_another_telescope_is_told_everything(hub: Hub) -> None:
    before = await hub.revisions()
    mine, other = hub.here.telescopes[0], hub.there.telescopes[0]
    hub.do(
        "UPDATE sky_node_installation SET (telescope_id, observatory_id) = "
        "(SELECT id, observatory_id FROM telescope WHERE uid = %(to)s) WHERE uid = %(uid)s",
        to=other.uid,
        uid=mine.install_id,
    )
    came, _, complete = await hub.changes(mine.install_id, before[0])
    assert complete
    assert {str(other.uid), str(other.mount_uid)} <= came


async def test_a_difference_is_told_from_the_last_256_revisions_and_no_others(hub: Hub) -> None:
    first = (await hub.revisions())[0]
    with psycopg.connect(hub.owner_url, autocommit=True) as connection:
        for number in range(255):
            connection.execute("UPDATE device SET name = %s WHERE uid = %s", [str(number), hub.here.enclosure_uid])
    assert await hub.changes(hub.here.install_id, first) == ({str(hub.here.enclosure_uid)}, set(), False)
    hub.do("UPDATE device SET name = 'last' WHERE uid = %(uid)s", uid=hub.here.enclosure_uid)
    assert (await hub.changes(hub.here.install_id, first))[2]


async def test_two_transactions_that_cross_do_not_stand_in_each_others_way(hub: Hub) -> None:
    """Each changes both observatories, in the other order: only their commits wait for each other."""
    rename = "UPDATE device SET name = name || 'x' WHERE uid = %s"
    one, other = hub.here.telescopes[0].mount_uid, hub.there.telescopes[0].mount_uid
    with psycopg.connect(hub.owner_url) as first, psycopg.connect(hub.owner_url) as second:
        first.execute(rename, [one])
        second.execute(rename, [other])
        first.execute(rename, [hub.there.telescopes[1].mount_uid])
        second.execute(rename, [hub.here.telescopes[1].mount_uid])
        first.commit()
        second.commit()
    assert (await hub.revisions())[0] == (await hub.revisions())[1]
