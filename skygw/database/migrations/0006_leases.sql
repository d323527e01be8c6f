-- depends: 0003_event_log

-- Manual control leases. Of one resource at most one has not ended; whoever begins or ends one holds the row of its fence
-- meanwhile, and lifts it.
CREATE TABLE IF NOT EXISTS skygw.lease (
    lease_id uuid PRIMARY KEY,
    -- SHA-256 of what its holder shows.
    secret bytea NOT NULL CHECK (octet_length(secret) = 32),
    resource_uid uuid NOT NULL,
    resource_kind text NOT NULL CHECK (resource_kind IN ('telescope', 'device')),
    -- Where the resource is, by the hub's records when the lease began.
    install_id uuid NOT NULL,
    observatory_uid uuid NOT NULL,
    telescope_uid uuid,
    device_type text,
    service text NOT NULL,
    actor_uid text,
    actor_kind text,
    fence bigint NOT NULL,
    revision integer NOT NULL DEFAULT 1,
    duration_s double precision NOT NULL CHECK (duration_s > 0),
    warn_s double precision NOT NULL CHECK (warn_s >= 0),
    on_expiry text NOT NULL CHECK (on_expiry IN ('finish', 'stop', 'safe_shutdown')),
    deadman_s double precision CHECK (deadman_s > 0),
    acquired_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    changed_at timestamptz NOT NULL,
    ended_at timestamptz,
    ended text CHECK (ended IN ('released', 'broken', 'expired', 'superseded')),
    -- Who broke it, and why.
    ended_by_service text,
    ended_by_actor_uid text,
    ended_by_actor_kind text,
    reason text,
    CHECK ((ended_at IS NULL) = (ended IS NULL)),
    CHECK ((actor_uid IS NULL) = (actor_kind IS NULL)),
    UNIQUE (resource_uid, fence)
);
CREATE UNIQUE INDEX IF NOT EXISTS lease_not_ended ON skygw.lease (resource_uid) WHERE ended_at IS NULL;
CREATE INDEX IF NOT EXISTS lease_to_expire ON skygw.lease (expires_at) WHERE ended_at IS NULL;
CREATE INDEX IF NOT EXISTS lease_secret ON skygw.lease (secret, fence);
CREATE INDEX IF NOT EXISTS lease_acquired ON skygw.lease (acquired_at DESC, lease_id);

-- Every change of a lease, as it is committed. The secret is not told.
CREATE OR REPLACE FUNCTION skygw.log_lease() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
BEGIN
    WITH head AS (
        UPDATE skygw.log_head SET position = position + 1
        RETURNING position, clock_timestamp() AS received_at
    )
    INSERT INTO skygw.log (position, stream, install_id, observatory_uid, telescope_uid, device_uid, observed_at,
                           received_at, data)
    SELECT head.position, 'manual_control_lease', NEW.install_id, NEW.observatory_uid, NEW.telescope_uid,
           CASE WHEN NEW.resource_kind = 'device' THEN NEW.resource_uid END, NEW.changed_at, head.received_at,
           json_strip_nulls(json_build_object(
               'uid', NEW.resource_uid,
               'lease_id', NEW.lease_id,
               'state', coalesce(NEW.ended, 'held'),
               'holder', json_build_object(
                   'service', NEW.service,
                   'actor', CASE WHEN NEW.actor_uid IS NOT NULL
                       THEN json_build_object('uid', NEW.actor_uid, 'kind', NEW.actor_kind) END
               ),
               'fence', NEW.fence,
               'revision', NEW.revision,
               'acquired_at', NEW.acquired_at,
               'expires_at', NEW.expires_at,
               'on_expiry', NEW.on_expiry,
               'deadman_s', NEW.deadman_s,
               'ended_at', NEW.ended_at,
               'ended_by', CASE WHEN NEW.ended_by_service IS NOT NULL
                   THEN json_build_object(
                       'service', NEW.ended_by_service,
                       'actor', CASE WHEN NEW.ended_by_actor_uid IS NOT NULL
                           THEN json_build_object('uid', NEW.ended_by_actor_uid, 'kind', NEW.ended_by_actor_kind) END
                   ) END,
               'reason', NEW.reason
           ))::text
    FROM head;
    RETURN NULL;
END
$$;

-- Deferred to the commit, where nothing else is waited for.
DROP TRIGGER IF EXISTS log_lease ON skygw.lease;
CREATE CONSTRAINT TRIGGER log_lease
    AFTER INSERT OR UPDATE ON skygw.lease
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION skygw.log_lease();

REVOKE ALL ON FUNCTION skygw.log_lease() FROM PUBLIC;
-- Who holds what since when never changes; how long, and how it ended, does.
GRANT SELECT, INSERT ON skygw.lease TO skynet_gateway;
GRANT UPDATE (revision, duration_s, warn_s, on_expiry, deadman_s, expires_at, changed_at, ended_at, ended,
              ended_by_service, ended_by_actor_uid, ended_by_actor_kind, reason)
    ON skygw.lease TO skynet_gateway;
