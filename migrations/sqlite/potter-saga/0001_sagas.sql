-- One row a saga. Times are microseconds since 1970.
CREATE TABLE potter_sagas (
    id               TEXT PRIMARY KEY,
    name             TEXT NOT NULL,
    version          INTEGER NOT NULL,
    definition_hash  TEXT NOT NULL,
    key              TEXT NOT NULL,
    input_hash       TEXT NOT NULL,
    input            TEXT NOT NULL,
    metadata         TEXT NOT NULL,
    correlation_id   TEXT,
    status           TEXT NOT NULL,
    steps_total      INTEGER NOT NULL,
    step             INTEGER NOT NULL DEFAULT 0,
    attempt          INTEGER NOT NULL DEFAULT 0,
    error            TEXT,
    parked           TEXT,
    past_pivot       INTEGER NOT NULL DEFAULT 0,
    compensating     INTEGER NOT NULL DEFAULT 0,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    owner            TEXT,
    fence            INTEGER NOT NULL DEFAULT 0,
    rev              INTEGER NOT NULL DEFAULT 0,
    wake_at          INTEGER NOT NULL,
    deadline_at      INTEGER,
    created_at       INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    updated_at       INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    finished_at      INTEGER,
    UNIQUE (name, key)
);
CREATE INDEX potter_sagas_due ON potter_sagas (wake_at)
    WHERE status IN ('pending', 'running', 'compensating');
CREATE INDEX potter_sagas_created ON potter_sagas (created_at, id);
CREATE INDEX potter_sagas_correlation ON potter_sagas (correlation_id) WHERE correlation_id IS NOT NULL;

-- What happened, in order: a saga's state is the fold of its rows.
CREATE TABLE potter_saga_log (
    saga_id     TEXT NOT NULL REFERENCES potter_sagas (id) ON DELETE CASCADE,
    seq         INTEGER NOT NULL,
    kind        TEXT NOT NULL,
    step        INTEGER NOT NULL,
    step_name   TEXT,
    attempt     INTEGER NOT NULL,
    uncertain   INTEGER NOT NULL,
    output      TEXT,
    error       TEXT,
    duration_us INTEGER NOT NULL,
    at          INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    PRIMARY KEY (saga_id, seq)
) WITHOUT ROWID;

-- The processes that run sagas; one row for each start of one.
CREATE TABLE potter_saga_nodes (
    id         TEXT PRIMARY KEY,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;
