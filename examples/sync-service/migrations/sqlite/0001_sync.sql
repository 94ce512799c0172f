CREATE TABLE sync_meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;

-- version: the compare-and-swap of every commit. head: the last change; horizon: the last trimmed.
CREATE TABLE sync_users (
    user_id TEXT PRIMARY KEY,
    version INTEGER NOT NULL DEFAULT 0,
    epoch TEXT NOT NULL,
    head INTEGER NOT NULL DEFAULT 0,
    head_mark INTEGER NOT NULL DEFAULT 0,
    horizon INTEGER NOT NULL DEFAULT 0,
    horizon_mark INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- One row for each life of a device.
CREATE TABLE sync_replicas (
    device_id TEXT NOT NULL,
    incarnation INTEGER NOT NULL,
    user_id TEXT NOT NULL REFERENCES sync_users,
    registered_at INTEGER NOT NULL,
    last_seen INTEGER NOT NULL,
    acked INTEGER NOT NULL DEFAULT 0,
    last_sequence INTEGER NOT NULL DEFAULT 0,
    retired INTEGER NOT NULL DEFAULT 0,
    notes TEXT NOT NULL DEFAULT '{}',
    PRIMARY KEY (device_id, incarnation)
) WITHOUT ROWID;
CREATE INDEX sync_replicas_user ON sync_replicas (user_id);

CREATE TABLE sync_entities (
    user_id TEXT NOT NULL,
    entity_type TEXT NOT NULL,
    entity_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    state BLOB NOT NULL,
    seq INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, entity_type, entity_id)
);
CREATE INDEX sync_entities_key ON sync_entities (entity_type, entity_id);

CREATE TABLE sync_log (
    user_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    mark INTEGER NOT NULL,
    entity_type TEXT NOT NULL,
    entity_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    device_id TEXT NOT NULL,
    delta BLOB NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (user_id, seq)
);

-- name: 16 bytes of a hash of user and op_id.
CREATE TABLE sync_ops (
    name BLOB PRIMARY KEY,
    payload INTEGER NOT NULL,
    at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX sync_ops_at ON sync_ops (at);

CREATE TABLE sync_answers (
    scope TEXT NOT NULL,
    id TEXT NOT NULL,
    hash BLOB NOT NULL,
    answer TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (scope, id)
);
CREATE INDEX sync_answers_at ON sync_answers (at);

CREATE TABLE sync_conflicts (
    id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL,
    entity_type TEXT NOT NULL,
    entity_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    entry TEXT,
    siblings TEXT NOT NULL,
    status TEXT NOT NULL,
    detected_at INTEGER NOT NULL,
    resolved_at INTEGER,
    resolution TEXT
);
CREATE INDEX sync_conflicts_user ON sync_conflicts (user_id, status, detected_at);
