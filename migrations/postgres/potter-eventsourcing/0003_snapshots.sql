-- States of aggregates at a version. event_id is the id of the event at that version: a snapshot
-- of a stream that has another event there (a restored backup) is not used.
CREATE TABLE potter_snapshots (
    id             uuid PRIMARY KEY,
    stream_id      text COLLATE "C" NOT NULL,
    version        bigint NOT NULL,
    schema_version bigint NOT NULL,
    event_id       uuid NOT NULL,
    state          json NOT NULL,
    taken_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (stream_id, schema_version, version)
);
