-- depends: 0002_gateway_role

-- The log of events. Positions are taken from the one row of the head, whose lock is held until the commit: they are
-- in commit order and without holes. The head is locked by an append alone, in one statement with its rows, and that
-- is the last one of its transaction: whoever holds the head waits for nobody.

CREATE TABLE IF NOT EXISTS skygw.log_head (
    position bigint NOT NULL DEFAULT 0,
    -- What is at or before this is no longer kept.
    dropped_through bigint NOT NULL DEFAULT 0,
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one)
);
INSERT INTO skygw.log_head DEFAULT VALUES ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS skygw.log (
    position bigint NOT NULL,
    -- With a star in front it is a gap: in that stream of its node, or, the star alone, in all of them. So each index
    -- finds a few gaps among many events.
    stream text NOT NULL,
    install_id uuid,
    observatory_uid uuid,
    telescope_uid uuid,
    device_uid uuid,
    -- The node's clock, and ours under the head's lock.
    observed_at timestamptz,
    received_at timestamptz NOT NULL,
    -- text, not jsonb: kept byte for byte.
    data text NOT NULL,
    -- Of a gap: how many, where that is known.
    missing bigint,
    -- Of what a node reported: which report it was, and why it was not taken.
    outbox_uid uuid,
    seq bigint,
    nacked text,
    PRIMARY KEY (position, received_at)
) PARTITION BY RANGE (received_at);

CREATE INDEX IF NOT EXISTS log_of_stream ON skygw.log (stream, position);
CREATE INDEX IF NOT EXISTS log_of_telescope ON skygw.log (telescope_uid, stream, position)
    WHERE telescope_uid IS NOT NULL;
CREATE INDEX IF NOT EXISTS log_of_device ON skygw.log (device_uid, stream, position) WHERE device_uid IS NOT NULL;
CREATE INDEX IF NOT EXISTS log_of_installation ON skygw.log (install_id, stream, position)
    WHERE install_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS log_of_observatory ON skygw.log (observatory_uid, stream, position)
    WHERE observatory_uid IS NOT NULL;

-- What has no partition of its own: nothing, unless nobody kept the log for a week or the server's clock leapt.
CREATE TABLE IF NOT EXISTS skygw.log_default PARTITION OF skygw.log DEFAULT;

-- The partition of one day (UTC), with what the default one held of it.
CREATE OR REPLACE FUNCTION skygw.make_log_day(day date) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    name text := to_char(day, '"log_"YYYYMMDD');
BEGIN
    IF to_regclass('skygw.' || name) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE skygw.%I (LIKE skygw.log INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
    EXECUTE format(
        'WITH moved AS (
            DELETE FROM skygw.log_default WHERE received_at >= %1$L AND received_at < %2$L RETURNING *
        )
        INSERT INTO skygw.%3$I SELECT * FROM moved',
        day::timestamptz, (day + 1)::timestamptz, name
    );
    EXECUTE format(
        'ALTER TABLE skygw.log ATTACH PARTITION skygw.%1$I FOR VALUES FROM (%2$L) TO (%3$L)',
        name, day::timestamptz, (day + 1)::timestamptz
    );
END
$$;

-- The days that have a partition.
CREATE OR REPLACE FUNCTION skygw.log_days() RETURNS TABLE (partition regclass, day date)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT child.oid::regclass, to_date(child.relname, '"log_"YYYYMMDD')
    FROM pg_inherits
    JOIN pg_class AS child ON child.oid = inhrelid
    WHERE inhparent = 'skygw.log'::regclass AND child.relname ~ '^log_[0-9]{8}$'
$$;

-- Makes the partitions of today and the week to come, and drops those wholly older than `keep`. The gateway may call
-- it and not alter it; no call drops the last day. False: others used the log all the while, and nothing was done.
CREATE OR REPLACE FUNCTION skygw.keep_log(keep interval) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
-- While this waits, all who come after it wait too.
SET lock_timeout = '1s'
AS $$
DECLARE
    today date := clock_timestamp()::date;
    oldest date := (clock_timestamp() - keep)::date;
    expired regclass;
    last_position bigint;
    through bigint := 0;
BEGIN
    IF keep IS NULL OR keep < interval '1 day' THEN
        RAISE EXCEPTION 'the log is kept for a day at least' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF (SELECT count(*) FILTER (WHERE day BETWEEN today AND today + 7) = 8 AND count(*) FILTER (WHERE day < oldest) = 0
        FROM skygw.log_days()) THEN
        RETURN true;
    END IF;
    -- Before the head, as in an append; with its partitions, so that nothing is waited for later.
    LOCK TABLE skygw.log IN ACCESS EXCLUSIVE MODE;
    FOR ahead IN 0..7 LOOP
        PERFORM skygw.make_log_day(today + ahead);
    END LOOP;
    FOR expired IN SELECT partition FROM skygw.log_days() WHERE day < oldest LOOP
        EXECUTE format('SELECT max(position) FROM %s', expired) INTO last_position;
        through := greatest(through, last_position);
        EXECUTE format('DROP TABLE %s', expired);
    END LOOP;
    UPDATE skygw.log_head SET dropped_through = greatest(dropped_through, through) RETURNING dropped_through INTO through;
    DELETE FROM skygw.log_default WHERE position <= through;
    RETURN true;
EXCEPTION
    WHEN lock_not_available THEN
        RETURN false;
END
$$;

DO $$
BEGIN
    PERFORM skygw.make_log_day((clock_timestamp() AT TIME ZONE 'UTC')::date + ahead) FROM generate_series(0, 7) AS ahead;
END
$$;

-- The platform's tables are named with their schema: nobody's schema is searched for what runs with the owner's rights.
DO $migration$
DECLARE
    platform text := (SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = 'observatory'::regclass);
BEGIN
    EXECUTE format($function$
        CREATE OR REPLACE FUNCTION skygw.append_command_event(
            about skygw.command, of_stream text, happened_at timestamptz, told text
        ) RETURNS void
        LANGUAGE sql
        SET search_path = pg_catalog, pg_temp
        AS $$
            WITH head AS (
                UPDATE skygw.log_head SET position = position + 1
                RETURNING position, clock_timestamp() AS received_at
            )
            INSERT INTO skygw.log (position, stream, install_id, observatory_uid, telescope_uid, device_uid,
                                   observed_at, received_at, data)
            SELECT head.position, of_stream, about.install_id, observatory.uid,
                   coalesce(about.telescope_uid, telescope.uid), about.device_uid, happened_at, head.received_at, told
            FROM head
            LEFT JOIN %1$s.sky_node_installation AS installation ON installation.uid = about.install_id
            LEFT JOIN %1$s.observatory ON observatory.id = installation.observatory_id
            LEFT JOIN %1$s.telescope ON telescope.id = installation.telescope_id
        $$
    $function$, platform);
END
$migration$;

-- What a command is: `command` and `origin` as they came.
CREATE OR REPLACE FUNCTION skygw.log_command() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
BEGIN
    PERFORM skygw.append_command_event(
        NEW, 'command', NEW.created_at,
        '{"command_id":"' || NEW.command_id::text || '"'
        || coalesce(',"telescope_uid":"' || NEW.telescope_uid::text || '"', '')
        || coalesce(',"device_uid":"' || NEW.device_uid::text || '"', '')
        || ',"command":' || NEW.command
        || coalesce(',"origin":' || NEW.origin, '')
        || coalesce(',"actor":' || NEW.actor::text, '')
        || ',"service":' || to_json(NEW.service)::text
        || ',"created_at":' || to_json(NEW.created_at)::text
        || '}'
    );
    RETURN NULL;
END
$$;

-- What the hub itself knows of a command's life. What a node says of it, the node reports.
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
        || '}'
    );
    RETURN NULL;
END
$$;

-- Deferred to the commit, where nothing else is waited for.
DROP TRIGGER IF EXISTS log_command ON skygw.command;
CREATE CONSTRAINT TRIGGER log_command
    AFTER INSERT ON skygw.command
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION skygw.log_command();

DROP TRIGGER IF EXISTS log_command_transition ON skygw.command_transition;
CREATE CONSTRAINT TRIGGER log_command_transition
    AFTER INSERT ON skygw.command_transition
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.hop <> 'node') EXECUTE FUNCTION skygw.log_command_transition();

-- What nodes had reported before there was a log. All the days before today are one partition, which goes when the last
-- of them does: one for each might be more than can be locked at once.
DO $$
DECLARE
    today timestamptz := date_trunc('day', clock_timestamp() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC';
BEGIN
    IF to_regclass('skygw.node_report') IS NULL THEN
        RETURN;
    END IF;
    LOCK TABLE skygw.node_report IN ACCESS EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM skygw.node_report WHERE received_at < today) THEN
        EXECUTE format(
            'CREATE TABLE skygw.%I PARTITION OF skygw.log FOR VALUES FROM (MINVALUE) TO (%L)',
            to_char(today AT TIME ZONE 'UTC' - interval '1 day', '"log_"YYYYMMDD'), today
        );
    END IF;
    WITH head AS (
        UPDATE skygw.log_head SET position = position + (SELECT count(*) FROM skygw.node_report)
        RETURNING position - (SELECT count(*) FROM skygw.node_report) AS before
    ), report AS (
        SELECT *,
               row_number() OVER (ORDER BY received_at, install_id, outbox_uid, seq) AS ordinal,
               -- json, not jsonb: what is taken out of it is the text as it came.
               CASE WHEN nacked IS NULL THEN body::json END AS frame
        FROM skygw.node_report
    )
    INSERT INTO skygw.log (position, stream, install_id, observatory_uid, telescope_uid, device_uid, observed_at,
                           received_at, data, missing, outbox_uid, seq, nacked)
    SELECT head.before + report.ordinal,
           CASE WHEN report.nacked IS NULL THEN '' ELSE '*' END
           || CASE report.kind
                  WHEN 'publish_log' THEN 'telescope_log'
                  WHEN 'publish_event' THEN 'node_event'
                  WHEN 'publish_command_result' THEN 'command_result'
                  WHEN 'publish_gap' THEN CASE WHEN report.nacked IS NULL THEN '*' ELSE '' END
                  ELSE ''
              END,
           report.install_id,
           observatory.uid,
           telescope.uid,
           command.device_uid,
           coalesce(report.frame ->> 'observed_at', report.frame ->> 'observedAt')::timestamptz,
           report.received_at,
           CASE
               WHEN report.nacked IS NOT NULL THEN '{}'
               WHEN report.kind = 'publish_command_result' THEN report.body
               ELSE coalesce((report.frame -> 'data')::text, '{}')
           END,
           CASE WHEN report.nacked IS NOT NULL THEN 1 END,
           report.outbox_uid,
           report.seq,
           report.nacked
    FROM head
    CROSS JOIN report
    LEFT JOIN sky_node_installation AS installation ON installation.uid = report.install_id
    LEFT JOIN observatory ON observatory.id = installation.observatory_id
    LEFT JOIN telescope ON telescope.id = installation.telescope_id
    LEFT JOIN skygw.command
        ON report.kind = 'publish_command_result'
        AND command.install_id = report.install_id
        AND command.command_id::text = lower(coalesce(report.frame ->> 'command_id', report.frame ->> 'commandId'));
    DROP TABLE skygw.node_report;
END
$$;

-- Append-only, in partitions that are the owner's business.
GRANT SELECT, INSERT ON skygw.log TO skynet_gateway;
GRANT SELECT, UPDATE (position) ON skygw.log_head TO skynet_gateway;
REVOKE ALL ON FUNCTION
    skygw.make_log_day(date),
    skygw.log_days(),
    skygw.keep_log(interval),
    skygw.append_command_event(skygw.command, text, timestamptz, text),
    skygw.log_command(),
    skygw.log_command_transition()
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION skygw.keep_log(interval) TO skynet_gateway;
