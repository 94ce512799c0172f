-- The parts of the log, when it is partitioned by position (PartitionedLog::convert): positions
-- above from_position, up to and with until_position. Archived: detached from potter_events, and
-- none is archived before those below it.
CREATE TABLE potter_log_parts (
    name           text COLLATE "C" PRIMARY KEY,
    from_position  bigint NOT NULL UNIQUE,
    until_position bigint NOT NULL UNIQUE,
    archived       boolean NOT NULL DEFAULT false
);
