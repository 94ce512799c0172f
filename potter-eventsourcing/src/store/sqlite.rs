//! Events in SQLite.
//!
//! SQLite has one writer at a time and every append takes its place before it reads
//! (`BEGIN IMMEDIATE`), so positions are in the order of commits and what is visible is final.
//! A group of appends is four statements, whatever its size: two to read what matters, a pure
//! decision (`plan`), two to write.

mod single;

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures::stream::BoxStream;
use potter_core::{Database, Engine, Json, Tx, values};
use serde_json::json;

use super::append::{Append, ExpectedVersion};
use super::commit_queue::{Commit, CommitQueue};
use super::options::StoreOptions;
use super::pages::{AllCursor, next_in_stream, pages};
use super::plan::{Insert, Known, KnownEvent, plan};
use super::read::{ReadAllOptions, ReadOptions};
use super::rows::{self, Source, unsigned};
use super::{EventStore, engine_is};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Appended, NewEvent, RecordedEvent};
use crate::schema::MIGRATIONS;
use crate::stream_id::StreamId;

/// The event store on an SQLite file.
pub struct SqliteEventStore {
    database: Database,
    options: StoreOptions,
    queue: CommitQueue<Writer>,
}

impl SqliteEventStore {
    /// The store in `database`, with the default options.
    ///
    /// # Errors
    /// `Config` when the database is of another engine.
    pub fn new(database: Database) -> Result<Self> {
        Self::with_options(database, StoreOptions::default())
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_options(database: Database, options: StoreOptions) -> Result<Self> {
        engine_is(Engine::Sqlite, database.engine())?;
        let writer = Writer { database: database.clone() };
        let queue = CommitQueue::new(writer, options.clone(), 1);
        Ok(Self { database, options, queue })
    }
}

impl std::fmt::Debug for SqliteEventStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteEventStore").field("options", &self.options).finish_non_exhaustive()
    }
}

struct Writer {
    database: Database,
}

#[async_trait]
impl Commit for Writer {
    async fn commit(&self, appends: &[Append]) -> Result<Vec<Result<Appended>>> {
        let mut tx = self.database.begin().await?;
        if let Some(appended) = single::append(&mut tx, appends).await? {
            tx.commit().await?;
            return Ok(vec![Ok(appended)]);
        }
        let answers = append_group(&mut tx, appends).await?;
        tx.commit().await?;
        Ok(answers)
    }
}

const HEADS: &str =
    "SELECT NULL AS stream_id, seq AS version FROM sqlite_sequence WHERE name = 'potter_events'
     UNION ALL
     SELECT s.stream_id, s.version FROM json_each($1) AS wanted
     CROSS JOIN potter_streams AS s ON s.stream_id = wanted.value";

const SEEN: &str = "SELECT e.event_id, e.stream_id, e.version, e.global_position, e.event_type,
            e.schema_version, e.payload
     FROM json_each($1) AS wanted CROSS JOIN potter_events AS e ON e.event_id = wanted.value";

const INSERT: &str = "INSERT INTO potter_events
        (global_position, stream_id, version, event_id, event_type, schema_version, payload, metadata, segment)
     SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5,
            value ->> 6, value ->> 7, value ->> 8
     FROM json_each($1) ORDER BY key";

const MOVE_HEADS: &str = "INSERT INTO potter_streams (stream_id, version)
     SELECT key, value FROM json_each($1) WHERE true
     ON CONFLICT (stream_id) DO UPDATE SET version = excluded.version";

async fn append_group(tx: &mut Tx, appends: &[Append]) -> Result<Vec<Result<Appended>>> {
    let known = known(tx, appends).await?;
    let planned = plan(appends, known);
    if !planned.inserts.is_empty() {
        let rows: Vec<_> = planned.inserts.iter().map(row).collect();
        tx.execute(INSERT, values![Json::of(&rows)?]).await?;
        let heads: BTreeMap<&str, u64> =
            planned.heads.iter().map(|(stream, version)| (stream.as_str(), *version)).collect();
        tx.execute(MOVE_HEADS, values![Json::of(&heads)?]).await?;
    }
    Ok(planned.answers)
}

async fn known(tx: &mut Tx, appends: &[Append]) -> Result<Known> {
    let mut known = Known::default();
    let streams: Vec<_> = appends.iter().map(|append| append.stream.as_str()).collect();
    for row in tx.fetch_all(HEADS, values![Json::of(&streams)?]).await? {
        let version = unsigned(&row, "version")?;
        match row.opt_text("stream_id")? {
            Some(stream) => {
                known.heads.insert(StreamId::parse(stream)?, version);
            }
            None => known.last_position = version,
        }
    }
    let ids: Vec<_> = appends
        .iter()
        .flat_map(|append| &append.events)
        .map(|new| new.event.event_id.to_string())
        .collect();
    for row in tx.fetch_all(SEEN, values![Json::of(&ids)?]).await? {
        let event = KnownEvent {
            stream: StreamId::parse(row.text("stream_id")?)?,
            version: unsigned(&row, "version")?,
            global_position: unsigned(&row, "global_position")?,
            event_type: row.text("event_type")?,
            schema_version: u32::try_from(row.i64("schema_version")?).unwrap_or(0),
            payload: row.json("payload")?,
        };
        known.events.insert(row.uuid("event_id")?, event);
    }
    Ok(known)
}

fn row(insert: &Insert<'_>) -> serde_json::Value {
    let event = &insert.event.event;
    json!([
        insert.global_position,
        insert.stream.as_str(),
        insert.version,
        event.event_id.to_string(),
        event.event_type,
        event.schema_version,
        event.payload.as_str(),
        insert.event.metadata.as_str(),
        insert.stream.segment(),
    ])
}

#[async_trait]
impl EventStore for SqliteEventStore {
    fn database(&self) -> &Database {
        &self.database
    }

    async fn migrate(&self) -> Result<()> {
        Ok(MIGRATIONS.apply(&self.database).await?)
    }

    async fn append(
        &self,
        stream: &StreamId,
        expected: ExpectedVersion,
        events: Vec<NewEvent>,
    ) -> Result<Appended> {
        self.queue.append(Append::new(stream, expected, events, &self.options)?).await
    }

    async fn append_in(
        &self,
        tx: &mut Tx,
        stream: &StreamId,
        expected: ExpectedVersion,
        events: Vec<NewEvent>,
    ) -> Result<Appended> {
        engine_is(Engine::Sqlite, tx.engine())?;
        let append = Append::new(stream, expected, events, &self.options)?;
        let appends = std::slice::from_ref(&append);
        if let Some(appended) = single::append(tx, appends).await? {
            return Ok(appended);
        }
        let answer = append_group(tx, appends).await?.pop();
        answer.unwrap_or_else(|| Err(Error::new(ErrorKind::Internal, "an append was not answered")))
    }

    fn read_stream(
        &self,
        stream: &StreamId,
        options: ReadOptions,
    ) -> BoxStream<'_, Result<RecordedEvent>> {
        let stream = stream.clone();
        pages(options, move |options| {
            let stream = stream.clone();
            async move {
                let source = Source::Database(&self.database);
                let page = rows::stream_page(source, &stream, options).await?;
                let next = next_in_stream(options, &page);
                Ok((page, next))
            }
        })
    }

    async fn read_stream_in(
        &self,
        tx: &mut Tx,
        stream: &StreamId,
        options: ReadOptions,
    ) -> Result<Vec<RecordedEvent>> {
        engine_is(Engine::Sqlite, tx.engine())?;
        rows::stream_page(Source::Tx(tx), stream, options).await
    }

    fn read_all(
        &self,
        after: u64,
        options: ReadAllOptions,
    ) -> BoxStream<'_, Result<RecordedEvent>> {
        let first = AllCursor { after, until: 0, limit: options.limit };
        pages(first, move |mut cursor| async move {
            if cursor.until == 0 {
                cursor.until = rows::head_position(&self.database).await?;
            }
            let page = rows::all_page(&self.database, cursor).await?;
            let next = cursor.next(&page);
            Ok((page, next))
        })
    }

    async fn stream_version(&self, stream: &StreamId) -> Result<u64> {
        rows::stream_version(Source::Database(&self.database), stream).await
    }

    async fn head_position(&self) -> Result<u64> {
        rows::head_position(&self.database).await
    }

    async fn safe_position(&self) -> Result<u64> {
        self.head_position().await
    }
}
