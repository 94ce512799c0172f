CREATE TABLE sync_meta (name text PRIMARY KEY, value bytea NOT NULL);

-- version: the compare-and-swap of every commit. head: the last change; horizon: the last trimmed.
CREATE TABLE sync_users (
    user_id text PRIMARY KEY,
    version bigint NOT NULL DEFAULT 0,
    epoch text NOT NULL,
    head bigint NOT NULL DEFAULT 0,
    head_mark bigint NOT NULL DEFAULT 0,
    horizon bigint NOT NULL DEFAULT 0,
    horizon_mark bigint NOT NULL DEFAULT 0
);

-- One row for each life of a device.
CREATE TABLE sync_replicas (
    device_id text NOT NULL,
    incarnation bigint NOT NULL,
    user_id text NOT NULL REFERENCES sync_users,
    registered_at timestamptz NOT NULL,
    last_seen timestamptz NOT NULL,
    acked bigint NOT NULL DEFAULT 0,
    last_sequence bigint NOT NULL DEFAULT 0,
    retired boolean NOT NULL DEFAULT false,
    notes text NOT NULL DEFAULT '{}',
    PRIMARY KEY (device_id, incarnation)
);
CREATE INDEX sync_replicas_user ON sync_replicas (user_id);

CREATE TABLE sync_entities (
    user_id text NOT NULL,
    entity_type text NOT NULL,
    entity_id text NOT NULL,
    kind text NOT NULL,
    state bytea NOT NULL,
    seq bigint NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, entity_type, entity_id)
);
CREATE INDEX sync_entities_key ON sync_entities (entity_type, entity_id);

CREATE TABLE sync_log (
    user_id text NOT NULL,
    seq bigint NOT NULL,
    mark bigint NOT NULL,
    entity_type text NOT NULL,
    entity_id text NOT NULL,
    kind text NOT NULL,
    device_id text NOT NULL,
    delta bytea NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (user_id, seq)
);

-- name: 16 bytes of a hash of user and op_id.
CREATE TABLE sync_ops (
    name bytea PRIMARY KEY,
    payload bigint NOT NULL,
    at timestamptz NOT NULL
);
CREATE INDEX sync_ops_at ON sync_ops USING brin (at);

CREATE TABLE sync_answers (
    scope text NOT NULL,
    id text NOT NULL,
    hash bytea NOT NULL,
    answer text NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (scope, id)
);
CREATE INDEX sync_answers_at ON sync_answers USING brin (at);

CREATE TABLE sync_conflicts (
    id uuid PRIMARY KEY,
    user_id text NOT NULL,
    entity_type text NOT NULL,
    entity_id text NOT NULL,
    kind text NOT NULL,
    entry text,
    siblings text NOT NULL,
    status text NOT NULL,
    detected_at timestamptz NOT NULL,
    resolved_at timestamptz,
    resolution text
);
CREATE INDEX sync_conflicts_user ON sync_conflicts (user_id, status, detected_at);
