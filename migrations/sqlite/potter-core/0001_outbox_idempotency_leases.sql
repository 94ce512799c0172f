-- The transactional outbox, in the shape that Debezium's outbox event router reads:
-- id, aggregatetype, aggregateid, type, payload (the other columns are ours).
-- Times are microseconds since 1970.
CREATE TABLE potter_outbox (
    seq           INTEGER PRIMARY KEY AUTOINCREMENT,
    id            TEXT NOT NULL UNIQUE,
    aggregatetype TEXT NOT NULL,
    aggregateid   TEXT NOT NULL,
    type          TEXT NOT NULL,
    payload       TEXT NOT NULL,
    headers       TEXT NOT NULL DEFAULT '{}',
    created_at    INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    attempts      INTEGER NOT NULL DEFAULT 0,
    available_at  INTEGER NOT NULL DEFAULT 0,
    last_error    TEXT,
    dead          INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX potter_outbox_waiting ON potter_outbox (aggregatetype, aggregateid, seq)
    WHERE attempts > 0 AND NOT dead;

CREATE TABLE potter_idempotency (
    scope        TEXT NOT NULL,
    key          TEXT NOT NULL,
    request_hash TEXT NOT NULL,
    token        INTEGER NOT NULL,
    answer       TEXT,
    expires_at   INTEGER NOT NULL,
    PRIMARY KEY (scope, key)
) WITHOUT ROWID;
CREATE INDEX potter_idempotency_expiry ON potter_idempotency (expires_at);

-- token only ever grows: it is the fencing token of the holder.
CREATE TABLE potter_leases (
    name       TEXT PRIMARY KEY,
    holder     TEXT NOT NULL,
    token      INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;
