-- The transactional outbox, in the shape that Debezium's outbox event router reads:
-- id, aggregatetype, aggregateid, type, payload (the other columns are ours).
CREATE TABLE potter_outbox (
    seq           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id            uuid NOT NULL UNIQUE,
    aggregatetype varchar(255) NOT NULL,
    aggregateid   varchar(255) NOT NULL,
    type          varchar(255) NOT NULL,
    payload       jsonb NOT NULL,
    headers       jsonb NOT NULL DEFAULT '{}',
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts      integer NOT NULL DEFAULT 0,
    available_at  timestamptz NOT NULL DEFAULT '-infinity',
    last_error    text,
    dead          boolean NOT NULL DEFAULT false
);
CREATE INDEX potter_outbox_waiting ON potter_outbox (aggregatetype, aggregateid, seq)
    WHERE attempts > 0 AND NOT dead;

CREATE TABLE potter_idempotency (
    scope        text NOT NULL,
    key          text NOT NULL,
    request_hash text NOT NULL,
    token        bigint NOT NULL,
    answer       json,
    expires_at   timestamptz NOT NULL,
    PRIMARY KEY (scope, key)
);
CREATE INDEX potter_idempotency_expiry ON potter_idempotency (expires_at);

-- token only ever grows: it is the fencing token of the holder.
CREATE TABLE potter_leases (
    name       text PRIMARY KEY,
    holder     uuid NOT NULL,
    token      bigint NOT NULL,
    expires_at timestamptz NOT NULL
);
