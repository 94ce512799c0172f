-- A reader of a part of the log goes by groups of 64 segments: few enough for one index probe
-- each, many enough for 64 workers.
CREATE INDEX potter_events_segment_group ON potter_events (segment >> 6, global_position);
DROP INDEX potter_events_segment;

-- One row a projection. version: of the code that may write the read model. state: 'running', 'paused', or 'switching' (to a rebuilt read model,
-- held up until switch_until at most).
CREATE TABLE potter_projections (
    name         TEXT PRIMARY KEY,
    segments     INTEGER NOT NULL,
    version      INTEGER NOT NULL,
    state        TEXT NOT NULL DEFAULT 'running',
    switch_until INTEGER,
    created_at   INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER))
) WITHOUT ROWID;

-- One row a segment: how far it is, and whose it is. token is raised by every change of owner.
-- failure says why it stands still.
CREATE TABLE potter_projection_segments (
    projection TEXT NOT NULL,
    segment    INTEGER NOT NULL,
    position   INTEGER NOT NULL DEFAULT 0,
    handled    INTEGER NOT NULL DEFAULT 0,
    owner      TEXT,
    token      INTEGER NOT NULL DEFAULT 0,
    failure    TEXT,
    moved_at   INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    PRIMARY KEY (projection, segment)
) WITHOUT ROWID;

-- One row a worker: who is alive.
CREATE TABLE potter_projection_workers (
    projection TEXT NOT NULL,
    worker     TEXT NOT NULL,
    elastic    INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (projection, worker)
) WITHOUT ROWID;

-- Events that a projection could not handle and was told to set aside.
CREATE TABLE potter_parked_events (
    projection      TEXT NOT NULL,
    global_position INTEGER NOT NULL,
    segment         INTEGER NOT NULL,
    stream_id       TEXT NOT NULL,
    event_id        TEXT NOT NULL,
    event_type      TEXT NOT NULL,
    error           TEXT NOT NULL,
    attempts        INTEGER NOT NULL,
    parked_at       INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    PRIMARY KEY (projection, global_position)
) WITHOUT ROWID;
CREATE INDEX potter_parked_events_stream ON potter_parked_events (projection, stream_id);
