-- depends: 0007_command_audit

-- Under which fence a command went, where somebody had control of what it is for: the lease is the one of that resource
-- with that fence.
ALTER TABLE skygw.command ADD COLUMN IF NOT EXISTS fence bigint;
ALTER TABLE skygw.command ADD COLUMN IF NOT EXISTS fence_uid uuid;
-- `deadline_at` may move, from the first towards the last one that the caller allows; null: it stays.
ALTER TABLE skygw.command ADD COLUMN IF NOT EXISTS deadline_first_at timestamptz;
ALTER TABLE skygw.command ADD COLUMN IF NOT EXISTS deadline_max_at timestamptz;
-- A new life has a fence and a budget of its own.
GRANT UPDATE (fence, fence_uid, deadline_first_at, deadline_max_at) ON skygw.command TO skynet_gateway;

-- What a gateway that ended had admitted may have been written, or not: only the node can tell.
INSERT INTO skygw.command_step (from_state, to_state) VALUES ('received', 'unknown') ON CONFLICT DO NOTHING;

-- Since which session of its installation this memory of a node is known: what was sent before, it cannot have got.
-- Null: since nobody knows when.
ALTER TABLE skygw.node_outbox ADD COLUMN IF NOT EXISTS known_epoch bigint;
UPDATE skygw.node_outbox AS outbox
SET known_epoch = session.epoch
FROM skygw.node_session AS session
WHERE session.install_id = outbox.install_id AND outbox.known_epoch IS NULL;

-- Every cancel that was asked for, whatever it met.
CREATE TABLE IF NOT EXISTS skygw.command_cancel (
    cancel_uid uuid PRIMARY KEY,
    command_id uuid NOT NULL REFERENCES skygw.command (command_id),
    -- Counts with that of `command_transition`: what came first, a step or a cancel.
    ordinal bigint NOT NULL DEFAULT nextval(pg_get_serial_sequence('skygw.command_transition', 'ordinal')),
    at timestamptz NOT NULL,
    mode text NOT NULL CHECK (mode IN ('graceful', 'immediate')),
    grace_s double precision,
    service text NOT NULL,
    actor jsonb
);
CREATE UNIQUE INDEX IF NOT EXISTS command_cancel_of_command ON skygw.command_cancel (command_id, ordinal);

-- As before, and with the fence.
CREATE OR REPLACE FUNCTION skygw.sealed_step(
    step skygw.command_transition, about skygw.command, at_position bigint
) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    asked record;
BEGIN
    -- On whose behalf: of whom the step names, else of whoever began this life of the command.
    SELECT life.service, life.actor INTO asked
    FROM skygw.command_transition AS life
    WHERE life.command_id = step.command_id AND life.ordinal <= step.ordinal AND life.service IS NOT NULL
        AND (life.ordinal = step.ordinal OR life.state = 'received')
    ORDER BY life.ordinal DESC
    LIMIT 1;
    IF NOT FOUND THEN
        SELECT about.service, about.actor INTO asked;
    END IF;
    RETURN json_build_object(
        'install_id', about.install_id,
        'position', at_position,
        'command_id', step.command_id,
        -- Of the target and the bytes of the command: what makes it this command.
        'command_sha256', encode(about.command_sha256, 'hex'),
        'ordinal', step.ordinal,
        'at', step.at,
        'state', step.state,
        'hop', step.hop,
        'detail', step.detail,
        'epoch', about.epoch,
        'fence_uid', about.fence_uid,
        'fence', about.fence,
        'service', asked.service,
        'actor', asked.actor,
        'trace_id', about.trace_id,
        'recorded_late', about.recorded_late,
        'sealed_at', clock_timestamp()
    )::text;
END
$$;

-- The text that is sealed of a cancel.
CREATE OR REPLACE FUNCTION skygw.sealed_cancel(
    cancel skygw.command_cancel, about skygw.command, at_position bigint
) RETURNS text
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
    SELECT json_build_object(
        'install_id', about.install_id,
        'position', at_position,
        'command_id', cancel.command_id,
        'command_sha256', encode(about.command_sha256, 'hex'),
        'ordinal', cancel.ordinal,
        'at', cancel.at,
        'cancel', json_build_object('uid', cancel.cancel_uid, 'mode', cancel.mode, 'grace_s', cancel.grace_s),
        'epoch', about.epoch,
        'service', cancel.service,
        'actor', cancel.actor,
        'trace_id', about.trace_id,
        'sealed_at', clock_timestamp()
    )::text
$$;

-- Appends a step or a cancel to the chain of its installation. The head of the log is locked first, as by everybody who
-- appends to both: so there is one order of locks, and whoever holds a chain waits for nobody.
CREATE OR REPLACE FUNCTION skygw.seal_in_audit() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    about skygw.command;
    head skygw.audit_head;
    sealed text;
BEGIN
    PERFORM FROM skygw.log_head FOR UPDATE;
    SELECT * INTO STRICT about FROM skygw.command WHERE command_id = NEW.command_id;
    SELECT * INTO head FROM skygw.audit_head WHERE install_id = about.install_id FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO skygw.audit_head (install_id) VALUES (about.install_id) RETURNING * INTO head;
    END IF;
    head.position := head.position + 1;
    IF TG_TABLE_NAME = 'command_cancel' THEN
        sealed := skygw.sealed_cancel(NEW, about, head.position);
    ELSE
        sealed := skygw.sealed_step(NEW, about, head.position);
    END IF;
    head.hash := sha256(head.hash || convert_to(sealed, 'UTF8'));
    UPDATE skygw.audit_head SET position = head.position, hash = head.hash WHERE install_id = head.install_id;
    INSERT INTO skygw.command_audit (install_id, position, command_id, ordinal, entry, hash)
    VALUES (head.install_id, head.position, NEW.command_id, NEW.ordinal, sealed, head.hash);
    RETURN NULL;
END
$$;

DROP TRIGGER IF EXISTS seal_command_transition ON skygw.command_transition;
CREATE CONSTRAINT TRIGGER seal_command_transition
    AFTER INSERT ON skygw.command_transition
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION skygw.seal_in_audit();
DROP FUNCTION IF EXISTS skygw.seal_command_transition();

DROP TRIGGER IF EXISTS seal_command_cancel ON skygw.command_cancel;
CREATE CONSTRAINT TRIGGER seal_command_cancel
    AFTER INSERT ON skygw.command_cancel
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION skygw.seal_in_audit();

-- Append-only, and the order is not the gateway's to say.
GRANT SELECT ON skygw.command_cancel TO skynet_gateway;
GRANT INSERT (cancel_uid, command_id, at, mode, grace_s, service, actor) ON skygw.command_cancel TO skynet_gateway;
DO $$
BEGIN
    EXECUTE format(
        'GRANT USAGE ON SEQUENCE %s TO skynet_gateway', pg_get_serial_sequence('skygw.command_transition', 'ordinal')
    );
END
$$;
REVOKE ALL ON FUNCTION
    skygw.sealed_step(skygw.command_transition, skygw.command, bigint),
    skygw.sealed_cancel(skygw.command_cancel, skygw.command, bigint),
    skygw.seal_in_audit()
    FROM PUBLIC;
