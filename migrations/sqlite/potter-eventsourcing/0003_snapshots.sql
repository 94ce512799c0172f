-- States of aggregates at a version. event_id is the id of the event at that version: a snapshot
-- of a stream that has another event there (a restored backup) is not used.
CREATE TABLE potter_snapshots (
    id             TEXT PRIMARY KEY,
    stream_id      TEXT NOT NULL,
    version        INTEGER NOT NULL,
    schema_version INTEGER NOT NULL,
    event_id       TEXT NOT NULL,
    state          TEXT NOT NULL,
    taken_at       INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    UNIQUE (stream_id, schema_version, version)
);
