-- One row a command: what became of it. Status: completed, rejected. A completed one is written
-- with its events, in one transaction; a rejected one can come again.
CREATE TABLE cqrs_commands (
    command_id   text COLLATE "C" PRIMARY KEY,
    request_hash text NOT NULL,
    aggregate_id text COLLATE "C" NOT NULL,
    command_type text COLLATE "C" NOT NULL,
    status       text NOT NULL,
    answer       json NOT NULL,
    duration_us  bigint NOT NULL,
    finished_at  timestamptz NOT NULL
);
CREATE INDEX cqrs_commands_finished ON cqrs_commands (finished_at);
CREATE INDEX cqrs_commands_aggregate ON cqrs_commands (aggregate_id);

-- The read models. Amounts are in cents; state is the whole aggregate.
CREATE TABLE cqrs_accounts (
    account_id    text COLLATE "C" PRIMARY KEY,
    owner         text COLLATE "C" NOT NULL,
    status        text COLLATE "C" NOT NULL,
    balance_cents bigint NOT NULL,
    state         json NOT NULL,
    version       bigint NOT NULL,
    updated_at    timestamptz NOT NULL
);
CREATE INDEX cqrs_accounts_owner ON cqrs_accounts (owner);

CREATE TABLE cqrs_orders (
    order_id    text COLLATE "C" PRIMARY KEY,
    customer_id text COLLATE "C" NOT NULL,
    status      text COLLATE "C" NOT NULL,
    total_cents bigint NOT NULL,
    state       json NOT NULL,
    version     bigint NOT NULL,
    updated_at  timestamptz NOT NULL
);
CREATE INDEX cqrs_orders_customer ON cqrs_orders (customer_id);

-- How often what happened on a day (UTC).
CREATE TABLE cqrs_activity (
    day        text COLLATE "C" NOT NULL,
    event_type text COLLATE "C" NOT NULL,
    events     bigint NOT NULL,
    PRIMARY KEY (day, event_type)
);
