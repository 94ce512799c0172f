-- A mirror of the log. One row an event, with its position as its identity: a block that is sent
-- twice is dropped by its token (the last 1000 are remembered), and what still came twice is one row
-- after a merge, and in the view at once. An insert that was answered is on the disk.
CREATE TABLE IF NOT EXISTS {events_raw} (
    global_position UInt64,
    stream_id       String,
    stream_type     LowCardinality(String),
    version         UInt64,
    event_id        UUID,
    event_type      LowCardinality(String),
    schema_version  UInt32,
    payload         String CODEC(ZSTD(1)),
    metadata        String CODEC(ZSTD(1)),
    tenant          LowCardinality(String),
    recorded_at     DateTime64(6, 'UTC'),
    mirrored_at     DateTime64(3, 'UTC') DEFAULT now64(3)
) ENGINE = ReplacingMergeTree
ORDER BY global_position
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1;

-- What to read: each event once.
CREATE VIEW IF NOT EXISTS {events} AS SELECT * FROM {events_raw} FINAL;

-- How far a mirror is: everything up to and with done is there, and what is above it up to and with
-- sending may be. The newest row counts.
CREATE TABLE IF NOT EXISTS {events_mirror} (
    mirror  String,
    done    UInt64,
    sending UInt64,
    at      DateTime64(6, 'UTC') DEFAULT now64(6)
) ENGINE = ReplacingMergeTree(done)
ORDER BY mirror
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
