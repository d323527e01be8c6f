-- depends: 0003_event_log 0005_retained_values

-- Who asked for a step, where it was not whoever had sent the command: a repeat of it, a cancel, an administrator.
ALTER TABLE skygw.command_transition ADD COLUMN IF NOT EXISTS service text;
ALTER TABLE skygw.command_transition ADD COLUMN IF NOT EXISTS actor jsonb;

-- The audit: every step of every command, one chain of hashes for each installation. The gateway's role reads it; what
-- it writes are steps, and the owner's function below seals them. It is no part of the log, and nothing drops it.
CREATE TABLE IF NOT EXISTS skygw.command_audit (
    install_id uuid NOT NULL,
    -- Counts from 1, without holes.
    position bigint NOT NULL,
    command_id uuid NOT NULL,
    -- Which row of `command_transition` it seals.
    ordinal bigint NOT NULL,
    -- The step as it is sealed: JSON, kept as text, because the hash is over these bytes.
    entry text NOT NULL,
    -- SHA-256 over the hash before it (32 zero bytes before the first) and `entry` in UTF-8.
    hash bytea NOT NULL,
    PRIMARY KEY (install_id, position),
    UNIQUE (command_id, ordinal)
);

-- Where each chain ends.
CREATE TABLE IF NOT EXISTS skygw.audit_head (
    install_id uuid PRIMARY KEY,
    position bigint NOT NULL DEFAULT 0,
    hash bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex')
);

-- What a gateway has signed: so far the chain went, and then it had this hash.
CREATE TABLE IF NOT EXISTS skygw.audit_checkpoint (
    install_id uuid NOT NULL,
    position bigint NOT NULL,
    hash bytea NOT NULL,
    made_at timestamptz NOT NULL,
    -- Which key: the first 16 hexadecimal digits of the SHA-256 of the public one.
    key_id text NOT NULL,
    -- Ed25519, 64 bytes.
    signature bytea NOT NULL,
    PRIMARY KEY (install_id, position)
);

-- The text that is sealed of a step.
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
        'service', asked.service,
        'actor', asked.actor,
        'trace_id', about.trace_id,
        'recorded_late', about.recorded_late,
        'sealed_at', clock_timestamp()
    )::text;
END
$$;

-- Appends a step to the chain of its installation. The head of the log is locked first, as by everybody who appends to
-- both: so there is one order of locks, and whoever holds a chain waits for nobody.
CREATE OR REPLACE FUNCTION skygw.seal_command_transition() RETURNS trigger
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
    sealed := skygw.sealed_step(NEW, about, head.position);
    head.hash := sha256(head.hash || convert_to(sealed, 'UTF8'));
    UPDATE skygw.audit_head SET position = head.position, hash = head.hash WHERE install_id = head.install_id;
    INSERT INTO skygw.command_audit (install_id, position, command_id, ordinal, entry, hash)
    VALUES (head.install_id, head.position, NEW.command_id, NEW.ordinal, sealed, head.hash);
    RETURN NULL;
END
$$;

-- Deferred to the commit, like the triggers that tell the log.
DROP TRIGGER IF EXISTS seal_command_transition ON skygw.command_transition;
CREATE CONSTRAINT TRIGGER seal_command_transition
    AFTER INSERT ON skygw.command_transition
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION skygw.seal_command_transition();

-- What had happened before there was an audit; `sealed_at` says that it was sealed now. Creating the trigger has locked
-- the table against new steps until the commit. Each head is written once: a row that is written again and again in one
-- transaction is slower to find each time.
DO $$
DECLARE
    head skygw.audit_head;
    past record;
    sealed text;
BEGIN
    FOR past IN
        SELECT transition AS step, sent AS about
        FROM skygw.command_transition AS transition
        JOIN skygw.command AS sent ON sent.command_id = transition.command_id
        WHERE NOT EXISTS (
            SELECT FROM skygw.command_audit AS audit
            WHERE audit.command_id = transition.command_id AND audit.ordinal = transition.ordinal
        )
        ORDER BY sent.install_id, transition.ordinal
    LOOP
        IF head.install_id IS DISTINCT FROM (past.about).install_id THEN
            UPDATE skygw.audit_head SET position = head.position, hash = head.hash WHERE install_id = head.install_id;
            INSERT INTO skygw.audit_head (install_id) VALUES ((past.about).install_id) ON CONFLICT DO NOTHING;
            SELECT * INTO STRICT head FROM skygw.audit_head WHERE install_id = (past.about).install_id FOR UPDATE;
        END IF;
        head.position := head.position + 1;
        sealed := skygw.sealed_step(past.step, past.about, head.position);
        head.hash := sha256(head.hash || convert_to(sealed, 'UTF8'));
        INSERT INTO skygw.command_audit (install_id, position, command_id, ordinal, entry, hash)
        VALUES (head.install_id, head.position, (past.step).command_id, (past.step).ordinal, sealed, head.hash);
    END LOOP;
    UPDATE skygw.audit_head SET position = head.position, hash = head.hash WHERE install_id = head.install_id;
END
$$;

-- What subscribers are told of a step names who asked for it, where the step does.
CREATE OR REPLACE FUNCTION skygw.log_command_transition() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    about skygw.command;
BEGIN
    SELECT * INTO about FROM skygw.command WHERE command_id = NEW.command_id;
    PERFORM skygw.append_command_event(
        about, 'command_result', NEW.at,
        '{"command_id":"' || NEW.command_id::text || '"'
        || ',"status":' || to_json(NEW.state)::text
        || ',"hop":' || to_json(NEW.hop)::text
        || coalesce(',"detail":' || to_json(NEW.detail)::text, '')
        || coalesce(',"service":' || to_json(NEW.service)::text, '')
        || coalesce(',"actor":' || NEW.actor::text, '')
        || '}'
    );
    RETURN NULL;
END
$$;

GRANT SELECT ON skygw.command_audit, skygw.audit_head TO skynet_gateway;
GRANT SELECT, INSERT ON skygw.audit_checkpoint TO skynet_gateway;
REVOKE ALL ON FUNCTION
    skygw.sealed_step(skygw.command_transition, skygw.command, bigint),
    skygw.seal_command_transition()
    FROM PUBLIC;
