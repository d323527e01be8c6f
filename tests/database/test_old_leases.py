"""A lease of before there were tasks is one that was given while none ran, and its holder keeps it."""

from uuid import uuid4

import psycopg

from skygw.control.lease import Holder, LeaseProof, WhileTask, digest
from skygw.database.leases import PgLeases
from skygw.database.migrate import migrate
from skygw.database.platform import create_platform
from skygw.database.pool import open_loop_and_database
from skygw.ids import LeaseId, LeaseUid
from tests.database.test_old_reports import migrate_up_to
from tests.fakes.postgres import PostgresServer

INSERT = """
    WITH fence AS (INSERT INTO skygw.fence (resource_uid, fence) VALUES (%(telescope)s, 3))
    INSERT INTO skygw.lease (lease_id, secret, resource_uid, resource_kind, install_id, observatory_uid, telescope_uid,
                             service, fence, duration_s, warn_s, on_expiry, acquired_at, expires_at, changed_at)
    VALUES (%(lease)s, %(secret)s, %(telescope)s, 'telescope', %(telescope)s, %(telescope)s, %(telescope)s,
            'web', 3, 300, 60, 'stop', now(), now() + interval '5 minutes', now())
"""


async def test_a_lease_of_before_goes_on(postgres: PostgresServer) -> None:
    owner_url, gateway_url = postgres.new_database(empty=True)
    create_platform(owner_url)
    migrate_up_to(owner_url, "0007_command_audit")
    lease_id, lease_uid, telescope = LeaseId(uuid4()), LeaseUid(uuid4()), uuid4()
    with psycopg.connect(gateway_url) as connection:
        connection.execute(INSERT, {"lease": lease_id, "secret": digest(lease_uid), "telescope": telescope})
    await migrate(owner_url)
    async with open_loop_and_database(gateway_url) as database:
        renewed = await PgLeases(database).renew(lease_id, LeaseProof(Holder("web"), lease_uid), None)
    assert renewed.held is not None
    assert (renewed.held.while_task, renewed.waits_for) == (WhileTask.REFUSE, None)
    with psycopg.connect(owner_url) as connection:
        told = connection.execute(
            "SELECT data::json->>'while_task' FROM skygw.log WHERE stream = 'manual_control_lease' ORDER BY position"
        ).fetchall()
    assert told == [(None,), ("refuse",)]
