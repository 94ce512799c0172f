//! The reading statements that SQLite and PostgreSQL share.

use std::collections::BTreeSet;

use potter_core::{Column, Database, Json, Metadata, Row, SqlValue, Tx, values};

use super::pages::{AllCursor, next_in_stream};
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

macro_rules! columns {
    () => {
        "global_position, stream_id, version, event_id, event_type, \
         CAST(schema_version AS bigint) AS schema_version, payload, \
         NULLIF(CAST(metadata AS text), '{}') AS metadata, tags, recorded_at"
    };
}
pub(super) use columns;

macro_rules! select {
    ($rest:literal) => {
        concat!("SELECT ", columns!(), " FROM potter_events ", $rest)
    };
}

const FORWARDS: &str = select!("WHERE stream_id = $1 AND version >= $2 ORDER BY version LIMIT $3");
const BACKWARDS: &str =
    select!("WHERE stream_id = $1 AND version <= $2 ORDER BY version DESC LIMIT $3");
// Without an upper bound: with two, PostgreSQL's generic plan may read and sort the whole range
// for every page.
const ALL: &str = select!("WHERE global_position > $1 ORDER BY global_position LIMIT $2");

pub(crate) async fn stream_page(
    source: Source<'_>,
    stream: &StreamId,
    options: ReadOptions,
) -> Result<Vec<RecordedEvent>> {
    stream_rows(source, stream, options, options.page()).await
}

/// A page, and where to go on. It asks for one event more than the page has: so the last page is
/// known for what it is.
pub(crate) async fn stream_page_and_next(
    source: Source<'_>,
    stream: &StreamId,
    options: ReadOptions,
) -> Result<(Vec<RecordedEvent>, Option<ReadOptions>)> {
    let asked = options.page();
    let looks_on = options.limit.is_none_or(|limit| limit > asked);
    let mut page = stream_rows(source, stream, options, asked + u64::from(looks_on)).await?;
    let more = page.len() as u64 > asked;
    page.truncate(usize::try_from(asked).unwrap_or(usize::MAX));
    let next = next_in_stream(options, &page).filter(|_| more);
    Ok((page, next))
}

async fn stream_rows(
    mut source: Source<'_>,
    stream: &StreamId,
    options: ReadOptions,
    limit: u64,
) -> Result<Vec<RecordedEvent>> {
    let statement = match options.direction {
        Direction::Forwards => FORWARDS,
        Direction::Backwards => BACKWARDS,
    };
    let values = values![stream.as_str(), signed(options.start()), signed(limit)];
    let rows = source.fetch(statement, values).await?;
    let of_stream = |row| recorded_in(row, stream.clone());
    let events = rows.iter().map(of_stream).collect::<Result<Vec<_>>>()?;
    if let Some(missing) = missing(&events, options, limit) {
        return Err(gone(stream, missing));
    }
    Ok(events)
}

/// Refuses an empty page of a stream that has events where it was looked for.
pub(crate) async fn check_empty(
    source: Source<'_>,
    stream: &StreamId,
    options: ReadOptions,
) -> Result<()> {
    let head = stream_version(source, stream).await?;
    let first = match options.direction {
        Direction::Forwards => options.start().max(1),
        Direction::Backwards => options.start().min(head),
    };
    if first == 0 || first > head || options.page() == 0 {
        return Ok(());
    }
    Err(gone(stream, first))
}

fn gone(stream: &StreamId, version: u64) -> Error {
    let message = format!(
        "the event at version {version} of stream {stream} is not there any more: its part of the \
         log is archived, or it was deleted"
    );
    Error::new(ErrorKind::NotFound, message)
}

/// Versions have no gaps: what begins late, or ends early, lacks what was taken out.
fn missing(events: &[RecordedEvent], options: ReadOptions, limit: u64) -> Option<u64> {
    let (first, last) = (events.first()?.version, events.last()?.version);
    match options.direction {
        Direction::Forwards => (first > options.start().max(1)).then(|| options.start().max(1)),
        Direction::Backwards => ((events.len() as u64) < limit && last > 1).then(|| last - 1),
    }
}

pub(crate) async fn all_page(database: &Database, cursor: AllCursor) -> Result<Vec<RecordedEvent>> {
    all_between(database, cursor.after, cursor.until, cursor.page()).await
}

/// The first `limit` of all events above `after`, up to and with `until`.
pub(crate) async fn all_between(
    database: &Database,
    after: u64,
    until: u64,
    limit: u64,
) -> Result<Vec<RecordedEvent>> {
    let rows = database.read(ALL, values![signed(after), signed(limit)]).await?;
    let events = rows.iter().map(recorded);
    let within = |event: &Result<RecordedEvent>| {
        event.as_ref().map_or(true, |event| event.global_position <= until)
    };
    events.take_while(within).collect()
}

pub(crate) async fn stream_version(mut source: Source<'_>, stream: &StreamId) -> Result<u64> {
    let statement = "SELECT version FROM potter_streams WHERE stream_id = $1";
    let rows = source.fetch(statement, values![stream.as_str()]).await?;
    rows.first().map_or(Ok(0), |row| unsigned(row, "version"))
}

pub(crate) async fn event(
    database: &Database,
    event_id: uuid::Uuid,
) -> Result<Option<RecordedEvent>> {
    const EVENT: &str = select!("WHERE event_id = $1");
    let rows = database.read(EVENT, values![event_id]).await?;
    rows.first().map(recorded).transpose()
}

/// The position before the first event that was recorded after `time`, `safe` at most.
pub(crate) async fn position_at(
    database: &Database,
    time: chrono::DateTime<chrono::Utc>,
    safe: u64,
) -> Result<u64> {
    const LATER: &str =
        "SELECT min(global_position) AS later FROM potter_events WHERE recorded_at > $1";
    let rows = database.read(LATER, values![time]).await?;
    let later = rows.first().map(|row| row.opt_i64("later")).transpose()?.flatten();
    Ok(later.map_or(safe, |later| safe.min(later.unsigned_abs().saturating_sub(1))))
}

pub(crate) async fn head_position(database: &Database) -> Result<u64> {
    let statement = "SELECT coalesce(max(global_position), 0) AS head FROM potter_events";
    let rows = database.read(statement, &[]).await?;
    rows.first().map_or(Ok(0), |row| unsigned(row, "head"))
}

// The columns of columns!, by their places: names would be looked up for each event.
const POSITION: usize = 0;
const STREAM: usize = 1;
const VERSION: usize = 2;
const EVENT_ID: usize = 3;
const TYPE: usize = 4;
const SCHEMA: usize = 5;
const PAYLOAD: usize = 6;
const METADATA: usize = 7;
const TAGS: usize = 8;
const RECORDED_AT: usize = 9;

pub(super) fn recorded(row: &Row) -> Result<RecordedEvent> {
    let stream = StreamId::parse(row.text(STREAM)?)
        .map_err(|source| corrupt("a stored stream id is malformed", source))?;
    recorded_in(row, stream)
}

/// The same where the stream is known.
fn recorded_in(row: &Row, stream_id: StreamId) -> Result<RecordedEvent> {
    let metadata = row.opt_text(METADATA)?.map(Json::parse).transpose();
    let metadata = metadata.map_err(|source| corrupt("stored metadata are no JSON", source))?;
    Ok(RecordedEvent {
        event_id: row.uuid(EVENT_ID)?,
        stream_id,
        version: unsigned(row, VERSION)?,
        global_position: unsigned(row, POSITION)?,
        event_type: row.text(TYPE)?,
        schema_version: u32::try_from(row.i64(SCHEMA)?)
            .map_err(|source| corrupt("a stored schema version is out of range", source))?,
        payload: row.json(PAYLOAD)?,
        metadata: metadata.map_or_else(|| Ok(Metadata::new()), |metadata| metadata.get())?,
        tags: row.opt_json(TAGS)?.map_or_else(|| Ok(BTreeSet::new()), |tags| tags.get())?,
        recorded_at: row.time(RECORDED_AT)?,
    })
}

/// A column that is never negative.
pub(crate) fn unsigned<'a>(row: &Row, column: impl Into<Column<'a>>) -> Result<u64> {
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
