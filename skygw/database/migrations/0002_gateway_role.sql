-- depends: 0001_gateway_schema

-- The role the gateway runs as, with what it needs and nothing else. Where it does not exist yet it is made
-- without a password: with password authentication nobody gets in until an administrator sets one.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'skynet_gateway') THEN
        CREATE ROLE skynet_gateway LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
    END IF;
END
$$;

-- The platform's tables are read.
GRANT SELECT ON observatory, telescope, sky_node_installation, device TO skynet_gateway;

GRANT USAGE ON SCHEMA skygw TO skynet_gateway;
GRANT SELECT ON skygw.registry, skygw.command_step TO skynet_gateway;
GRANT SELECT ON skygw._yoyo_migration TO skynet_gateway;
GRANT SELECT, INSERT, UPDATE ON skygw.node_session, skygw.fence, skygw.node_outbox TO skynet_gateway;
-- Append-only.
GRANT SELECT, INSERT ON skygw.node_report, skygw.command_transition TO skynet_gateway;
-- What a command is and who sent it never changes; how it fares does, and what was never written may go to another
-- installation when it is sent again.
GRANT SELECT, INSERT ON skygw.command TO skynet_gateway;
GRANT UPDATE (install_id, state, progress, epoch, deadline_at, updated_at, ended_at, result, error, proof, canceled,
              recorded_late)
    ON skygw.command TO skynet_gateway;
