-- One row a stream: its head. Appends to a stream are serialised by the lock on this row.
CREATE TABLE potter_streams (
    stream_id   text COLLATE "C" PRIMARY KEY,
    stream_type text COLLATE "C" NOT NULL GENERATED ALWAYS AS (split_part(stream_id, '-', 1)) STORED,
    version     bigint NOT NULL
) WITH (fillfactor = 80);

-- One row an event. The identity must keep CACHE 1: positions that a connection has set aside
-- would be filled in behind a reader. payload is json and not jsonb: bit for bit what was given.
CREATE TABLE potter_events (
    global_position bigint GENERATED ALWAYS AS IDENTITY (CACHE 1) PRIMARY KEY,
    stream_id       text COLLATE "C" NOT NULL,
    version         bigint NOT NULL,
    event_id        uuid NOT NULL UNIQUE,
    event_type      text COLLATE "C" NOT NULL,
    schema_version  integer NOT NULL,
    payload         json NOT NULL,
    metadata        json NOT NULL,
    segment         smallint NOT NULL,
    recorded_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (stream_id, version)
);
CREATE INDEX potter_events_segment ON potter_events (segment, global_position);

-- Appends to one or more streams, each with its own answer, in the order given (callers give
-- them sorted by stream, so that two calls cannot wait for each other).
--
-- expected: -1 any, -2 no stream, -3 the stream exists, 0 and above exactly this version.
-- outcome: 'appended', 'repeated' (these very events are there already), 'conflict',
-- 'duplicate_event_id' (an id is there with another content, stream or neighbour).
--
-- The shared advisory lock is taken before the first position is, and is held to the end of the
-- transaction: readers of all events wait for its holders before they trust a gap. A conflict
-- is an answer, not an exception, so the caller's transaction stays usable.
CREATE FUNCTION potter_append(
    p_streams text[], p_expected bigint[], p_counts integer[], p_segments smallint[],
    p_ids uuid[], p_types text[], p_schema_versions integer[], p_payloads text[], p_metadata text[])
RETURNS TABLE (
    idx integer, outcome text, first_version bigint, last_version bigint,
    last_position bigint, current_version bigint)
LANGUAGE plpgsql
-- Plans of a function are kept. One that was made for an empty table would read the whole table
-- for the ids of every batch, however large it has become.
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
    PERFORM pg_advisory_xact_lock_shared(1886352500, 'potter_events'::regclass::oid::integer);
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

        IF v_count = 1 THEN
            PERFORM 1 FROM potter_events e WHERE e.event_id = p_ids[v_lo];
        ELSE
            PERFORM 1 FROM potter_events e WHERE e.event_id = ANY (p_ids[v_lo:v_hi]) LIMIT 1;
        END IF;
        IF FOUND THEN
            IF v_version = v_count THEN
                DELETE FROM potter_streams s WHERE s.stream_id = v_stream;
            ELSIF v_version IS NOT NULL THEN
                UPDATE potter_streams s SET version = s.version - v_count WHERE s.stream_id = v_stream;
            END IF;
            SELECT count(*),
                   count(*) FILTER (
                       WHERE e.stream_id = v_stream AND e.event_type = n.event_type
                         AND e.schema_version = n.schema_version AND e.payload::text = n.payload),
                   min(e.version - n.ordinal), max(e.version - n.ordinal), max(e.global_position)
            INTO v_found, v_same, v_offset_min, v_offset_max, last_position
            FROM unnest(p_ids[v_lo:v_hi], p_types[v_lo:v_hi], p_schema_versions[v_lo:v_hi], p_payloads[v_lo:v_hi])
                WITH ORDINALITY AS n (event_id, event_type, schema_version, payload, ordinal)
            JOIN potter_events e ON e.event_id = n.event_id;
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
        ELSIF v_count = 1 THEN
            outcome := 'appended';
            first_version := v_version;
            last_version := v_version;
            INSERT INTO potter_events AS e
                (stream_id, version, event_id, event_type, schema_version, payload, metadata, segment)
            VALUES (v_stream, v_version, p_ids[v_lo], p_types[v_lo], p_schema_versions[v_lo],
                    p_payloads[v_lo]::json, p_metadata[v_lo]::json, p_segments[i])
            RETURNING e.global_position INTO last_position;
        ELSE
            outcome := 'appended';
            first_version := v_version - v_count + 1;
            last_version := v_version;
            WITH inserted AS (
                INSERT INTO potter_events AS e
                    (stream_id, version, event_id, event_type, schema_version, payload, metadata, segment)
                SELECT v_stream, v_version - v_count + n.ordinal, n.event_id, n.event_type,
                       n.schema_version, n.payload::json, n.metadata::json, p_segments[i]
                FROM unnest(p_ids[v_lo:v_hi], p_types[v_lo:v_hi], p_schema_versions[v_lo:v_hi],
                            p_payloads[v_lo:v_hi], p_metadata[v_lo:v_hi])
                    WITH ORDINALITY AS n (event_id, event_type, schema_version, payload, metadata, ordinal)
                ORDER BY n.ordinal
                RETURNING e.global_position
            )
            SELECT max(inserted.global_position) INTO last_position FROM inserted;
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;
