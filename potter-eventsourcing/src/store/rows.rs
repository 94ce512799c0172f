//! The reading statements that SQLite and PostgreSQL share.

use potter_core::{Database, Row, SqlValue, Tx, values};

use super::pages::AllCursor;
use super::read::{Direction, ReadOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::event::RecordedEvent;
use crate::stream_id::StreamId;

/// What a read goes through.
pub(crate) enum Source<'a> {
    Database(&'a Database),
    Tx(&'a mut Tx),
}

impl Source<'_> {
    async fn fetch(&mut self, statement: &'static str, values: &[SqlValue]) -> Result<Vec<Row>> {
        Ok(match self {
            Self::Database(database) => database.read(statement, values).await?,
            Self::Tx(tx) => tx.fetch_all(statement, values).await?,
        })
    }
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT global_position, stream_id, version, event_id, event_type, \
             CAST(schema_version AS bigint) AS schema_version, payload, metadata, recorded_at \
             FROM potter_events ",
            $rest
        )
    };
}

const FORWARDS: &str = select!("WHERE stream_id = $1 AND version >= $2 ORDER BY version LIMIT $3");
const BACKWARDS: &str =
    select!("WHERE stream_id = $1 AND version <= $2 ORDER BY version DESC LIMIT $3");
// Without an upper bound: with two, PostgreSQL's generic plan may read and sort the whole range
// for every page.
const ALL: &str = select!("WHERE global_position > $1 ORDER BY global_position LIMIT $2");

pub(crate) async fn stream_page(
    mut source: Source<'_>,
    stream: &StreamId,
    options: ReadOptions,
) -> Result<Vec<RecordedEvent>> {
    let statement = match options.direction {
        Direction::Forwards => FORWARDS,
        Direction::Backwards => BACKWARDS,
    };
    let values = values![stream.as_str(), signed(options.start()), signed(options.page())];
    source.fetch(statement, values).await?.iter().map(recorded).collect()
}

pub(crate) async fn all_page(database: &Database, cursor: AllCursor) -> Result<Vec<RecordedEvent>> {
    let rows = database.read(ALL, values![signed(cursor.after), signed(cursor.page())]).await?;
    let events = rows.iter().map(recorded);
    let within = |event: &Result<RecordedEvent>| {
        event.as_ref().map_or(true, |event| event.global_position <= cursor.until)
    };
    events.take_while(within).collect()
}

pub(crate) async fn stream_version(mut source: Source<'_>, stream: &StreamId) -> Result<u64> {
    let statement = "SELECT version FROM potter_streams WHERE stream_id = $1";
    let rows = source.fetch(statement, values![stream.as_str()]).await?;
    rows.first().map_or(Ok(0), |row| unsigned(row, "version"))
}

pub(crate) async fn head_position(database: &Database) -> Result<u64> {
    let statement = "SELECT coalesce(max(global_position), 0) AS head FROM potter_events";
    let rows = database.read(statement, &[]).await?;
    rows.first().map_or(Ok(0), |row| unsigned(row, "head"))
}

fn recorded(row: &Row) -> Result<RecordedEvent> {
    let schema_version = row.i64("schema_version")?;
    Ok(RecordedEvent {
        event_id: row.uuid("event_id")?,
        stream_id: StreamId::parse(row.text("stream_id")?)
            .map_err(|source| corrupt("a stored stream id is malformed", source))?,
        version: unsigned(row, "version")?,
        global_position: unsigned(row, "global_position")?,
        event_type: row.text("event_type")?,
        schema_version: u32::try_from(schema_version)
            .map_err(|source| corrupt("a stored schema version is out of range", source))?,
        payload: row.json("payload")?,
        metadata: row.json("metadata")?.get()?,
        recorded_at: row.time("recorded_at")?,
    })
}

/// A column that is never negative.
pub(crate) fn unsigned(row: &Row, column: &str) -> Result<u64> {
    let value = row.i64(column)?;
    u64::try_from(value).map_err(|source| corrupt("a stored number is negative", source))
}

/// For SQL, which has no unsigned numbers: what is beyond is "no limit".
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn corrupt(message: &str, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::with_source(ErrorKind::Corrupt, message, source)
}
