-- One row: who the device is and where it stands.
CREATE TABLE device (id INTEGER PRIMARY KEY CHECK (id = 1), meta TEXT NOT NULL);

-- What was downloaded.
CREATE TABLE entities (
    entity_type TEXT NOT NULL,
    entity_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    state BLOB NOT NULL,
    PRIMARY KEY (entity_type, entity_id)
) WITHOUT ROWID;

-- What was done here.
CREATE TABLE operations (number INTEGER PRIMARY KEY, operation TEXT NOT NULL);
