-- One row a saga. The columns that change with every step are in no index, so that the update
-- stays within its page (HOT); fillfactor leaves it the room.
CREATE TABLE potter_sagas (
    id               uuid PRIMARY KEY,
    name             text NOT NULL,
    version          integer NOT NULL,
    definition_hash  text NOT NULL,
    key              text NOT NULL,
    input_hash       text NOT NULL,
    input            json NOT NULL,
    metadata         json NOT NULL,
    correlation_id   text,
    status           text NOT NULL,
    steps_total      integer NOT NULL,
    step             integer NOT NULL DEFAULT 0,
    attempt          integer NOT NULL DEFAULT 0,
    error            text,
    parked           text,
    past_pivot       boolean NOT NULL DEFAULT false,
    compensating     boolean NOT NULL DEFAULT false,
    cancel_requested boolean NOT NULL DEFAULT false,
    owner            uuid,
    fence            bigint NOT NULL DEFAULT 0,
    rev              bigint NOT NULL DEFAULT 0,
    wake_at          timestamptz NOT NULL,
    deadline_at      timestamptz,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at      timestamptz,
    UNIQUE (name, key)
) WITH (fillfactor = 60);
CREATE INDEX potter_sagas_due ON potter_sagas (wake_at)
    WHERE status IN ('pending', 'running', 'compensating');
CREATE INDEX potter_sagas_created ON potter_sagas (created_at, id);
CREATE INDEX potter_sagas_correlation ON potter_sagas (correlation_id) WHERE correlation_id IS NOT NULL;

-- What happened, in order: a saga's state is the fold of its rows.
CREATE TABLE potter_saga_log (
    saga_id     uuid NOT NULL REFERENCES potter_sagas (id) ON DELETE CASCADE,
    seq         bigint NOT NULL,
    kind        text NOT NULL,
    step        integer NOT NULL,
    step_name   text,
    attempt     integer NOT NULL,
    uncertain   boolean NOT NULL,
    output      json,
    error       text,
    duration_us bigint NOT NULL,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (saga_id, seq)
);

-- The processes that run sagas; one row for each start of one.
CREATE TABLE potter_saga_nodes (
    id         uuid PRIMARY KEY,
    expires_at timestamptz NOT NULL
);
