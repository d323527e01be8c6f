-- depends: 0009_lease_while_task

-- The moves of a task that the gateway makes. What is not here is the platform's to do: it assigns tasks and cancels
-- them. What has ended stays as it ended.
CREATE TABLE IF NOT EXISTS skygw.task_step (
    from_status text NOT NULL,
    to_status text NOT NULL,
    PRIMARY KEY (from_status, to_status)
);
INSERT INTO skygw.task_step (from_status, to_status)
SELECT from_status, to_status
FROM (VALUES
    ('pending', '{active,completed,failed,not_attempted,interrupted,canceled}'::text[]),
    -- What was begun was attempted.
    ('active', '{completed,failed,interrupted,canceled}')
) AS step (from_status, to_statuses), unnest(to_statuses) AS to_status
ON CONFLICT DO NOTHING;

-- Who observes a task, and how far it has come. The row stays when the task has ended; one that lapsed is replaced by
-- whoever claims the task next. Times are the hub's unless they are said to be the node's.
CREATE TABLE IF NOT EXISTS skygw.task_claim (
    task_uid uuid PRIMARY KEY,
    claim_uid uuid NOT NULL,
    install_id uuid NOT NULL,
    claimed_at timestamptz NOT NULL,
    -- While the task is not begun: until when the claim holds if nothing more is heard of its node.
    expires_at timestamptz NOT NULL,
    started_at timestamptz,
    ended_at timestamptz,
    ended_status text,
    reason_code text,
    reschedulable boolean,
    summary text,
    -- Of the newest report by the node's clock.
    phase text,
    message text,
    reported_at timestamptz,
    reported_by uuid,
    estimated_end_time timestamptz,
    -- The furthest that was reported.
    progress double precision
);
CREATE INDEX IF NOT EXISTS task_claim_open ON skygw.task_claim (install_id) WHERE ended_at IS NULL;

-- What nodes said of their tasks, each report with the answer it got: said again, it gets that answer again.
CREATE TABLE IF NOT EXISTS skygw.task_report (
    install_id uuid NOT NULL,
    report_uid uuid NOT NULL,
    kind text NOT NULL CHECK (kind IN ('claim', 'release', 'progress', 'results', 'complete')),
    -- Null: of a claim, which may be of many.
    task_uid uuid,
    -- What makes it this report again.
    body_sha256 bytea NOT NULL,
    answer text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    -- The node's clock.
    reported_at timestamptz,
    observatory_uid uuid NOT NULL,
    telescope_uid uuid,
    -- What subscribers are told.
    event text NOT NULL,
    PRIMARY KEY (install_id, report_uid)
);
CREATE INDEX IF NOT EXISTS task_report_received ON skygw.task_report (received_at);

-- The assets that a node named when it ended a task, and those of each result.
CREATE TABLE IF NOT EXISTS skygw.task_asset (
    task_uid uuid NOT NULL,
    asset_uid uuid NOT NULL,
    PRIMARY KEY (task_uid, asset_uid)
);
CREATE INDEX IF NOT EXISTS task_asset_asset ON skygw.task_asset (asset_uid);
CREATE TABLE IF NOT EXISTS skygw.result_asset (
    result_uid uuid NOT NULL,
    task_uid uuid NOT NULL,
    asset_uid uuid NOT NULL,
    PRIMARY KEY (result_uid, task_uid, asset_uid)
);
CREATE INDEX IF NOT EXISTS result_asset_asset ON skygw.result_asset (asset_uid);
CREATE INDEX IF NOT EXISTS result_asset_task ON skygw.result_asset (task_uid);

-- What has become of the results of these tasks, of which something was just heard or verified: fulfilled when all its
-- tasks have ended and one has completed with assets that are all here or stay at the site; else partially fulfilled.
-- What is fulfilled or canceled stays so. Returns those it fulfilled.
--
-- Two who end the last tasks of one result at once, and who verifies its last asset meanwhile, wait here for each other:
-- each statement of this function sees what was committed before it. Whoever calls it holds the assets it went by.
CREATE OR REPLACE FUNCTION skygw.fulfil_results(tasks uuid[]) RETURNS SETOF uuid
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM FROM observation_result AS result
    WHERE result.id IN (
        SELECT link.result_id
        FROM observation_result_task AS link
        JOIN observation_task AS task ON task.id = link.task_id
        WHERE task.uid = ANY (tasks)
    )
    ORDER BY result.id
    FOR UPDATE;

    RETURN QUERY
    WITH concerned AS (
        SELECT DISTINCT link.result_id
        FROM observation_result_task AS link
        JOIN observation_task AS task ON task.id = link.task_id
        WHERE task.uid = ANY (tasks)
    ), named AS (
        SELECT link.result_id, task.uid AS task_uid, asset.transfer_state = 'completed' OR asset.is_remote AS is_there
        FROM concerned
        JOIN observation_result AS result ON result.id = concerned.result_id
        JOIN observation_result_task AS link ON link.result_id = result.id
        JOIN observation_task AS task ON task.id = link.task_id AND task.status = 'completed'
        CROSS JOIN LATERAL (
            SELECT asset_uid FROM skygw.task_asset WHERE task_asset.task_uid = task.uid
            UNION
            SELECT asset_uid FROM skygw.result_asset
            WHERE result_asset.task_uid = task.uid AND result_asset.result_uid = result.uid
        ) AS link_to
        LEFT JOIN observation_asset AS asset ON asset.uid = link_to.asset_uid
    ), whole AS (
        SELECT result_id FROM named GROUP BY result_id, task_uid HAVING bool_and(is_there IS TRUE)
    ), judged AS (
        SELECT link.result_id,
               bool_and(task.status IN ('completed', 'failed', 'not_attempted', 'interrupted', 'canceled'))
                   AND link.result_id IN (SELECT result_id FROM whole) AS is_fulfilled
        FROM concerned
        JOIN observation_result_task AS link ON link.result_id = concerned.result_id
        JOIN observation_task AS task ON task.id = link.task_id
        GROUP BY link.result_id
    ), changed AS (
        UPDATE observation_result AS result
        SET fulfillment_status = CASE WHEN judged.is_fulfilled THEN 'fulfilled' ELSE 'partially_fulfilled' END,
            fulfilled_on = CASE WHEN judged.is_fulfilled THEN clock_timestamp() END
        FROM judged
        WHERE result.id = judged.result_id
          AND result.fulfillment_status NOT IN ('fulfilled', 'canceled')
          AND (judged.is_fulfilled OR result.fulfillment_status <> 'partially_fulfilled')
        RETURNING result.uid, judged.is_fulfilled
    )
    SELECT changed.uid FROM changed WHERE changed.is_fulfilled;
END
$$;

-- The same, for whoever has verified assets in this transaction.
CREATE OR REPLACE FUNCTION skygw.fulfil_results_with(assets uuid[]) RETURNS SETOF uuid
LANGUAGE sql
AS $$
    SELECT skygw.fulfil_results(coalesce(array_agg(task_uid), '{}'))
    FROM (
        SELECT task_uid FROM skygw.task_asset WHERE asset_uid = ANY (assets)
        UNION
        SELECT task_uid FROM skygw.result_asset WHERE asset_uid = ANY (assets)
    ) AS named
$$;

-- Forgets the oldest reports, this many at most, and says how many. The gateway may call it and not delete itself.
CREATE OR REPLACE FUNCTION skygw.forget_task_reports(keep interval, at_most integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    forgotten bigint;
BEGIN
    IF keep IS NULL OR keep < interval '7 days' THEN
        RAISE EXCEPTION 'reports are kept for seven days at least' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    DELETE FROM skygw.task_report
    WHERE (install_id, report_uid) IN (
        SELECT install_id, report_uid FROM skygw.task_report
        WHERE received_at < clock_timestamp() - keep
        ORDER BY received_at
        LIMIT at_most
        FOR UPDATE SKIP LOCKED
    );
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    RETURN forgotten;
END
$$;

-- Every report, as it is committed.
CREATE OR REPLACE FUNCTION skygw.log_task_report() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    WITH head AS (
        UPDATE skygw.log_head SET position = position + 1
        RETURNING position, clock_timestamp() AS received_at
    )
    INSERT INTO skygw.log (position, stream, install_id, observatory_uid, telescope_uid, observed_at, received_at, data)
    SELECT head.position, 'task_report', NEW.install_id, NEW.observatory_uid, NEW.telescope_uid, NEW.reported_at,
           head.received_at, NEW.event
    FROM head;
    RETURN NULL;
END
$$;

-- Deferred to the commit, where nothing else is waited for.
DROP TRIGGER IF EXISTS log_task_report ON skygw.task_report;
CREATE CONSTRAINT TRIGGER log_task_report
    AFTER INSERT ON skygw.task_report
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION skygw.log_task_report();

-- Whatever the gateway's program does, its role moves a task by the table above and no other way. The platform's own
-- programs are not held to it: they know moves that are not ours.
CREATE OR REPLACE FUNCTION skygw.guard_task_step() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM skygw.task_step WHERE from_status = OLD.status AND to_status = NEW.status
    ) THEN
        RAISE EXCEPTION 'a task does not go from % to %', OLD.status, NEW.status USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$;

-- Tells gateways at which telescope a task may have become one to claim, or is not wanted any more.
CREATE OR REPLACE FUNCTION skygw.tell_task() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pg_notify('skygw_task', telescope_uid::text) FROM skygw.telescope_of_instrument(NEW.instrument_id);
    RETURN NULL;
END
$$;

-- The platform's tables are named with their schema: nobody's schema is searched for what runs with the owner's rights.
DO $migration$
DECLARE
    platform text := (SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = 'observation_task'::regclass);
BEGIN
    EXECUTE format($function$
        CREATE OR REPLACE FUNCTION skygw.telescope_of_instrument(
            instrument_id integer
        ) RETURNS TABLE (telescope_uid uuid)
        LANGUAGE sql STABLE
        SET search_path = pg_catalog, pg_temp
        AS $$
            SELECT telescope.uid
            FROM %1$s.instrument
            JOIN %1$s.telescope ON telescope.id = instrument.telescope_id
            WHERE instrument.id = $1
        $$
    $function$, platform);
END
$migration$;

-- Triggers on the platform's table are its owner's to allow. Where they are not, gateways look every few seconds, and
-- their own statements keep to the table of steps.
DO $$
BEGIN
    DROP TRIGGER IF EXISTS skygw_guard_task_step ON observation_task;
    CREATE TRIGGER skygw_guard_task_step
        BEFORE UPDATE OF status ON observation_task
        FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status AND current_user = 'skynet_gateway')
        EXECUTE FUNCTION skygw.guard_task_step();
    DROP TRIGGER IF EXISTS skygw_tell_task ON observation_task;
    CREATE TRIGGER skygw_tell_task
        AFTER INSERT OR UPDATE OF status, instrument_id, earliest_start_time, expiration_time,
                                  instrument_configuration_version ON observation_task
        FOR EACH ROW WHEN (NEW.status IN ('pending', 'canceled', 'unassigned') AND current_user <> 'skynet_gateway')
        EXECUTE FUNCTION skygw.tell_task();
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE WARNING 'observation_task is not this role''s: no triggers on it; gateways will look for tasks instead';
END
$$;

GRANT SELECT ON skygw.task_step TO skynet_gateway;
GRANT SELECT, INSERT, UPDATE, DELETE ON skygw.task_claim TO skynet_gateway;
-- Append-only.
GRANT SELECT, INSERT ON skygw.task_report, skygw.task_asset, skygw.result_asset TO skynet_gateway;
REVOKE ALL ON FUNCTION
    skygw.log_task_report(),
    skygw.guard_task_step(),
    skygw.tell_task(),
    skygw.telescope_of_instrument(integer),
    skygw.forget_task_reports(interval, integer)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION skygw.forget_task_reports(interval, integer) TO skynet_gateway;

-- Of the platform's tables: what a task's life writes, and nothing else.
GRANT UPDATE (status, actual_start_time, actual_end_time, completed_on, accumulated_exposure_time,
              observatory_acquired_frames) ON observation_task TO skynet_gateway;
GRANT SELECT ON observation, observation_result, observation_result_task, observation_asset TO skynet_gateway;
GRANT UPDATE (fulfillment_status, fulfilled_on) ON observation_result TO skynet_gateway;
-- Whoever ends a task holds its assets meanwhile, which takes the right to change something of them.
GRANT UPDATE (transfer_state) ON observation_asset TO skynet_gateway;
