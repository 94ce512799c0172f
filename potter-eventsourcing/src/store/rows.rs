//! The reading statements that SQLite and PostgreSQL share.

use potter_core::{Database, Json, Row, Sql, SqlValue, Tx, values};

use super::filter::{EventFilter, GROUPS};
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
    (of_groups $rest:literal) => {
        concat!(
            "SELECT global_position, stream_id, version, event_id, event_type, \
             CAST(schema_version AS bigint) AS schema_version, payload, metadata, recorded_at \
             FROM (SELECT json_array_elements_text($3::json)::smallint AS wanted) AS of \
             CROSS JOIN LATERAL (
                 SELECT * FROM potter_events \
                 WHERE (segment >> 6) = of.wanted AND global_position > $1 AND global_position <= $2",
            $rest,
            " ORDER BY global_position LIMIT $10) AS event ORDER BY global_position LIMIT $10"
        )
    };
    (@ $groups:literal, $rest:literal) => {
        concat!(
            "SELECT global_position, stream_id, version, event_id, event_type, \
             CAST(schema_version AS bigint) AS schema_version, payload, metadata, recorded_at \
             FROM potter_events WHERE global_position > $1 AND global_position <= $2",
            $groups,
            $rest,
            " ORDER BY global_position LIMIT $10"
        )
    };
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

// What a filter does not name is NULL. With the groups of segments both ends of the window are in
// the index (segment >> 6, global_position).
macro_rules! wanted_on_sqlite {
    ($groups:literal) => {
        select!(@ $groups,
            " AND ($4 IS NULL OR event_type IN (SELECT value FROM json_each($4)))
              AND ($5 IS NULL OR substr(stream_id, 1, instr(stream_id, '-') - 1) IN (SELECT value FROM json_each($5)))
              AND ($6 IS NULL OR (instr($6, '-') = 0 AND substr(stream_id, 1, length($6) + 1) = $6 || '.'))
              AND ($7 IS NULL OR metadata ->> '$.tenant' = $7)
              AND ($8 IS NULL OR segment / $9 IN (SELECT value FROM json_each($8)))")
    };
}

macro_rules! wanted_on_postgres {
    ($($shape:tt)*) => {
        select!($($shape)*
            " AND ($4::text IS NULL OR event_type = ANY (ARRAY(SELECT json_array_elements_text($4::json))))
              AND ($5::text IS NULL OR split_part(stream_id, '-', 1) = ANY (ARRAY(SELECT json_array_elements_text($5::json))))
              AND ($6::text IS NULL OR (strpos($6, '-') = 0 AND starts_with(stream_id, $6 || '.')))
              AND ($7::text IS NULL OR metadata ->> 'tenant' = $7)
              AND ($8::text IS NULL OR segment / $9 = ANY (ARRAY(SELECT json_array_elements_text($8::json)::bigint)))")
    };
}

const WANTED: Sql =
    Sql::new(wanted_on_sqlite!(" AND $3 IS NULL"), wanted_on_postgres!(@ " AND $3::text IS NULL",));
// On PostgreSQL each group by itself: with a list of groups it reads all of the window by the
// primary key, as that is in order, and leaves out what is not wanted.
const WANTED_OF_GROUPS: Sql = Sql::new(
    wanted_on_sqlite!(" AND (segment >> 6) IN (SELECT value FROM json_each($3))"),
    wanted_on_postgres!(of_groups),
);

/// What the filter wants of the positions above `after`, up to and with `until`.
pub(crate) async fn wanted_page(
    database: &Database,
    (after, until): (u64, u64),
    filter: &EventFilter,
    limit: u64,
) -> Result<Vec<RecordedEvent>> {
    let groups = filter.segments.as_ref().map(super::SegmentSet::groups);
    let groups = groups.filter(|groups| groups.len() < usize::from(GROUPS));
    let finer = filter.segments.as_ref().filter(|segments| segments.is_finer_than_groups());
    let json = |set: Option<&std::collections::BTreeSet<String>>| set.map(Json::of).transpose();
    let statement = if groups.is_some() { WANTED_OF_GROUPS } else { WANTED };
    let values = values![
        signed(after),
        signed(until),
        groups.as_ref().map(Json::of).transpose()?,
        json(filter.event_types.as_ref())?,
        json(filter.stream_types.as_ref())?,
        filter.context.clone(),
        filter.tenant.clone(),
        finer.map(|set| Json::of(&set.members().collect::<Vec<_>>())).transpose()?,
        finer.map_or(1, |set| i64::from(crate::SEGMENTS / set.count())),
        signed(limit),
    ];
    database.read(statement, values).await?.iter().map(recorded).collect()
}

/// Pages through the windows that are final, wider and wider until something is found.
pub(crate) async fn filtered(
    database: &Database,
    after: u64,
    safe: u64,
    filter: &EventFilter,
    limit: u64,
) -> Result<(Vec<RecordedEvent>, u64)> {
    const WINDOW_MIN: u64 = 1024;
    const WINDOW_MAX: u64 = 1 << 18;
    const WINDOWS: u32 = 8;
    let groups =
        filter.segments.as_ref().map_or(u64::from(GROUPS), |set| set.groups().len() as u64);
    if groups == 0 {
        return Ok((Vec::new(), safe.max(after)));
    }
    let spread = limit.saturating_mul(u64::from(GROUPS)) / groups;
    let mut window = spread.clamp(WINDOW_MIN, WINDOW_MAX);
    let mut after = after;
    for _ in 0..WINDOWS {
        if after >= safe {
            break;
        }
        let until = safe.min(after.saturating_add(window));
        let events = wanted_page(database, (after, until), filter, limit).await?;
        if events.len() as u64 >= limit {
            let through = events.last().map_or(until, |event| event.global_position);
            return Ok((events, through));
        }
        after = until;
        if !events.is_empty() {
            return Ok((events, after));
        }
        window = window.saturating_mul(4).min(WINDOW_MAX);
    }
    Ok((Vec::new(), after))
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
