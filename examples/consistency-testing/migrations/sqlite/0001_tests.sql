-- One row a test: what was asked for, where it is, and what came out. The history itself is a file.
CREATE TABLE tests (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL,
    workload    TEXT NOT NULL,
    nemesis     TEXT NOT NULL,
    spec        TEXT NOT NULL,
    status      TEXT NOT NULL,
    verdict     TEXT,
    error       TEXT,
    analysis    TEXT,
    performance TEXT,
    created_at  TEXT NOT NULL,
    started_at  TEXT,
    ended_at    TEXT
) WITHOUT ROWID;
CREATE INDEX tests_by_status ON tests (status, id);

CREATE TABLE test_log (
    test_id TEXT NOT NULL,
    number  INTEGER NOT NULL,
    at      TEXT NOT NULL,
    line    TEXT NOT NULL,
    PRIMARY KEY (test_id, number)
) WITHOUT ROWID;
