-- depends: 0009_lease_while_task

-- The revisions of the hardware graph: one count for all observatories, so that no two ever have had the same number.
-- Its row is the lock under which what changed is written down, to the end of the transaction: the order of revisions
-- is the order of commits, and nobody commits a change of the hardware meanwhile.
CREATE TABLE IF NOT EXISTS skygw.graph_head (
    revision bigint NOT NULL DEFAULT 0,
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one)
);
INSERT INTO skygw.graph_head DEFAULT VALUES ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS skygw.graph_revision (
    observatory_id integer PRIMARY KEY,
    revision bigint NOT NULL,
    -- The revisions from which a difference can be told, the newest first, itself among them.
    known bigint[] NOT NULL
);

-- When something last changed, for whom it was or is in sight. `telescope_id` 0: for all of the observatory.
CREATE TABLE IF NOT EXISTS skygw.graph_change (
    observatory_id integer NOT NULL,
    uid uuid NOT NULL,
    telescope_id integer NOT NULL,
    revision bigint NOT NULL,
    PRIMARY KEY (observatory_id, uid, telescope_id)
);
CREATE INDEX IF NOT EXISTS graph_change_revision ON skygw.graph_change (observatory_id, revision);

-- Where triggers may not be installed: what was there when it was last looked at.
CREATE TABLE IF NOT EXISTS skygw.graph_digest (
    observatory_id integer NOT NULL,
    uid uuid NOT NULL,
    telescope_id integer NOT NULL,
    digest text NOT NULL,
    PRIMARY KEY (observatory_id, uid, telescope_id)
);

-- What a transaction touched, as it was and as it is: gone when it commits, so that everybody sees only his own.
CREATE UNLOGGED TABLE IF NOT EXISTS skygw.graph_touch (
    kind text NOT NULL,
    uid uuid,
    observatory_id integer,
    telescope_id integer,
    device_id integer,
    instrument_id integer,
    filter_id integer,
    -- It stands elsewhere now, or is deleted, or was.
    moved boolean NOT NULL,
    -- What refers to it by its uid has changed with it.
    renamed boolean NOT NULL
);

-- One row for each transaction that touched something: its trigger is what waits for the commit.
CREATE UNLOGGED TABLE IF NOT EXISTS skygw.graph_alarm (
    rung boolean NOT NULL
);

-- The next revision, under the lock. Milliseconds of the clock where these are ahead, so that a database restored from a
-- backup gives no number again that stood for something else.
CREATE OR REPLACE FUNCTION skygw.next_graph_revision() RETURNS bigint
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE skygw.graph_head
    SET revision = greatest(revision + 1, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)
    RETURNING revision
$$;

-- Writes a revision of some observatories down and tells of it. From what was before, of `afresh` no difference is known.
CREATE OR REPLACE FUNCTION skygw.bump_graph(given bigint, changed integer[], afresh integer[]) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO skygw.graph_revision AS standing (observatory_id, revision, known)
    SELECT DISTINCT bumped.id, given, ARRAY[given]
    FROM unnest(changed || afresh) AS bumped (id)
    WHERE bumped.id IS NOT NULL
    ON CONFLICT (observatory_id) DO UPDATE
        SET revision = given,
            known = CASE WHEN standing.observatory_id = ANY (afresh) THEN ARRAY[given]
                ELSE (given || standing.known)[1:256] END;
    PERFORM pg_notify('skygw_graph', observatory.uid::text || ' ' || given::text)
    FROM observatory
    WHERE observatory.id = ANY (changed || afresh);
END
$$;

-- What a statement touched in one of the tables. The arguments of its trigger: the key's columns, the columns that say
-- where a row stands, and what is kept of a row. A row that was written and is the same is not touched; of an
-- installation only matters where it stands.
CREATE OR REPLACE FUNCTION skygw.touch_graph() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    same_key text;
    same_place text;
    images text;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        INSERT INTO skygw.graph_touch (kind, moved, renamed) VALUES ('everything', true, true);
    ELSE
        SELECT string_agg(format('other.%1$I = image.%1$I', name), ' AND ') INTO same_key
        FROM unnest(string_to_array(TG_ARGV[1], ' ')) AS named (name);
        SELECT coalesce(string_agg(format('other.%1$I IS NOT DISTINCT FROM image.%1$I', name), ' AND '), 'true')
        INTO same_place
        FROM unnest(string_to_array(TG_ARGV[2], ' ')) AS named (name);
        images := CASE TG_OP
            WHEN 'INSERT' THEN 'SELECT %1$s, false, false FROM now_rows AS image'
            WHEN 'DELETE' THEN 'SELECT %1$s, true, true FROM was_rows AS image'
            ELSE
                'SELECT %1$s,
                        NOT EXISTS (SELECT FROM now_rows AS other WHERE %2$s AND %3$s),
                        NOT EXISTS (SELECT FROM now_rows AS other WHERE %2$s AND %4$s)
                 FROM was_rows AS image
                 WHERE NOT EXISTS (SELECT FROM now_rows AS other WHERE %2$s AND other *= image)
                 UNION ALL
                 SELECT %1$s,
                        NOT EXISTS (SELECT FROM was_rows AS other WHERE %2$s AND %3$s),
                        NOT EXISTS (SELECT FROM was_rows AS other WHERE %2$s AND %4$s)
                 FROM now_rows AS image
                 WHERE NOT EXISTS (SELECT FROM was_rows AS other WHERE %2$s AND other *= image)'
            END;
        EXECUTE format(
            'INSERT INTO skygw.graph_touch (kind, uid, observatory_id, telescope_id, device_id, instrument_id, filter_id,
                                            moved, renamed)
             SELECT * FROM (' || images || ') AS touched (kind, uid, observatory_id, telescope_id, device_id,
                                                          instrument_id, filter_id, moved, renamed)
             WHERE touched.moved OR touched.kind <> ''installation''',
            format('%L::text, %s', TG_ARGV[0], TG_ARGV[3]), same_key, same_place,
            CASE WHEN TG_ARGV[0] = 'part' THEN 'true' ELSE 'other.uid = image.uid' END
        );
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
    END IF;
    INSERT INTO skygw.graph_alarm SELECT true WHERE NOT EXISTS (SELECT FROM skygw.graph_alarm);
    RETURN NULL;
END
$$;

-- At the commit: what has changed, for whom. Everything is looked up under the lock, when whoever was before has
-- committed and nobody else can: two transactions that each see half of a change cannot both pass it over.
CREATE OR REPLACE FUNCTION skygw.commit_graph() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
AS $$
DECLARE
    given bigint := skygw.next_graph_revision();
    changed integer[];
    afresh integer[];
BEGIN
    DELETE FROM skygw.graph_alarm;
    WITH touch AS MATERIALIZED (
        DELETE FROM skygw.graph_touch RETURNING *
    ),
    -- Positions of filters, as they were and as they are: those that were touched, those of wheels that moved, and
    -- those with a filter that was touched, of which only what the filter is has changed.
    slot AS MATERIALIZED (
        SELECT touch.uid, touch.device_id, touch.filter_id, true AS changed FROM touch WHERE touch.kind = 'position'
        UNION
        SELECT position.uid, position.device_id, position.filter_id, wheel.moved IS NOT NULL
        FROM filter_wheel_position AS position
        LEFT JOIN (SELECT DISTINCT device_id, moved FROM touch WHERE touch.kind = 'device' AND touch.moved) AS wheel
            ON wheel.device_id = position.device_id
        WHERE wheel.moved OR position.filter_id IN (SELECT filter_id FROM touch WHERE touch.kind = 'filter')
    ),
    -- Where a wheel stands and stood.
    place AS MATERIALIZED (
        SELECT device.id AS device_id, coalesce(telescope.observatory_id, device.observatory_id) AS observatory_id,
               coalesce(device.telescope_id, 0) AS telescope_id
        FROM device
        LEFT JOIN telescope ON telescope.id = device.telescope_id
        WHERE device.id IN (SELECT device_id FROM slot)
        UNION
        SELECT touch.device_id, coalesce(telescope.observatory_id, touch.observatory_id), coalesce(touch.telescope_id, 0)
        FROM touch
        LEFT JOIN telescope ON telescope.id = touch.telescope_id
        WHERE touch.kind = 'device'
    ),
    mark (observatory_id, uid, telescope_id, renamed) AS MATERIALIZED (
        -- What says itself where it stands.
        SELECT CASE WHEN touch.kind = 'telescope' THEN touch.observatory_id
                   ELSE coalesce(telescope.observatory_id, touch.observatory_id) END,
               touch.uid, coalesce(touch.telescope_id, 0),
               touch.renamed OR (touch.moved AND touch.kind IN ('observatory', 'telescope', 'installation'))
        FROM touch
        LEFT JOIN telescope ON telescope.id = touch.telescope_id
        WHERE touch.kind NOT IN ('position', 'filter', 'part', 'everything')
        UNION ALL
        SELECT place.observatory_id, slot.uid, place.telescope_id, false
        FROM slot JOIN place USING (device_id)
        WHERE slot.changed
        UNION ALL
        -- A filter is where its positions are.
        SELECT place.observatory_id, named.uid, place.telescope_id, named.renamed
        FROM slot
        JOIN place USING (device_id)
        JOIN (
            SELECT filter.id, filter.uid, false AS renamed FROM filter WHERE filter.id IN (SELECT filter_id FROM slot)
            UNION ALL
            SELECT touch.filter_id, touch.uid, touch.renamed FROM touch WHERE touch.kind = 'filter'
        ) AS named ON named.id = slot.filter_id
        UNION ALL
        -- An instrument says of what it is made.
        SELECT telescope.observatory_id, instrument.uid, instrument.telescope_id, false
        FROM instrument
        JOIN telescope ON telescope.id = instrument.telescope_id
        WHERE instrument.id IN (
            SELECT touch.instrument_id FROM touch WHERE touch.kind = 'part'
            UNION ALL
            SELECT part.instrument_id
            FROM instrument_device AS part
            WHERE part.device_id IN (
                SELECT touch.device_id FROM touch WHERE touch.kind = 'device' AND (touch.moved OR touch.renamed)
            )
        )
        UNION ALL
        SELECT everywhere.id, NULL, 0, true
        FROM (SELECT id FROM observatory UNION SELECT observatory_id FROM skygw.graph_revision) AS everywhere
        WHERE EXISTS (SELECT FROM touch WHERE touch.kind = 'everything')
    ),
    written AS (
        INSERT INTO skygw.graph_change (observatory_id, uid, telescope_id, revision)
        SELECT DISTINCT mark.observatory_id, mark.uid, mark.telescope_id, given
        FROM mark
        WHERE mark.observatory_id IS NOT NULL AND mark.uid IS NOT NULL
        ON CONFLICT (observatory_id, uid, telescope_id) DO UPDATE SET revision = excluded.revision
    )
    SELECT coalesce(array_agg(DISTINCT mark.observatory_id), '{}'),
           coalesce(array_agg(DISTINCT mark.observatory_id) FILTER (WHERE mark.renamed), '{}')
    INTO changed, afresh
    FROM mark;
    PERFORM skygw.bump_graph(given, changed, afresh);
    RETURN NULL;
END
$$;

-- What somebody who looked saw, in a transaction whose snapshot is his: the revision it has, a new one if something is
-- not as it was. `given_uids`, `given_telescopes` and `given_digests` go together, one for each resource and sight; a
-- sight of -1 is of the installations, and whatever is kept elsewhere of them no longer holds.
CREATE OR REPLACE FUNCTION skygw.graph_seen(
    seen_observatory integer, given_uids uuid[], given_telescopes integer[], given_digests text[]
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
AS $$
DECLARE
    given bigint;
    changed_uids uuid[];
    changed_telescopes integer[];
    is_first boolean;
BEGIN
    SELECT array_agg(coalesce(now.uid, was.uid)), array_agg(coalesce(now.telescope_id, was.telescope_id))
    INTO changed_uids, changed_telescopes
    FROM unnest(given_uids, given_telescopes, given_digests) AS now (uid, telescope_id, digest)
    FULL JOIN (SELECT * FROM skygw.graph_digest WHERE observatory_id = seen_observatory) AS was
        ON was.uid = now.uid AND was.telescope_id = now.telescope_id
    WHERE now.digest IS DISTINCT FROM was.digest;
    IF changed_uids IS NULL THEN
        RETURN;
    END IF;
    given := skygw.next_graph_revision();
    is_first := NOT EXISTS (SELECT FROM skygw.graph_digest WHERE observatory_id = seen_observatory);
    DELETE FROM skygw.graph_digest WHERE observatory_id = seen_observatory;
    INSERT INTO skygw.graph_digest (observatory_id, uid, telescope_id, digest)
    SELECT seen_observatory, now.uid, now.telescope_id, now.digest
    FROM unnest(given_uids, given_telescopes, given_digests) AS now (uid, telescope_id, digest);
    INSERT INTO skygw.graph_change (observatory_id, uid, telescope_id, revision)
    SELECT seen_observatory, changed.uid, changed.telescope_id, given
    FROM unnest(changed_uids, changed_telescopes) AS changed (uid, telescope_id)
    WHERE changed.telescope_id >= 0
    ON CONFLICT (observatory_id, uid, telescope_id) DO UPDATE SET revision = excluded.revision;
    PERFORM skygw.bump_graph(
        given, ARRAY[seen_observatory],
        CASE WHEN is_first OR -1 = ANY (changed_telescopes) THEN ARRAY[seen_observatory] ELSE '{}' END
    );
END
$$;

-- The triggers the graph's tables should have, and whether they do.
CREATE OR REPLACE FUNCTION skygw.graph_triggers() RETURNS TABLE (
    kind text, name text, key text, place text, kept text, event text, installed boolean
)
LANGUAGE sql STABLE
AS $$
    SELECT watched.kind, watched.name, watched.key, watched.place, watched.kept, happening.event, EXISTS (
        SELECT FROM pg_trigger
        WHERE pg_trigger.tgrelid = to_regclass(quote_ident(watched.name))
          AND pg_trigger.tgname = 'skygw_graph_' || lower(happening.event)
          AND pg_trigger.tgenabled IN ('O', 'A')
    )
    FROM (VALUES
        ('observatory', 'observatory', 'id', 'is_deleted', 'image.uid, image.id, NULL::int, NULL::int, NULL::int, NULL::int'),
        ('site', 'site', 'id', 'observatory_id is_deleted',
            'image.uid, image.observatory_id, NULL::int, NULL::int, NULL::int, NULL::int'),
        ('telescope', 'telescope', 'id', 'observatory_id is_deleted',
            'image.uid, image.observatory_id, image.id, NULL::int, NULL::int, NULL::int'),
        ('device', 'device', 'id', 'observatory_id telescope_id is_deleted',
            'image.uid, image.observatory_id, image.telescope_id, image.id, NULL::int, NULL::int'),
        ('instrument', 'instrument', 'id', 'telescope_id is_deleted',
            'image.uid, NULL::int, image.telescope_id, NULL::int, image.id, NULL::int'),
        ('part', 'instrument_device', 'instrument_id device_id', '',
            'NULL::uuid, NULL::int, NULL::int, image.device_id, image.instrument_id, NULL::int'),
        ('filter', 'filter', 'id', 'is_deleted', 'image.uid, NULL::int, NULL::int, NULL::int, NULL::int, image.id'),
        ('position', 'filter_wheel_position', 'id', 'device_id filter_id is_deleted',
            'image.uid, NULL::int, NULL::int, image.device_id, NULL::int, image.filter_id'),
        ('constraint', 'operational_constraint', 'id', 'observatory_id telescope_id is_deleted',
            'image.uid, image.observatory_id, image.telescope_id, NULL::int, NULL::int, NULL::int'),
        ('ip_camera', 'ip_camera', 'id', 'observatory_id telescope_id is_deleted',
            'image.uid, image.observatory_id, image.telescope_id, NULL::int, NULL::int, NULL::int'),
        ('installation', 'sky_node_installation', 'id', 'node_type observatory_id telescope_id',
            'NULL::uuid, image.observatory_id, NULL::int, NULL::int, NULL::int, NULL::int')
    ) AS watched (kind, name, key, place, kept)
    -- A new installation has seen nothing yet, and one that is deleted sees nothing any more.
    JOIN unnest('{INSERT,UPDATE,DELETE,TRUNCATE}'::text[]) AS happening (event)
        ON watched.kind <> 'installation' OR happening.event = 'UPDATE'
$$;

-- Installs those that are missing; the tables whose owner does not let us. As the caller.
CREATE OR REPLACE FUNCTION skygw.install_graph_triggers() RETURNS TABLE (refused text)
LANGUAGE plpgsql
AS $$
DECLARE
    wanted record;
    refusals text[] := '{}';
BEGIN
    FOR wanted IN SELECT * FROM skygw.graph_triggers() AS found WHERE NOT found.installed LOOP
        CONTINUE WHEN wanted.name = ANY (refusals);
        BEGIN
            EXECUTE format(
                'CREATE OR REPLACE TRIGGER %I AFTER %s ON %I %s FOR EACH STATEMENT '
                'EXECUTE FUNCTION skygw.touch_graph(%L, %L, %L, %L)',
                'skygw_graph_' || lower(wanted.event), wanted.event, wanted.name,
                CASE wanted.event
                    WHEN 'INSERT' THEN 'REFERENCING NEW TABLE AS now_rows'
                    WHEN 'DELETE' THEN 'REFERENCING OLD TABLE AS was_rows'
                    WHEN 'UPDATE' THEN 'REFERENCING OLD TABLE AS was_rows NEW TABLE AS now_rows'
                    ELSE ''
                END,
                wanted.kind, wanted.key, wanted.place, wanted.kept
            );
        EXCEPTION
            WHEN insufficient_privilege THEN
                refusals := refusals || wanted.name;
        END;
    END LOOP;
    RETURN QUERY SELECT unnest(refusals);
END
$$;

-- The platform's tables are wherever `observatory` is found now: nobody else's are looked at with our rights.
DO $$
DECLARE
    home text := (SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = 'observatory'::regclass);
    named text;
BEGIN
    FOREACH named IN ARRAY ARRAY[
        'skygw.bump_graph(bigint, integer[], integer[])',
        'skygw.commit_graph()',
        'skygw.graph_seen(integer, uuid[], integer[], text[])',
        'skygw.graph_triggers()',
        'skygw.install_graph_triggers()'
    ] LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = pg_catalog, %s, pg_temp', named, home);
    END LOOP;
    FOREACH named IN ARRAY ARRAY['site', 'filter', 'filter_wheel_position', 'ip_camera'] LOOP
        -- Where the platform lets the gateway read some columns only, so be it.
        IF NOT has_any_column_privilege('skynet_gateway', home || '.' || named, 'SELECT') THEN
            EXECUTE format('GRANT SELECT ON %s.%I TO skynet_gateway', home, named);
        END IF;
    END LOOP;
END
$$;

DROP TRIGGER IF EXISTS commit_graph ON skygw.graph_alarm;
CREATE CONSTRAINT TRIGGER commit_graph AFTER INSERT ON skygw.graph_alarm
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION skygw.commit_graph();

-- Everybody may call a function until it is said otherwise.
REVOKE EXECUTE ON FUNCTION
    skygw.next_graph_revision(), skygw.bump_graph(bigint, integer[], integer[]), skygw.touch_graph(),
    skygw.commit_graph(), skygw.graph_seen(integer, uuid[], integer[], text[]), skygw.graph_triggers(),
    skygw.install_graph_triggers()
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION skygw.graph_seen(integer, uuid[], integer[], text[]), skygw.graph_triggers()
    TO skynet_gateway;
GRANT SELECT ON skygw.graph_revision, skygw.graph_change TO skynet_gateway;

-- What is there has a revision, from which differences are told.
DO $$
DECLARE
    given bigint := skygw.next_graph_revision();
BEGIN
    INSERT INTO skygw.graph_revision (observatory_id, revision, known)
    SELECT id, given, ARRAY[given] FROM observatory
    ON CONFLICT DO NOTHING;
END
$$;
