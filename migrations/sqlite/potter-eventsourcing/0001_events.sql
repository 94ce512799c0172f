-- One row an event. SQLite has one writer at a time: positions are in the order of commits.
-- Times are microseconds since 1970.
CREATE TABLE potter_events (
    global_position INTEGER PRIMARY KEY AUTOINCREMENT,
    stream_id       TEXT NOT NULL,
    version         INTEGER NOT NULL,
    event_id        TEXT NOT NULL UNIQUE,
    event_type      TEXT NOT NULL,
    schema_version  INTEGER NOT NULL,
    payload         TEXT NOT NULL,
    metadata        TEXT NOT NULL,
    segment         INTEGER NOT NULL,
    recorded_at     INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    UNIQUE (stream_id, version)
);
CREATE INDEX potter_events_segment ON potter_events (segment, global_position);

-- One row a stream: its head. With one writer there is nothing to lock, so it need not be stored.
CREATE VIEW potter_streams AS
    SELECT stream_id, substr(stream_id, 1, instr(stream_id, '-') - 1) AS stream_type,
           max(version) AS version
    FROM potter_events GROUP BY stream_id;
