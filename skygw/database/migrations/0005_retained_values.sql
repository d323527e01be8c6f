-- depends: 0002_gateway_role

-- The latest value of each resource in each stream, as it came. A row is written again and again, so its page has room
-- for the next one beside it (HOT): no index holds what changes, and vacuum comes early.
CREATE TABLE IF NOT EXISTS skygw.retained_value (
    stream text NOT NULL,
    uid uuid NOT NULL,
    install_id uuid NOT NULL,
    -- Newest wins: by the version (the gateway's run and its count of changes), then by what brought it.
    version bigint NOT NULL,
    epoch bigint NOT NULL,
    step bigint NOT NULL,
    -- text, not jsonb: kept byte for byte.
    data text NOT NULL,
    -- By the node's clock, by the gateway's, and by this database's.
    observed_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    heard_at timestamptz NOT NULL,
    max_silence_s double precision,
    PRIMARY KEY (stream, uid)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX IF NOT EXISTS retained_value_of_installation ON skygw.retained_value (install_id);

-- One run of a gateway is an era. Later ones have larger numbers.
CREATE TABLE IF NOT EXISTS skygw.era (
    era bigint NOT NULL,
    -- One row, for ever.
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one)
);
INSERT INTO skygw.era (era) VALUES (0) ON CONFLICT DO NOTHING;

GRANT SELECT, INSERT, UPDATE ON skygw.retained_value TO skynet_gateway;
GRANT SELECT, UPDATE (era) ON skygw.era TO skynet_gateway;
