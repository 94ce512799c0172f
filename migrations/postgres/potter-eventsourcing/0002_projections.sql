-- A reader of a part of the log goes by groups of 64 segments: few enough for one index probe
-- each, many enough for 64 workers.
CREATE INDEX potter_events_segment_group ON potter_events ((segment >> 6), global_position);
DROP INDEX potter_events_segment;

-- One row a projection. version: of the code that may write the read model. state: 'running', 'paused', or 'switching' (to a rebuilt read model,
-- held up until switch_until at most).
CREATE TABLE potter_projections (
    name         text COLLATE "C" PRIMARY KEY,
    segments     bigint NOT NULL,
    version      bigint NOT NULL,
    state        text NOT NULL DEFAULT 'running',
    switch_until timestamptz,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- One row a segment: how far it is, and whose it is. token is raised by every change of owner.
-- failure says why it stands still.
CREATE TABLE potter_projection_segments (
    projection text COLLATE "C" NOT NULL,
    segment    bigint NOT NULL,
    position   bigint NOT NULL DEFAULT 0,
    handled    bigint NOT NULL DEFAULT 0,
    owner      uuid,
    token      bigint NOT NULL DEFAULT 0,
    failure    text,
    moved_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (projection, segment)
) WITH (fillfactor = 50);

-- One row a worker: who is alive.
CREATE TABLE potter_projection_workers (
    projection text COLLATE "C" NOT NULL,
    worker     uuid NOT NULL,
    elastic    boolean NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (projection, worker)
);

-- Events that a projection could not handle and was told to set aside.
CREATE TABLE potter_parked_events (
    projection      text COLLATE "C" NOT NULL,
    global_position bigint NOT NULL,
    segment         bigint NOT NULL,
    stream_id       text COLLATE "C" NOT NULL,
    event_id        uuid NOT NULL,
    event_type      text COLLATE "C" NOT NULL,
    error           text NOT NULL,
    attempts        bigint NOT NULL,
    parked_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (projection, global_position)
);
CREATE INDEX potter_parked_events_stream ON potter_parked_events (projection, stream_id);
