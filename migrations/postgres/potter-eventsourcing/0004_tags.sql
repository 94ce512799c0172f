-- What an event is about beside its stream: an array of texts, NULL where there is none. The table
-- is the index of them; a trigger keeps the two in step.
ALTER TABLE potter_events ADD COLUMN tags json;
CREATE TABLE potter_event_tags (
    tag             text COLLATE "C" NOT NULL,
    global_position bigint NOT NULL,
    event_type      text COLLATE "C" NOT NULL,
    PRIMARY KEY (tag, global_position)
);
CREATE FUNCTION potter_index_tags() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO potter_event_tags (tag, global_position, event_type)
    SELECT t.tag, NEW.global_position, NEW.event_type FROM json_array_elements_text(NEW.tags) AS t (tag);
    RETURN NULL;
END
$$;
CREATE TRIGGER potter_events_tags AFTER INSERT ON potter_events
    FOR EACH ROW WHEN (NEW.tags IS NOT NULL) EXECUTE FUNCTION potter_index_tags();

-- How appends and readers find each other: 'advisory' locks or 'rows' of potter_append_locks. One
-- row; everybody who writes here or reads all events must go by it.
CREATE TABLE potter_append_settings (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    locks    text NOT NULL CHECK (locks IN ('advisory', 'rows'))
);
INSERT INTO potter_append_settings (locks) VALUES ('advisory');

-- Rows to lock where there are no advisory locks. 0 to 31: every append takes the one whose turn
-- it is by the clock, so that each is free again and again. 32 to 1055: tags, by their hash.
CREATE TABLE potter_append_locks (id integer PRIMARY KEY);
INSERT INTO potter_append_locks (id) SELECT generate_series(0, 1055);

-- The events as the look for repeated ids sees them.
CREATE VIEW potter_known_events AS
    SELECT event_id, global_position, stream_id, version, event_type, schema_version,
           payload::text AS payload
    FROM potter_events;

-- The locks of an append, before its first position is taken: shared for the store and for the
-- tags of its events; exclusive for p_sole, a tag of each item of its condition, or for the whole
-- store (p_alone). In one order: the store, then tags by the number of their lock.
CREATE FUNCTION potter_lock_appends(p_locks text, p_tags text[], p_sole text[], p_alone boolean)
RETURNS void LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_store oid := 'potter_events'::regclass::oid;
    v_turn integer;
    v_lock record;
BEGIN
    IF p_locks = 'advisory' THEN
        IF p_alone THEN
            PERFORM pg_advisory_xact_lock(1886352500, v_store::integer);
        ELSE
            PERFORM pg_advisory_xact_lock_shared(1886352500, v_store::integer);
        END IF;
        IF p_tags IS NOT NULL OR p_sole IS NOT NULL THEN
            PERFORM CASE WHEN l.sole THEN pg_advisory_xact_lock(l.key)
                         ELSE pg_advisory_xact_lock_shared(l.key) END
            FROM (SELECT hashtextextended(w.tag, v_store::bigint) AS key, bool_or(w.sole) AS sole
                  FROM (SELECT unnest(p_tags) AS tag, false AS sole
                        UNION ALL SELECT unnest(p_sole), true) AS w
                  GROUP BY 1 ORDER BY 1) AS l;
        END IF;
        RETURN;
    END IF;
    IF p_alone THEN
        PERFORM 1 FROM potter_append_locks l WHERE l.id < 32 ORDER BY l.id FOR UPDATE;
    ELSE
        -- Read once: compared with each row, the clock could pass from one to the other and find none.
        v_turn := (extract(epoch FROM clock_timestamp()) * 20)::bigint % 32;
        PERFORM 1 FROM potter_append_locks l WHERE l.id = v_turn FOR SHARE;
    END IF;
    FOR v_lock IN
        SELECT 32 + (hashtextextended(w.tag, 0) & 1023)::integer AS id, bool_or(w.sole) AS sole
        FROM (SELECT unnest(p_tags) AS tag, false AS sole
              UNION ALL SELECT unnest(p_sole), true) AS w
        GROUP BY 1 ORDER BY 1
    LOOP
        IF v_lock.sole THEN
            PERFORM 1 FROM potter_append_locks l WHERE l.id = v_lock.id FOR UPDATE;
        ELSE
            PERFORM 1 FROM potter_append_locks l WHERE l.id = v_lock.id FOR SHARE;
        END IF;
    END LOOP;
END
$$;

-- As before, and with tags: the text of an array for each event, or NULL. One append after the
-- other, for calls in which a stream comes twice or an id is there already. p_locks: how to lock,
-- as in potter_append_settings; looked up there when it is not given.
DROP FUNCTION potter_append(
    text[], bigint[], integer[], smallint[], uuid[], text[], integer[], text[], text[]);
CREATE FUNCTION potter_append(
    p_streams text[], p_expected bigint[], p_counts integer[], p_segments smallint[],
    p_ids uuid[], p_types text[], p_schema_versions integer[], p_payloads text[], p_metadata text[],
    p_tags text[] DEFAULT NULL, p_locks text DEFAULT NULL)
RETURNS TABLE (
    idx integer, outcome text, first_version bigint, last_version bigint,
    last_position bigint, current_version bigint)
LANGUAGE plpgsql
SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    v_stream text;
    v_expected bigint;
    v_count integer;
    v_lo integer;
    v_hi integer := 0;
    v_version bigint;
    v_found bigint;
    v_same bigint;
    v_offset_min bigint;
    v_offset_max bigint;
BEGIN
    PERFORM potter_lock_appends(
        coalesce(p_locks, (SELECT s.locks FROM potter_append_settings s)),
        (SELECT array_agg(DISTINCT t.tag) FROM unnest(p_tags) AS e (tags)
         CROSS JOIN LATERAL json_array_elements_text(e.tags::json) AS t (tag)), NULL, false);
    FOR i IN 1 .. array_length(p_streams, 1) LOOP
        v_stream := p_streams[i];
        v_expected := p_expected[i];
        v_count := p_counts[i];
        v_lo := v_hi + 1;
        v_hi := v_hi + v_count;
        idx := i;
        first_version := NULL;
        last_version := NULL;
        last_position := NULL;
        current_version := NULL;

        -- Move the head. From here on the stream is locked, and every statement sees what
        -- whoever held it before has committed.
        v_version := NULL;
        IF v_expected > 0 THEN
            UPDATE potter_streams s SET version = s.version + v_count
            WHERE s.stream_id = v_stream AND s.version = v_expected
            RETURNING s.version INTO v_version;
        ELSIF v_expected = -3 THEN
            UPDATE potter_streams s SET version = s.version + v_count
            WHERE s.stream_id = v_stream
            RETURNING s.version INTO v_version;
        ELSIF v_expected = -1 THEN
            INSERT INTO potter_streams AS s (stream_id, version) VALUES (v_stream, v_count)
            ON CONFLICT (stream_id) DO UPDATE SET version = s.version + excluded.version
            RETURNING s.version INTO v_version;
        ELSE
            INSERT INTO potter_streams AS s (stream_id, version) VALUES (v_stream, v_count)
            ON CONFLICT (stream_id) DO NOTHING
            RETURNING s.version INTO v_version;
        END IF;

        PERFORM 1 FROM potter_known_events k WHERE k.event_id = ANY (p_ids[v_lo:v_hi]) LIMIT 1;
        IF FOUND THEN
            IF v_version = v_count THEN
                DELETE FROM potter_streams s WHERE s.stream_id = v_stream;
            ELSIF v_version IS NOT NULL THEN
                UPDATE potter_streams s SET version = s.version - v_count WHERE s.stream_id = v_stream;
            END IF;
            SELECT count(*),
                   count(*) FILTER (
                       WHERE k.stream_id = v_stream AND k.event_type = n.event_type
                         AND k.schema_version = n.schema_version AND k.payload = n.payload),
                   min(k.version - n.ordinal), max(k.version - n.ordinal), max(k.global_position)
            INTO v_found, v_same, v_offset_min, v_offset_max, last_position
            FROM unnest(p_ids[v_lo:v_hi], p_types[v_lo:v_hi], p_schema_versions[v_lo:v_hi], p_payloads[v_lo:v_hi])
                WITH ORDINALITY AS n (event_id, event_type, schema_version, payload, ordinal)
            JOIN potter_known_events k ON k.event_id = n.event_id;
            IF v_found = v_count AND v_same = v_count AND v_offset_min = v_offset_max THEN
                outcome := 'repeated';
                first_version := v_offset_min + 1;
                last_version := v_offset_min + v_count;
            ELSE
                outcome := 'duplicate_event_id';
                last_position := NULL;
            END IF;
        ELSIF v_version IS NULL THEN
            outcome := 'conflict';
            SELECT s.version INTO current_version FROM potter_streams s WHERE s.stream_id = v_stream;
        ELSE
            outcome := 'appended';
            first_version := v_version - v_count + 1;
            last_version := v_version;
            WITH inserted AS (
                INSERT INTO potter_events AS e
                    (stream_id, version, event_id, event_type, schema_version, payload, metadata, tags, segment)
                SELECT v_stream, v_version - v_count + n.ordinal, n.event_id, n.event_type,
                       n.schema_version, n.payload::json, n.metadata::json, n.tags::json, p_segments[i]
                FROM unnest(p_ids[v_lo:v_hi], p_types[v_lo:v_hi], p_schema_versions[v_lo:v_hi],
                            p_payloads[v_lo:v_hi], p_metadata[v_lo:v_hi], p_tags[v_lo:v_hi])
                    WITH ORDINALITY AS n (event_id, event_type, schema_version, payload, metadata, tags, ordinal)
                ORDER BY n.ordinal
                RETURNING e.global_position
            )
            SELECT max(inserted.global_position) INTO last_position FROM inserted;
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;

-- Appends to streams that are all different and sorted, by a few statements for all of them
-- together. The answers are those of potter_append, which takes over when an id is there already.
--
-- For each event: p_of, the place of its append, and p_nth, its place in that. Events get their
-- positions in the order given. p_all: all or nothing. p_query (the items of a query), p_after and
-- p_seen: only if no event that the query wants is above p_after, those at p_seen excepted.
--
-- Further outcomes, when p_all: 'held' (another append of the call is why nothing was written),
-- 'condition' (broken by the event at current_version), 'isolation' (the transaction's is not READ
-- COMMITTED, so the look for such events could miss one).
--
-- Heads that exist are locked in the order of the streams; the missing ones are inserted in it. An
-- insert that finds the row of another transaction after all begins again: that one has ended.
--
-- Streams that must all be new are not looked for first. And ids are looked for only if p_look, or
-- when some append does not fit: who calls it in a transaction of its own does without, as an id that
-- is there fails it with a unique violation; then it is called again.
CREATE FUNCTION potter_append_group(
    p_streams text[], p_expected bigint[], p_counts integer[], p_segments smallint[],
    p_of integer[], p_nth integer[],
    p_ids uuid[], p_types text[], p_schema_versions integer[], p_payloads text[], p_metadata text[],
    p_tags text[], p_locks text, p_all boolean, p_query json, p_after bigint, p_seen bigint[],
    p_look boolean)
RETURNS TABLE (
    idx integer, outcome text, first_version bigint, last_version bigint,
    last_position bigint, current_version bigint)
LANGUAGE plpgsql
SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    v_heads bigint[];
    v_fit boolean[];
    v_any_fit boolean;
    v_all_fit boolean;
    v_any_head boolean;
    v_new integer;
    v_made text[];
    v_outcome text;
    v_broken bigint;
    v_all_new boolean := p_expected <@ ARRAY[-2, 0]::bigint[];
BEGIN
    IF p_tags IS NULL AND p_query IS NULL THEN
        IF p_locks = 'advisory' THEN
            PERFORM pg_advisory_xact_lock_shared(1886352500, 'potter_events'::regclass::oid::integer);
        ELSE
            PERFORM potter_lock_appends(p_locks, NULL, NULL, false);
        END IF;
    ELSE
        PERFORM potter_lock_appends(
            p_locks,
            (SELECT array_agg(DISTINCT t.tag) FROM unnest(p_tags) AS e (tags)
             CROSS JOIN LATERAL json_array_elements_text(e.tags::json) AS t (tag)),
            (SELECT array_agg(DISTINCT i.value #>> '{tags,0}') FROM json_array_elements(p_query) AS i
             WHERE json_array_length(i.value -> 'tags') > 0),
            coalesce((SELECT bool_or(json_array_length(i.value -> 'tags') = 0)
                      FROM json_array_elements(p_query) AS i), false));
    END IF;

    IF v_all_new THEN
        WITH made AS (
            INSERT INTO potter_streams AS s (stream_id, version)
            SELECT n.stream_id, n.count FROM unnest(p_streams, p_counts) AS n (stream_id, count)
            ORDER BY n.stream_id COLLATE "C"
            ON CONFLICT (stream_id) DO NOTHING
            RETURNING s.stream_id
        )
        SELECT array_agg(made.stream_id) INTO v_made FROM made;
        v_all_new := cardinality(v_made) IS NOT DISTINCT FROM cardinality(p_streams);
        IF v_all_new THEN
            v_heads := array_fill(0::bigint, ARRAY[cardinality(p_streams)]);
            v_fit := array_fill(true, ARRAY[cardinality(p_streams)]);
            v_any_fit := true;
            v_all_fit := true;
            v_any_head := false;
        ELSIF v_made IS NOT NULL THEN
            DELETE FROM potter_streams s WHERE s.stream_id = ANY (v_made);
        END IF;
    END IF;
    WHILE NOT v_all_new LOOP
        v_made := NULL;
        WITH head AS MATERIALIZED (
            SELECT s.stream_id, s.version FROM potter_streams s
            WHERE s.stream_id = ANY (p_streams) ORDER BY s.stream_id FOR NO KEY UPDATE
        ), of AS (
            SELECT n.idx, coalesce(head.version, 0) AS version,
                   CASE n.expected WHEN -1 THEN true
                                   WHEN -2 THEN head.version IS NULL
                                   WHEN -3 THEN head.version IS NOT NULL
                                   ELSE coalesce(head.version, 0) = n.expected END AS fits
            FROM unnest(p_streams, p_expected) WITH ORDINALITY AS n (stream_id, expected, idx)
            LEFT JOIN head ON head.stream_id = n.stream_id
        )
        SELECT array_agg(of.version ORDER BY of.idx), array_agg(of.fits ORDER BY of.idx),
               bool_or(of.fits), bool_and(of.fits), bool_or(of.fits AND of.version > 0),
               count(*) FILTER (WHERE of.fits AND of.version = 0)
        INTO v_heads, v_fit, v_any_fit, v_all_fit, v_any_head, v_new
        FROM of;
        EXIT WHEN v_new = 0;
        WITH made AS (
            INSERT INTO potter_streams AS s (stream_id, version)
            SELECT n.stream_id, n.count
            FROM unnest(p_streams, p_counts, v_heads, v_fit) AS n (stream_id, count, version, fits)
            WHERE n.fits AND n.version = 0
            ORDER BY n.stream_id COLLATE "C"
            ON CONFLICT (stream_id) DO NOTHING
            RETURNING s.stream_id
        )
        SELECT array_agg(made.stream_id) INTO v_made FROM made;
        EXIT WHEN v_new = cardinality(v_made);
        DELETE FROM potter_streams s WHERE s.stream_id = ANY (v_made);
    END LOOP;

    -- The heads are held: what others have committed to these streams is seen from here on.
    IF (p_look OR NOT v_all_fit)
        AND EXISTS (SELECT 1 FROM potter_known_events k WHERE k.event_id = ANY (p_ids))
    THEN
        DELETE FROM potter_streams s WHERE s.stream_id = ANY (v_made);
        IF NOT p_all THEN
            RETURN QUERY SELECT * FROM potter_append(
                p_streams, p_expected, p_counts, p_segments, p_ids, p_types, p_schema_versions,
                p_payloads, p_metadata, p_tags, p_locks);
            RETURN;
        END IF;
        RETURN QUERY
            WITH known AS (
                SELECT n.of, count(k.event_id) AS found, min(k.version - n.nth) AS base,
                       max(k.global_position) AS position,
                       bool_and(k.stream_id = p_streams[n.of] AND k.event_type = n.event_type
                                AND k.schema_version = n.schema_version AND k.payload = n.payload)
                           AND count(*) = count(k.event_id)
                           AND min(k.version - n.nth) = max(k.version - n.nth) AS same
                FROM unnest(p_of, p_nth, p_ids, p_types, p_schema_versions, p_payloads)
                    AS n (of, nth, event_id, event_type, schema_version, payload)
                LEFT JOIN potter_known_events k ON k.event_id = n.event_id
                GROUP BY n.of
            ), judged AS (
                SELECT known.*, bool_and(known.same IS TRUE) OVER () AS all_same FROM known
            )
            SELECT j.of,
                   CASE WHEN j.all_same THEN 'repeated'
                        WHEN j.found > 0 THEN 'duplicate_event_id' ELSE 'held' END,
                   j.base + 1, j.base + p_counts[j.of], j.position, NULL::bigint
            FROM judged AS j ORDER BY j.of;
        RETURN;
    END IF;

    IF p_query IS NOT NULL THEN
        IF current_setting('transaction_isolation') <> 'read committed' THEN
            v_outcome := 'isolation';
        ELSE
            SELECT t.global_position INTO v_broken
            FROM json_array_elements(p_query) AS item (value)
            CROSS JOIN LATERAL (
                SELECT e.global_position, e.event_type FROM potter_event_tags e
                WHERE e.tag = item.value #>> '{tags,0}' AND e.global_position > p_after) AS t
            WHERE (json_array_length(item.value -> 'types') = 0
                   OR t.event_type = ANY (ARRAY(SELECT json_array_elements_text(item.value -> 'types'))))
              AND NOT EXISTS (
                  SELECT 1 FROM json_array_elements_text(item.value -> 'tags') AS other (tag)
                  WHERE NOT EXISTS (SELECT 1 FROM potter_event_tags o
                                    WHERE o.tag = other.tag AND o.global_position = t.global_position))
              AND t.global_position <> ALL (p_seen)
            LIMIT 1;
            IF v_broken IS NULL AND EXISTS (
                SELECT 1 FROM json_array_elements(p_query) AS item
                WHERE json_array_length(item.value -> 'tags') = 0
            ) THEN
                SELECT e.global_position INTO v_broken
                FROM potter_events e
                WHERE e.global_position > p_after AND e.global_position <> ALL (p_seen)
                  AND EXISTS (
                      SELECT 1 FROM json_array_elements(p_query) AS item
                      WHERE json_array_length(item.value -> 'tags') = 0
                        AND (json_array_length(item.value -> 'types') = 0
                             OR e.event_type = ANY (ARRAY(SELECT json_array_elements_text(item.value -> 'types')))))
                LIMIT 1;
            END IF;
            IF v_broken IS NOT NULL THEN
                v_outcome := 'condition';
            END IF;
        END IF;
    END IF;
    IF v_outcome IS NOT NULL OR NOT v_any_fit OR (p_all AND NOT v_all_fit) THEN
        DELETE FROM potter_streams s WHERE s.stream_id = ANY (v_made);
        RETURN QUERY
            SELECT n.idx::integer,
                   coalesce(v_outcome, CASE WHEN n.fits THEN 'held' ELSE 'conflict' END),
                   NULL::bigint, NULL::bigint, NULL::bigint, coalesce(v_broken, n.version)
            FROM unnest(v_heads, v_fit) WITH ORDINALITY AS n (version, fits, idx)
            ORDER BY n.idx;
        RETURN;
    END IF;

    IF v_any_head THEN
        UPDATE potter_streams s SET version = s.version + n.count
        FROM unnest(p_streams, p_counts, v_heads, v_fit) AS n (stream_id, count, version, fits)
        WHERE s.stream_id = n.stream_id AND n.fits AND n.version > 0;
    END IF;
    RETURN QUERY
        WITH inserted AS (
            INSERT INTO potter_events AS e
                (stream_id, version, event_id, event_type, schema_version, payload, metadata, tags, segment)
            SELECT p_streams[n.of], v_heads[n.of] + n.nth, n.event_id, n.event_type, n.schema_version,
                   n.payload::json, n.metadata::json, n.tags::json, p_segments[n.of]
            FROM unnest(p_of, p_nth, p_ids, p_types, p_schema_versions, p_payloads, p_metadata, p_tags)
                WITH ORDINALITY
                AS n (of, nth, event_id, event_type, schema_version, payload, metadata, tags, ordinal)
            WHERE v_fit[n.of]
            ORDER BY n.ordinal
            RETURNING e.stream_id, e.global_position
        ), last AS (
            SELECT inserted.stream_id, max(inserted.global_position) AS position
            FROM inserted GROUP BY inserted.stream_id
        )
        SELECT n.idx::integer,
               CASE WHEN n.fits THEN 'appended' ELSE 'conflict' END,
               n.version + 1, n.version + n.count, last.position, n.version
        FROM unnest(p_streams, p_counts, v_heads, v_fit)
            WITH ORDINALITY AS n (stream_id, count, version, fits, idx)
        LEFT JOIN last ON last.stream_id = n.stream_id
        ORDER BY n.idx;
END
$$;
