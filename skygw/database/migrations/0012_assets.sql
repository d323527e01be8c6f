-- depends: 0011_tasks

-- What is stored, once: whoever else sends the same bytes is told nothing of it.
CREATE TABLE IF NOT EXISTS skygw.content (
    -- Lower-case hex.
    sha256 text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    size bigint NOT NULL CHECK (size >= 0),
    stored_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- What looking at it as FITS has found, if anybody has: nothing, or what is wrong with it.
    examined_at timestamptz,
    problem text CHECK (length(problem) <= 250),
    -- Where its first image lies on the sky: degrees, ICRS, {"center":[ra,dec],"corners":[[ra,dec],…]}.
    wcs_box jsonb,
    PRIMARY KEY (sha256, size)
);

-- What an installation has declared, beside the platform's row of the same uid. It never changes; how it fares does.
CREATE TABLE IF NOT EXISTS skygw.asset (
    asset_uid uuid PRIMARY KEY,
    install_id uuid NOT NULL,
    task_uid uuid,
    observation_uid uuid NOT NULL,
    instrument_uid uuid NOT NULL,
    role text NOT NULL,
    -- Shown to people, and nothing else: no file is ever called by it.
    file_name text NOT NULL,
    content_type text NOT NULL,
    size bigint NOT NULL CHECK (size > 0),
    sha256 text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    declared_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The upload that brought its bytes.
    upload_uid uuid,
    -- All of them are here, and their digest agrees.
    arrived_at timestamptz,
    verified_at timestamptz,
    -- Why it was not verified.
    failure text CHECK (length(failure) <= 250),
    CHECK (verified_at IS NULL OR arrived_at IS NOT NULL AND failure IS NULL)
);

-- The same declaration is the same asset.
CREATE UNIQUE INDEX IF NOT EXISTS asset_declaration ON skygw.asset (
    install_id, sha256, size, observation_uid, instrument_uid, role, file_name,
    coalesce(task_uid, '00000000-0000-0000-0000-000000000000')
);
CREATE INDEX IF NOT EXISTS asset_of_task ON skygw.asset (task_uid) WHERE task_uid IS NOT NULL;
CREATE INDEX IF NOT EXISTS asset_of_observation ON skygw.asset (observation_uid);
CREATE INDEX IF NOT EXISTS asset_of_content ON skygw.asset (sha256, size);
CREATE INDEX IF NOT EXISTS asset_declared ON skygw.asset (declared_at, asset_uid);
-- What is to be verified.
CREATE INDEX IF NOT EXISTS asset_waiting ON skygw.asset (arrived_at, asset_uid)
    WHERE arrived_at IS NOT NULL AND verified_at IS NULL AND failure IS NULL;

-- How far uploads have come. Their bytes lie in the storage.
CREATE TABLE IF NOT EXISTS skygw.upload (
    upload_uid uuid PRIMARY KEY,
    install_id uuid NOT NULL,
    -- Null: sent before it was declared.
    asset_uid uuid REFERENCES skygw.asset (asset_uid),
    -- Null: its client has not said yet where it ends.
    size bigint CHECK (size >= 0),
    sha256 text CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    -- What it counts for in its installation's quota while it is open.
    reserved bigint NOT NULL CHECK (reserved >= 0),
    acknowledged bigint NOT NULL DEFAULT 0 CHECK (acknowledged >= 0),
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'complete', 'failed')),
    writer integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL,
    -- What its client said of it, as it said it.
    metadata text,
    failure text CHECK (length(failure) <= 250)
);
CREATE UNIQUE INDEX IF NOT EXISTS upload_open ON skygw.upload (asset_uid) WHERE state = 'open';
CREATE INDEX IF NOT EXISTS upload_of_asset ON skygw.upload (asset_uid) WHERE asset_uid IS NOT NULL;
CREATE INDEX IF NOT EXISTS upload_of_installation ON skygw.upload (install_id, state);
CREATE INDEX IF NOT EXISTS upload_expiry ON skygw.upload (expires_at);

-- An asset that was verified is told as it is committed. The platform's tables are named with their schema: nobody's
-- schema is searched for what runs with the owner's rights.
DO $migration$
DECLARE
    platform text := (SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = 'observatory'::regclass);
BEGIN
    EXECUTE format($function$
        CREATE OR REPLACE FUNCTION skygw.log_asset() RETURNS trigger
        LANGUAGE plpgsql SECURITY DEFINER
        SET search_path = pg_catalog, pg_temp
        SET timezone = 'UTC'
        AS $$
        BEGIN
            WITH head AS (
                UPDATE skygw.log_head SET position = position + 1
                RETURNING position, clock_timestamp() AS received_at
            )
            INSERT INTO skygw.log (position, stream, install_id, observatory_uid, telescope_uid, device_uid,
                                   observed_at, received_at, data)
            SELECT head.position, 'asset', NEW.install_id, observatory.uid, telescope.uid, NULL, NEW.verified_at,
                   head.received_at,
                   json_build_object(
                       'uid', NEW.asset_uid,
                       'task_uid', NEW.task_uid,
                       'role', NEW.role,
                       'sha256', NEW.sha256,
                       'content_url', '/internal/assets/' || NEW.asset_uid || '/content',
                       'wcs_box', (SELECT content.wcs_box
                                   FROM skygw.content
                                   WHERE content.sha256 = NEW.sha256 AND content.size = NEW.size)
                   )::text
            FROM head
            LEFT JOIN %1$s.instrument ON instrument.uid = NEW.instrument_uid
            LEFT JOIN %1$s.telescope ON telescope.id = instrument.telescope_id
            LEFT JOIN %1$s.observatory ON observatory.id = telescope.observatory_id;
            RETURN NULL;
        END
        $$
    $function$, platform);
END
$migration$;

DROP TRIGGER IF EXISTS log_asset ON skygw.asset;
CREATE CONSTRAINT TRIGGER log_asset
    AFTER UPDATE OF verified_at ON skygw.asset
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (OLD.verified_at IS NULL AND NEW.verified_at IS NOT NULL)
    EXECUTE FUNCTION skygw.log_asset();
REVOKE ALL ON FUNCTION skygw.log_asset() FROM PUBLIC;

GRANT SELECT, INSERT ON skygw.content, skygw.asset TO skynet_gateway;
GRANT UPDATE (examined_at, problem, wcs_box) ON skygw.content TO skynet_gateway;
GRANT UPDATE (upload_uid, arrived_at, verified_at, failure) ON skygw.asset TO skynet_gateway;
GRANT SELECT, INSERT, DELETE ON skygw.upload TO skynet_gateway;
GRANT UPDATE (asset_uid, size, sha256, acknowledged, state, writer, expires_at, failure)
    ON skygw.upload TO skynet_gateway;

-- Of the platform's tables: an asset is added, and how its transfer fares is written down.
GRANT SELECT ON observation, observation_task, observation_asset TO skynet_gateway;
GRANT INSERT (uid, observation_id, instrument_id, role, is_remote, is_transferrable, transfer_state, transfer_progress)
    ON observation_asset TO skynet_gateway;
GRANT UPDATE (is_remote, transfer_state, transfer_progress, transfer_error, last_transfer_attempt)
    ON observation_asset TO skynet_gateway;
-- A key that is an identity needs no more; one that is a serial needs its sequence.
DO $$
DECLARE
    keys text := pg_get_serial_sequence('observation_asset', 'id');
BEGIN
    IF keys IS NOT NULL THEN
        EXECUTE format('GRANT USAGE ON SEQUENCE %s TO skynet_gateway', keys);
    END IF;
END
$$;
