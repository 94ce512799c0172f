-- One row a test: what was asked for, where it is, and what came out. The history itself is a file.
CREATE TABLE tests (
    id          text PRIMARY KEY,
    name        text NOT NULL,
    workload    text NOT NULL,
    nemesis     text NOT NULL,
    spec        text NOT NULL,
    status      text NOT NULL,
    verdict     text,
    error       text,
    analysis    text,
    performance text,
    created_at  text NOT NULL,
    started_at  text,
    ended_at    text
);
CREATE INDEX tests_by_status ON tests (status, id);

CREATE TABLE test_log (
    test_id text NOT NULL,
    number  bigint NOT NULL,
    at      text NOT NULL,
    line    text NOT NULL,
    PRIMARY KEY (test_id, number)
);
