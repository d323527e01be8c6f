"""The role the gateway runs as can do its work and nothing else."""

import psycopg
import pytest

from tests.fakes.postgres import PostgresServer

MAY_NOT = {
    "make a table in its schema": "CREATE TABLE skygw.mine (id int)",
    "make a table beside the platform's": "CREATE TABLE public.mine (id int)",
    "make a schema": "CREATE SCHEMA mine",
    "make a role": "CREATE ROLE mine",
    "make a database": "CREATE DATABASE mine",
    "make a function": "CREATE FUNCTION skygw.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "make a trigger": "CREATE TRIGGER t BEFORE INSERT ON skygw.command EXECUTE FUNCTION suppress_redundant_updates_trigger()",  # noqa: E501
    "alter its tables": "ALTER TABLE skygw.command ADD COLUMN mine int",
    "drop its tables": "DROP TABLE skygw.command",
    "drop its schema": "DROP SCHEMA skygw CASCADE",
    "empty its tables": "TRUNCATE skygw.log",
    "become the owner": "SET ROLE skynet_owner",
    "make itself a superuser": "ALTER ROLE skynet_gateway SUPERUSER",
    "read password hashes": "SELECT rolpassword FROM pg_authid",
    "read files of the server": "SELECT pg_read_file('postgresql.conf')",
    "run programs on the server": "COPY skygw.registry TO PROGRAM 'cat'",
    "reload the server's settings": "SELECT pg_reload_conf()",
    "change a transition": "UPDATE skygw.command_transition SET state = 'completed'",
    "delete a transition": "DELETE FROM skygw.command_transition",
    "change an event": "UPDATE skygw.log SET data = '{}'",
    "delete an event": "DELETE FROM skygw.log",
    "read or write past the log": "SELECT FROM skygw.log_default",
    "make a partition of the log": "CREATE TABLE skygw.log_19990101 PARTITION OF skygw.log FOR VALUES FROM ('1999-01-01') TO ('1999-01-02')",  # noqa: E501
    "drop a partition of the log": "DROP TABLE skygw.log_default",
    "take a partition out of the log": "ALTER TABLE skygw.log DETACH PARTITION skygw.log_default",
    "make partitions but by keeping the log": "SELECT skygw.make_log_day('1999-01-01')",
    "change how the log is kept": "ALTER FUNCTION skygw.keep_log(interval) RESET ALL",
    "replace how the log is kept": "CREATE OR REPLACE FUNCTION skygw.keep_log(keep interval) RETURNS boolean LANGUAGE sql AS 'SELECT true'",  # noqa: E501
    "say that events were dropped": "UPDATE skygw.log_head SET dropped_through = 1",
    "delete the head of the log": "DELETE FROM skygw.log_head",
    "make another head of the log": "INSERT INTO skygw.log_head DEFAULT VALUES",
    "keep command events out of the log": "ALTER TABLE skygw.command DISABLE TRIGGER log_command",
    "drop the triggers of command events": "DROP TRIGGER log_command_transition ON skygw.command_transition",
    "append with the owner's rights": "SELECT skygw.append_command_event(NULL, 'command', now(), '{}')",
    "write an audit of its own": "INSERT INTO skygw.command_audit VALUES (gen_random_uuid(), 1, gen_random_uuid(), 1, '{}', '')",  # noqa: E501
    "change the audit": "UPDATE skygw.command_audit SET entry = '{}'",
    "delete from the audit": "DELETE FROM skygw.command_audit",
    "empty the audit": "TRUNCATE skygw.command_audit",
    "set back a chain": "UPDATE skygw.audit_head SET position = 0",
    "begin a chain": "INSERT INTO skygw.audit_head VALUES (gen_random_uuid(), 7, '')",
    "change what was signed": "UPDATE skygw.audit_checkpoint SET position = 1",
    "delete what was signed": "DELETE FROM skygw.audit_checkpoint",
    "keep steps out of the audit": "ALTER TABLE skygw.command_transition DISABLE TRIGGER seal_command_transition",
    "keep all triggers from acting": "SET session_replication_role = replica",
    "drop the trigger of the audit": "DROP TRIGGER seal_command_transition ON skygw.command_transition",
    "seal with the owner's rights": "SELECT skygw.sealed_step(NULL, NULL, 1)",
    "replace what seals": "CREATE OR REPLACE FUNCTION skygw.seal_in_audit() RETURNS trigger LANGUAGE plpgsql AS ''",
    "change a cancel": "UPDATE skygw.command_cancel SET mode = 'graceful'",
    "delete a cancel": "DELETE FROM skygw.command_cancel",
    "say when a cancel came among the steps": "INSERT INTO skygw.command_cancel (cancel_uid, command_id, ordinal, at, mode, service) VALUES (gen_random_uuid(), gen_random_uuid(), 1, now(), 'graceful', '')",  # noqa: E501
    "count steps anew": "SELECT setval('skygw.command_transition_ordinal_seq', 1)",
    "keep cancels out of the audit": "ALTER TABLE skygw.command_cancel DISABLE TRIGGER seal_command_cancel",
    "seal a cancel with the owner's rights": "SELECT skygw.sealed_cancel(NULL, NULL, 1)",
    "delete a command": "DELETE FROM skygw.command",
    "change what a command was": "UPDATE skygw.command SET command = '{}'",
    "change who sent a command": "UPDATE skygw.command SET actor = NULL",
    "change which moves a command may make": "INSERT INTO skygw.command_step VALUES ('completed', 'running')",
    "delete an epoch": "DELETE FROM skygw.node_session",
    "delete a fence": "DELETE FROM skygw.fence",
    "delete an outbox": "DELETE FROM skygw.node_outbox",
    "delete a latest value": "DELETE FROM skygw.retained_value",
    "add an era": "INSERT INTO skygw.era VALUES (1)",
    "change the ledger's name": "UPDATE skygw.registry SET registry_uid = gen_random_uuid()",
    "make the migrations forget": "DELETE FROM skygw._yoyo_migration",
    "change an installation": "UPDATE sky_node_installation SET is_active = true",
    "add an installation": "INSERT INTO sky_node_installation (uid) VALUES (gen_random_uuid())",
    "delete an installation": "DELETE FROM sky_node_installation",
    "change a telescope": "UPDATE telescope SET control_authority = 'manual'",
    "change a device": "UPDATE device SET name = ''",
    "change an instrument": "UPDATE instrument SET name = ''",
    "change what an instrument is made of": "DELETE FROM instrument_device",
    "delete an asset": "DELETE FROM skygw.asset",
    "change what an asset was declared to be": "UPDATE skygw.asset SET sha256 = ''",
    "change whose an asset is": "UPDATE skygw.asset SET install_id = gen_random_uuid()",
    "delete a content": "DELETE FROM skygw.content",
    "change which content it is": "UPDATE skygw.content SET sha256 = ''",
    "change whose an upload is": "UPDATE skygw.upload SET install_id = gen_random_uuid()",
    "keep verified assets out of the log": "ALTER TABLE skygw.asset DISABLE TRIGGER log_asset",
    "drop the trigger of verified assets": "DROP TRIGGER log_asset ON skygw.asset",
    "delete an asset of the platform's": "DELETE FROM observation_asset",
    "change which file an asset is": "UPDATE observation_asset SET file_id = 1",
    "change the role of an asset": "UPDATE observation_asset SET role = 'DARK'",
    "change an observation": "UPDATE observation SET is_deleted = true",
    "change a constraint": "UPDATE operational_constraint SET name = ''",
    "change an observatory": "UPDATE observatory SET name = ''",
}


@pytest.mark.parametrize("statement", MAY_NOT.values(), ids=MAY_NOT.keys())
def test_the_gateways_role_may_not(postgres: PostgresServer, statement: str) -> None:
    with (
        psycopg.connect(postgres.gateway_url, autocommit=True) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement.encode())


def test_the_gateways_role_has_no_attribute_and_no_membership(postgres: PostgresServer) -> None:
    with psycopg.connect(postgres.gateway_url) as connection:
        attributes = connection.execute(
            "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls FROM pg_roles "
            "WHERE rolname = current_user"
        ).fetchone()
        memberships = connection.execute(
            "SELECT count(*) FROM pg_auth_members WHERE member = current_user::regrole"
        ).fetchone()
    assert attributes == (False,) * 5
    assert memberships == (0,)
