-- The gateway's own tables. Every statement may run twice: yoyo marks a migration after its transaction.

CREATE TABLE IF NOT EXISTS skygw.registry (
    registry_uid uuid NOT NULL DEFAULT gen_random_uuid(),
    -- One row, for ever: it names this ledger of epochs.
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one)
);
INSERT INTO skygw.registry DEFAULT VALUES ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS skygw.node_session (
    install_id uuid PRIMARY KEY,
    epoch bigint NOT NULL,
    instance_uid uuid NOT NULL,
    claimed_at timestamptz NOT NULL
);

CREATE TABLE IF NOT EXISTS skygw.fence (
    resource_uid uuid PRIMARY KEY,
    fence bigint NOT NULL
);

CREATE TABLE IF NOT EXISTS skygw.node_outbox (
    install_id uuid NOT NULL,
    outbox_uid uuid NOT NULL,
    acked_seq bigint NOT NULL,
    PRIMARY KEY (install_id, outbox_uid)
);

CREATE TABLE IF NOT EXISTS skygw.node_report (
    install_id uuid NOT NULL,
    outbox_uid uuid NOT NULL,
    seq bigint NOT NULL,
    kind text NOT NULL,
    -- text, not jsonb: kept byte for byte.
    body text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    -- Why it will never be taken; null if it was taken.
    nacked text,
    PRIMARY KEY (install_id, outbox_uid, seq)
);

CREATE TABLE IF NOT EXISTS skygw.command (
    command_id uuid PRIMARY KEY,
    install_id uuid NOT NULL,
    telescope_uid uuid,
    device_uid uuid,
    command text NOT NULL,
    -- What makes an id the same command again: canonical target and command.
    command_sha256 bytea NOT NULL,
    origin text,
    service text NOT NULL,
    actor jsonb,
    state text NOT NULL CHECK (state IN ('received', 'written', 'accepted', 'running', 'completed', 'failed',
                                         'rejected', 'canceled', 'expired', 'unknown')),
    progress double precision,
    epoch bigint,
    deadline_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    ended_at timestamptz,
    result text,
    error text,
    proof text,
    -- How a cancel met it: before_start, interrupted or too_late.
    canceled text,
    recorded_late boolean NOT NULL DEFAULT false,
    trace_id text
);
CREATE INDEX IF NOT EXISTS command_created ON skygw.command (created_at DESC, command_id);
CREATE INDEX IF NOT EXISTS command_of_installation ON skygw.command (install_id, created_at DESC);

CREATE TABLE IF NOT EXISTS skygw.command_transition (
    command_id uuid NOT NULL REFERENCES skygw.command (command_id),
    -- Which of two with the same time came first.
    ordinal bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL,
    state text NOT NULL,
    hop text NOT NULL CHECK (hop IN ('gateway', 'replica', 'node')),
    detail text,
    PRIMARY KEY (command_id, ordinal)
);

-- The moves a command's state may make; whoever writes a state goes through this table. Completed, failed,
-- rejected, canceled and expired lead nowhere. Only what was never written expires, and only what was written
-- may become unknown; unknown is no end: the node may still say what happened. What expired was never written, so
-- that a repeat may begin it anew; that is no step but one statement of its own (`READMIT`).
CREATE TABLE IF NOT EXISTS skygw.command_step (
    from_state text NOT NULL,
    to_state text NOT NULL,
    PRIMARY KEY (from_state, to_state)
);
INSERT INTO skygw.command_step (from_state, to_state)
SELECT from_state, to_state
FROM (VALUES
    ('received', '{written,accepted,running,completed,failed,rejected,canceled,expired}'::text[]),
    ('written', '{accepted,running,completed,failed,rejected,canceled,unknown}'),
    ('accepted', '{running,completed,failed,rejected,canceled,unknown}'),
    ('running', '{completed,failed,rejected,canceled,unknown}'),
    ('unknown', '{accepted,running,completed,failed,rejected,canceled}')
) AS step (from_state, to_states), unnest(to_states) AS to_state
ON CONFLICT DO NOTHING;
