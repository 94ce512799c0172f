-- One row a subject: the key of its personal data, encrypted with the master key if there is one.
-- NULL: forgotten. It may be in a database of its own.
CREATE TABLE potter_subject_keys (
    subject      text COLLATE "C" PRIMARY KEY,
    key          bytea,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    forgotten_at timestamptz
);
