-- depends: 0007_command_audit

-- What becomes of a task that runs, for the holder of a lease: it was refused the lease, waits for the task, or has it
-- ended. Leases of before were given where no task was known.
ALTER TABLE skygw.lease
    ADD COLUMN IF NOT EXISTS while_task text NOT NULL DEFAULT 'refuse'
        CHECK (while_task IN ('refuse', 'finish', 'interrupt'));

GRANT SELECT ON observation_task TO skynet_gateway;

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
               'while_task', NEW.while_task,
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
