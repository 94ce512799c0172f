-- One row a subject: the key of its personal data, encrypted with the master key if there is one.
-- NULL: forgotten. It may be in a database of its own. Times are microseconds since 1970.
CREATE TABLE potter_subject_keys (
    subject      TEXT PRIMARY KEY,
    key          BLOB,
    created_at   INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    forgotten_at INTEGER
) WITHOUT ROWID;
