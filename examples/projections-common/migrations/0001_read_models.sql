-- Several programs can share a database: each row names the projection that it belongs to.
-- "times" counts how often the event was applied: it is 1, or something is wrong.
CREATE TABLE example_users (
    projection TEXT NOT NULL,
    user_id TEXT NOT NULL,
    name TEXT NOT NULL,
    email TEXT NOT NULL,
    worker TEXT NOT NULL,
    times BIGINT NOT NULL DEFAULT 1,
    PRIMARY KEY (projection, user_id)
);

CREATE TABLE example_revenue (
    order_id TEXT NOT NULL PRIMARY KEY,
    cents BIGINT NOT NULL,
    times BIGINT NOT NULL DEFAULT 1
);

CREATE TABLE example_activity (
    event_id TEXT NOT NULL PRIMARY KEY,
    event_type TEXT NOT NULL,
    position BIGINT NOT NULL,
    times BIGINT NOT NULL DEFAULT 1
);
