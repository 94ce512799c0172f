-- One row a command: what became of it. Status: completed, rejected. A completed one is written
-- with its events, in one transaction; a rejected one can come again.
CREATE TABLE cqrs_commands (
    command_id   TEXT PRIMARY KEY,
    request_hash TEXT NOT NULL,
    aggregate_id TEXT NOT NULL,
    command_type TEXT NOT NULL,
    status       TEXT NOT NULL,
    answer       TEXT NOT NULL,
    duration_us  INTEGER NOT NULL,
    finished_at  INTEGER NOT NULL
);
CREATE INDEX cqrs_commands_finished ON cqrs_commands (finished_at);
CREATE INDEX cqrs_commands_aggregate ON cqrs_commands (aggregate_id);

-- The read models. Amounts are in cents; state is the whole aggregate.
CREATE TABLE cqrs_accounts (
    account_id    TEXT PRIMARY KEY,
    owner         TEXT NOT NULL,
    status        TEXT NOT NULL,
    balance_cents INTEGER NOT NULL,
    state         TEXT NOT NULL,
    version       INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL
);
CREATE INDEX cqrs_accounts_owner ON cqrs_accounts (owner);

CREATE TABLE cqrs_orders (
    order_id    TEXT PRIMARY KEY,
    customer_id TEXT NOT NULL,
    status      TEXT NOT NULL,
    total_cents INTEGER NOT NULL,
    state       TEXT NOT NULL,
    version     INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
);
CREATE INDEX cqrs_orders_customer ON cqrs_orders (customer_id);

-- How often what happened on a day (UTC).
CREATE TABLE cqrs_activity (
    day        TEXT NOT NULL,
    event_type TEXT NOT NULL,
    events     INTEGER NOT NULL,
    PRIMARY KEY (day, event_type)
);
