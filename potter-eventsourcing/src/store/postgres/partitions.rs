//! A log in parts by position, old ones archived.
//!
//! # Invariants
//! 1. Event ids, and versions of a stream, stay unique over all parts, archived ones included. A
//!    unique index of a partitioned table must have the position in it and can't say that, so a
//!    table beside it does (`potter_event_ids`), written by a trigger in the append's transaction.
//! 2. Positions, and the promise that none is passed early, are as before: the sequence goes on
//!    where it was, and a reader also waits for appends that took their lock under the old table.
//! 3. A reader never passes over what was archived: asking for events at such a position is an
//!    error, and so is reading a stream from a version whose event is archived. A process that only
//!    reads streams learns within 10 s that the log was converted; archive the first part later.
//! 4. An append never fails for want of a part: what is beyond the last one goes to a part for the
//!    rest, and is moved when its own is made.

use potter_core::{Database, Engine, Identifier, Row, Sql, Tx, values};

use crate::error::{Error, ErrorKind, Result};
use crate::store::engine_is;
use crate::store::rows::{signed, unsigned};

/// The part that the log was before it was converted.
const FIRST: &str = "potter_events_first";

/// The parts of a log on PostgreSQL: creates, archives and restores them.
///
/// Convert before there is much, or at a quiet time: the table is locked while it is read once.
/// Then call [`create_ahead`](Self::create_ahead) from time to time, and
/// [`archive`](Self::archive) for what need not be at hand any more. An archived part is a table of
/// its own, to be dumped and dropped by whoever wants that; readers that ask for it get an error.
///
/// Appends cost one more index entry; a stream is looked for in every part. Repeating an append
/// whose events are archived is answered with `DuplicateEventId`.
#[derive(Clone, Debug)]
pub struct PartitionedLog {
    database: Database,
}

/// A part of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogPart {
    /// The name of its table.
    pub name: String,
    /// Its positions are above this one,
    pub from: u64,
    /// up to and with this one.
    pub until: u64,
    /// It was taken out of the log.
    pub archived: bool,
}

// One after the other, in one transaction.
const CONVERT: &[&str] = &[
    "DROP TRIGGER potter_events_tags ON potter_events",
    "ALTER TABLE potter_events ALTER COLUMN global_position DROP IDENTITY",
    "ALTER TABLE potter_events DROP CONSTRAINT potter_events_event_id_key",
    "ALTER TABLE potter_events DROP CONSTRAINT potter_events_stream_id_version_key",
    "DROP INDEX potter_events_segment_group",
    "ALTER TABLE potter_events RENAME CONSTRAINT potter_events_pkey TO potter_events_first_pkey",
    "ALTER TABLE potter_events RENAME TO potter_events_first",
    "CREATE TABLE potter_events (
        LIKE potter_events_first INCLUDING DEFAULTS INCLUDING STORAGE,
        PRIMARY KEY (global_position)
     ) PARTITION BY RANGE (global_position)",
    "ALTER TABLE potter_events ALTER COLUMN global_position ADD GENERATED ALWAYS AS IDENTITY
        (SEQUENCE NAME potter_events_global_position_seq CACHE 1)",
    "CREATE INDEX potter_events_stream ON potter_events (stream_id, version)",
    "CREATE INDEX potter_events_segment_group ON potter_events ((segment >> 6), global_position)",
    "CREATE TABLE potter_event_ids (
        event_id        uuid PRIMARY KEY,
        global_position bigint NOT NULL,
        stream_id       text COLLATE \"C\" NOT NULL,
        version         bigint NOT NULL,
        event_type      text COLLATE \"C\" NOT NULL,
        schema_version  integer NOT NULL,
        UNIQUE (stream_id, version))",
    "INSERT INTO potter_event_ids
     SELECT event_id, global_position, stream_id, version, event_type, schema_version
     FROM potter_events_first",
    "CREATE FUNCTION potter_index_ids() RETURNS trigger LANGUAGE plpgsql AS $$
     BEGIN
         INSERT INTO potter_event_ids
         SELECT event_id, global_position, stream_id, version, event_type, schema_version FROM added;
         RETURN NULL;
     END $$",
    "CREATE TRIGGER potter_events_ids AFTER INSERT ON potter_events
     REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION potter_index_ids()",
    "CREATE TRIGGER potter_events_tags AFTER INSERT ON potter_events
     FOR EACH ROW WHEN (NEW.tags IS NOT NULL) EXECUTE FUNCTION potter_index_tags()",
    "CREATE OR REPLACE VIEW potter_known_events AS
     SELECT i.event_id, i.global_position, i.stream_id, i.version, i.event_type, i.schema_version,
            e.payload::text AS payload
     FROM potter_event_ids i LEFT JOIN potter_events e ON e.global_position = i.global_position",
    "CREATE TABLE potter_events_rest PARTITION OF potter_events DEFAULT",
];

impl PartitionedLog {
    /// Of the event store in `database`.
    ///
    /// # Errors
    /// `Config` when it is not PostgreSQL.
    pub fn new(database: &Database) -> Result<Self> {
        engine_is(Engine::Postgres, database.engine())?;
        Ok(Self { database: database.clone() })
    }

    /// Makes the log one of parts of `size` positions each. What is there becomes the first part,
    /// up to the next multiple of `size`. Once; safe to call again.
    ///
    /// # Errors
    /// `InvalidInput` when `size` is 0 or the parts are of another size; `Conflict` when another
    /// transaction was in the way.
    pub async fn convert(&self, size: u64) -> Result<()> {
        if size == 0 || size > 1 << 40 {
            let message = "a part of the log has from 1 to 2^40 positions";
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let mut tx = self.locked().await?;
        let parts = parts_in(&mut tx).await?;
        if let Some(first) = parts.first() {
            if parts.len() == 1 || parts[1..].iter().all(|part| part.until - part.from == size) {
                return Ok(());
            }
            let message = format!("the log is in parts of another size: {first:?}");
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let last = last_position(&mut tx).await?;
        for statement in CONVERT {
            tx.execute(*statement, &[]).await?;
        }
        if last > 0 {
            let go_on = "SELECT setval('potter_events_global_position_seq', $1)";
            tx.fetch_all(go_on, values![signed(last)]).await?;
        }
        let first = (last / size + 1) * size;
        attach(
            &mut tx,
            &LogPart { name: FIRST.to_owned(), from: 0, until: first, archived: false },
        )
        .await?;
        let second = new_part(first, size);
        create(&mut tx, &second).await?;
        Ok(tx.commit().await?)
    }

    /// The parts, by position.
    ///
    /// # Errors
    /// `Unavailable` when the database is.
    pub async fn parts(&self) -> Result<Vec<LogPart>> {
        self.database.read(PARTS, &[]).await?.iter().map(part).collect()
    }

    /// Creates parts until there are `ahead` whole ones above the last position that was given.
    /// Answers the new ones.
    ///
    /// # Errors
    /// `Config` when the log is not in parts.
    pub async fn create_ahead(&self, ahead: u32) -> Result<Vec<LogPart>> {
        let mut tx = self.locked().await?;
        let parts = parts_in(&mut tx).await?;
        let newest = parts.last().filter(|_| parts.len() > 1).ok_or_else(not_in_parts)?;
        let size = newest.until - newest.from;
        let last = last_position(&mut tx).await?;
        let wanted = last.saturating_add(size.saturating_mul(u64::from(ahead)));
        let (mut from, mut made) = (newest.until, Vec::new());
        while from < wanted {
            let next = new_part(from, size);
            create(&mut tx, &next).await?;
            from = next.until;
            made.push(next);
        }
        tx.commit().await?;
        Ok(made)
    }

    /// Takes the oldest part that is still there out of the log. Its table stays, with all of its
    /// rows. Answers it.
    ///
    /// # Errors
    /// `Conflict` when events are still appended to it, or a projection has not read all of it;
    /// `Config` when the log is not in parts; `NotFound` when only the newest is left.
    pub async fn archive(&self) -> Result<LogPart> {
        let mut tx = self.locked().await?;
        let parts = parts_in(&mut tx).await?;
        if parts.is_empty() {
            return Err(not_in_parts());
        }
        let mut there = parts.into_iter().filter(|part| !part.archived);
        let (Some(mut oldest), Some(_)) = (there.next(), there.next()) else {
            return Err(Error::new(ErrorKind::NotFound, "only the newest part is left"));
        };
        if last_position(&mut tx).await? <= oldest.until {
            let message = format!("events are still appended to the part {}", oldest.name);
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let behind = "SELECT projection FROM potter_projection_segments WHERE position < $1
             ORDER BY position LIMIT 1";
        if let Some(row) = tx.fetch_optional(behind, values![signed(oldest.until)]).await? {
            let message = format!(
                "the projection {} has not read all of the part {}: catch it up, or forget it",
                row.text("projection")?,
                oldest.name
            );
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let detach = Sql::checked("ALTER TABLE potter_events DETACH PARTITION {part}");
        tx.execute(detach.with("part", &Identifier::new(&*oldest.name)?), &[]).await?;
        let archived = "UPDATE potter_log_parts SET archived = true WHERE name = $1";
        tx.execute(archived, values![oldest.name.as_str()]).await?;
        tx.commit().await?;
        oldest.archived = true;
        Ok(oldest)
    }

    /// Puts the part that was archived last back into the log; its table must be there again, under
    /// its name. Answers it.
    ///
    /// # Errors
    /// `NotFound` when nothing is archived; `Internal` when the table is not there.
    pub async fn restore(&self) -> Result<LogPart> {
        let mut tx = self.locked().await?;
        let newest = parts_in(&mut tx).await?.into_iter().rfind(|part| part.archived);
        let mut newest =
            newest.ok_or_else(|| Error::new(ErrorKind::NotFound, "no part is archived"))?;
        newest.archived = false;
        attach(&mut tx, &newest).await?;
        tx.commit().await?;
        Ok(newest)
    }

    /// A transaction that has the log to itself: who appends or reads has ended, or waits.
    async fn locked(&self) -> Result<Tx> {
        let mut tx = self.database.begin().await?;
        tx.execute("LOCK TABLE potter_events IN ACCESS EXCLUSIVE MODE", &[]).await?;
        tx.execute("LOCK TABLE potter_log_parts IN EXCLUSIVE MODE", &[]).await?;
        Ok(tx)
    }
}

const PARTS: &str = "SELECT name, from_position, until_position, archived FROM potter_log_parts
     ORDER BY from_position";

async fn parts_in(tx: &mut Tx) -> Result<Vec<LogPart>> {
    tx.fetch_all(PARTS, &[]).await?.iter().map(part).collect()
}

fn part(row: &Row) -> Result<LogPart> {
    Ok(LogPart {
        name: row.text("name")?,
        from: unsigned(row, "from_position")?,
        until: unsigned(row, "until_position")?,
        archived: row.bool("archived")?,
    })
}

async fn last_position(tx: &mut Tx) -> Result<u64> {
    let last = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS last
         FROM potter_events_global_position_seq";
    let row = tx.fetch_optional(last, &[]).await?;
    row.map_or(Ok(0), |row| unsigned(&row, "last"))
}

fn new_part(from: u64, size: u64) -> LogPart {
    let name = format!("potter_events_from_{from}");
    LogPart { name, from, until: from + size, archived: false }
}

/// A new part, with what had to go to the rest.
async fn create(tx: &mut Tx, part: &LogPart) -> Result<()> {
    let name = Identifier::new(&*part.name)?;
    let table = Sql::checked("CREATE TABLE {part} (LIKE potter_events INCLUDING DEFAULTS)");
    tx.execute(table.with("part", &name), &[]).await?;
    let moved = Sql::checked(
        "WITH moved AS (
             DELETE FROM potter_events_rest
             WHERE global_position > $1 AND global_position <= $2 RETURNING *)
         INSERT INTO {part} SELECT * FROM moved",
    );
    let range = values![signed(part.from), signed(part.until)];
    tx.execute(moved.with("part", &name), range).await?;
    attach(tx, part).await
}

/// Bounds are of DDL and can't be bound; they are numbers.
async fn attach(tx: &mut Tx, part: &LogPart) -> Result<()> {
    let (from, until) = (signed(part.from), signed(part.until));
    let from = if from == 0 { "MINVALUE".to_owned() } else { (from + 1).to_string() };
    let statement = Sql::checked(format!(
        "ALTER TABLE potter_events ATTACH PARTITION {{part}} FOR VALUES FROM ({from}) TO ({})",
        until + 1
    ));
    tx.execute(statement.with("part", &Identifier::new(&*part.name)?), &[]).await?;
    let note = "INSERT INTO potter_log_parts (name, from_position, until_position)
         VALUES ($1, $2, $3) ON CONFLICT (name) DO UPDATE SET archived = false";
    let values = values![part.name.as_str(), signed(part.from), signed(part.until)];
    tx.execute(note, values).await?;
    Ok(())
}

fn not_in_parts() -> Error {
    let message = "the log is not in parts: PartitionedLog::convert makes it so";
    Error::new(ErrorKind::Config, message)
}
